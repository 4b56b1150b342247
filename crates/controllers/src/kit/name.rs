//! Derived names: the same owner, salt and ordinal give the same name, so a repeated creation meets itself.

use api::{Object, Stream, Tree};

use super::value::canonical;

/// Upstream's `rand.SafeEncodeString` alphabet: no vowels, nothing that reads as another character.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Longest name of a pod or of a label value.
const NAME_LENGTH_MAX: usize = 63;
/// Characters that upstream appends to `generateName`.
const SUFFIX_LENGTH: usize = 5;
const BASE_LENGTH_MAX: usize = NAME_LENGTH_MAX - SUFFIX_LENGTH;

/// FNV-1a, 32 bits: upstream's hash of templates.
pub fn fnv32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// FNV-1a, 64 bits, over parts that are told apart.
pub fn fnv64(parts: &[&[u8]]) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    parts.iter().fold(0xcbf2_9ce4_8422_2325, |hash, part| step(part.iter().copied().fold(hash, step), 0xff))
}

/// Each byte mapped into the safe alphabet (`rand.SafeEncodeString`).
pub fn safe_encode(text: &str) -> String {
    text.bytes().map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])).collect()
}

/// `pod-template-hash` and the suffix of a ReplicaSet's name. Over the canonical, defaulted template.
pub fn template_hash(template: &Tree, collision_count: Option<i64>) -> String {
    let mut bytes = canonical(template).to_string().into_bytes();
    if let Some(count) = collision_count {
        bytes.extend_from_slice(count.to_string().as_bytes());
    }
    safe_encode(&fnv32(&bytes).to_string())
}

/// What makes a replaced child's name differ from its predecessors': the uids of the children that exist, and of the one
/// that went last, so that names also differ once all are gone. Unchanged as long as no child is seen to come or go: a
/// creation whose reply was lost derives the same name again and meets itself. One stream shows its objects in order, so
/// whoever sees a child go has seen all that were made before.
pub fn salt<'a>(of: &Stream, owner: &Object, children: impl Iterator<Item = &'a Object>) -> u64 {
    let epoch = fnv64(&[of.epoch(&owner.header.uid).as_bytes()]);
    children.map(|child| fnv64(&[child.header.uid.as_bytes()])).fold(epoch, |sum, hash| sum.wrapping_add(hash))
}

/// `base` (which ends in a dash) and five characters.
pub fn child(base: &str, owner_uid: &str, salt: u64, ordinal: &str) -> String {
    let mut hash = fnv64(&[owner_uid.as_bytes(), &salt.to_le_bytes(), ordinal.as_bytes()]);
    let mut end = base.len().min(BASE_LENGTH_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    for _ in 0..SUFFIX_LENGTH {
        let size = ALPHABET.len() as u64;
        name.push(char::from(ALPHABET[usize::try_from(hash % size).expect("below 27")]));
        hash = (hash / size).rotate_left(29).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ hash;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_as_upstream() {
        // rand.SafeEncodeString of digits: '0' is 48, 48 % 27 = 21 -> '4' ...
        assert_eq!(safe_encode("0123456789"), "456789bcdf".chars().collect::<String>());
        assert_eq!(fnv32(b"a"), 0xe40c_292c);
    }

    #[test]
    fn names_are_stable_distinct_and_short() {
        let base = format!("{}-", "x".repeat(70));
        assert_eq!(child(&base, "u", 1, "0").len(), 63);
        assert_eq!(child("a-", "u", 1, "0"), child("a-", "u", 1, "0"));
        let names: std::collections::BTreeSet<_> = (0..500).map(|n| child("a-", "u", 1, &n.to_string())).collect();
        assert_eq!(names.len(), 500);
    }
}
