//! Which texts are names: of objects, labels, ports, versions. Each check returns upstream's sentence about the rule.

/// Object names are at most this long (DNS-1123 subdomain).
pub(crate) const SUBDOMAIN_BYTES_MAX: usize = 253;
pub(crate) const LABEL_BYTES_MAX: usize = 63;
/// A generated name is its prefix, cut to this, and five letters.
const GENERATED_PREFIX_BYTES_MAX: usize = SUBDOMAIN_BYTES_MAX - SUFFIX_LETTERS;
const SUFFIX_LETTERS: usize = 5;
/// No vowels and no look-alikes, so that no name spells a word.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

const LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035_RULE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED_RULE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY_RULE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// What is wrong with a text; empty when nothing is.
pub(crate) type Wrong = Vec<String>;

pub(crate) fn label(text: &str) -> Wrong {
    let mut wrong = bounded(text, LABEL_BYTES_MAX);
    if !is_label(text) {
        wrong.push(LABEL_RULE.to_owned());
    }
    wrong
}

pub(crate) fn label_1035(text: &str) -> Wrong {
    let mut wrong = bounded(text, LABEL_BYTES_MAX);
    if !is_label(text) || !text.starts_with(|first: char| first.is_ascii_lowercase()) {
        wrong.push(LABEL_1035_RULE.to_owned());
    }
    wrong
}

pub(crate) fn subdomain(text: &str) -> Wrong {
    let mut wrong = bounded(text, SUBDOMAIN_BYTES_MAX);
    if !text.split('.').all(is_label) {
        wrong.push(SUBDOMAIN_RULE.to_owned());
    }
    wrong
}

/// Names that may hold anything but what a URL path cannot (RBAC objects).
pub(crate) fn path_segment(text: &str) -> Wrong {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    let bad = ["/", "%"].into_iter().filter(|part| text.contains(part));
    bad.map(|part| format!("may not contain '{part}'")).collect()
}

/// A label key, an annotation key, a resource name: `example.com/name`.
pub(crate) fn qualified(text: &str) -> Wrong {
    let mut wrong = Wrong::new();
    let name = match text.split_once('/') {
        None => text,
        Some((prefix, name)) if !name.contains('/') => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                wrong.extend(subdomain(prefix).into_iter().map(|rule| format!("prefix part {rule}")));
            }
            name
        }
        Some(_) => {
            let rule = QUALIFIED_RULE.replacen("name part must", "a qualified name must", 1);
            return vec![format!("{rule} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")];
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_BYTES_MAX {
        wrong.push(format!("name part must be no more than {LABEL_BYTES_MAX} characters"));
    }
    if !is_loose(name) {
        wrong.push(QUALIFIED_RULE.to_owned());
    }
    wrong
}

pub(crate) fn label_value(text: &str) -> Wrong {
    let mut wrong = bounded(text, LABEL_BYTES_MAX);
    if !text.is_empty() && !is_loose(text) {
        wrong.push(LABEL_VALUE_RULE.to_owned());
    }
    wrong
}

/// A key of a ConfigMap or a Secret.
pub(crate) fn config_key(text: &str) -> Wrong {
    let mut wrong = bounded(text, SUBDOMAIN_BYTES_MAX);
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.is_empty() || !text.bytes().all(good) {
        wrong.push(CONFIG_KEY_RULE.to_owned());
    }
    if text == "." || text == ".." {
        wrong.push(format!("must not be '{text}'"));
    } else if text.starts_with("..") {
        wrong.push("must not start with '..'".to_owned());
    }
    wrong
}

/// A port name of a container or Service target (IANA service name).
pub(crate) fn port_name(text: &str) -> Wrong {
    let mut wrong = Wrong::new();
    if text.len() > 15 {
        wrong.push("must be no more than 15 characters".to_owned());
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_owned());
    }
    wrong
}

/// Environment variable names: any printable ASCII but `=`.
pub(crate) fn env_name(text: &str) -> Wrong {
    if text.is_empty() || !text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'=') {
        return vec![
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        ];
    }
    Wrong::new()
}

pub(crate) fn port(number: i64) -> Wrong {
    if (1..=65535).contains(&number) { Wrong::new() } else { vec!["must be between 1 and 65535, inclusive".to_owned()] }
}

/// A prefix and five random letters, as `generateName` asks.
pub(crate) fn generate(prefix: &str, rng: &dyn base::Rng) -> String {
    let mut end = prefix.len().min(GENERATED_PREFIX_BYTES_MAX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &prefix[..end], suffix(rng))
}

pub(crate) fn suffix(rng: &dyn base::Rng) -> String {
    let letters = SUFFIX_ALPHABET.len() as u64;
    let letter = |_| SUFFIX_ALPHABET[usize::try_from(rng.next_u64() % letters).unwrap_or_default()] as char;
    (0..SUFFIX_LETTERS).map(letter).collect()
}

/// A random (version 4) UUID.
pub(crate) fn uid(rng: &dyn base::Rng) -> String {
    let mut bytes = [0; 16];
    rng.fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn bounded(text: &str, max: usize) -> Wrong {
    if text.len() > max { vec![format!("must be no more than {max} bytes")] } else { Wrong::new() }
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    bytes.first().is_some_and(edge) && bytes.last().is_some_and(edge) && bytes.iter().all(|b| edge(b) || *b == b'-')
}

fn is_loose(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = u8::is_ascii_alphanumeric;
    let inner = |byte: &u8| edge(byte) || b"-_.".contains(byte);
    bytes.first().is_some_and(edge) && bytes.last().is_some_and(edge) && bytes.iter().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::SeededRng;

    #[test]
    fn names_follow_their_rules() {
        for good in ["a", "a-b", "a.b-c.d", "0"] {
            assert!(subdomain(good).is_empty(), "{good}");
        }
        for bad in ["", "-a", "a..b", "A", "a_b", "a-"] {
            assert!(!subdomain(bad).is_empty(), "{bad}");
        }
        assert!(qualified("example.com/My_name.1").is_empty());
        assert!(!qualified("a/b/c").is_empty() && !qualified("/x").is_empty() && !qualified("x/").is_empty());
        assert!(label_value("").is_empty() && !label_value("-x").is_empty());
        assert_eq!(path_segment("a/b"), ["may not contain '/'"]);
        assert!(path_segment("system:node").is_empty());
        assert!(label_1035("1a").len() == 1 && label("1a").is_empty());
        assert!(port_name("http").is_empty() && !port_name("80").is_empty());
    }

    #[test]
    fn generated_names_fit() {
        let rng = SeededRng::new(1);
        let name = generate(&"x".repeat(300), &rng);
        assert_eq!(name.len(), SUBDOMAIN_BYTES_MAX);
        let uid = uid(&rng);
        assert_eq!((uid.len(), &uid[14..15]), (36, "4"));
    }
}
