//! Reading trees by path, writing times, and the difference of two trees as a merge patch.

use api::Tree;
use base::SmolStr;
use jiff::Timestamp;
use serde_json::{Map, json};

/// `/spec/replicas` of a tree (JSON pointer).
pub fn int(tree: &Tree, pointer: &str) -> Option<i64> {
    tree.pointer(pointer).and_then(Tree::as_i64)
}

pub fn text<'a>(tree: &'a Tree, pointer: &str) -> &'a str {
    tree.pointer(pointer).and_then(Tree::as_str).unwrap_or_default()
}

pub fn flag(tree: &Tree, pointer: &str) -> bool {
    tree.pointer(pointer).and_then(Tree::as_bool).unwrap_or_default()
}

pub fn list<'a>(tree: &'a Tree, pointer: &str) -> &'a [Tree] {
    tree.pointer(pointer).and_then(Tree::as_array).map_or(&[], Vec::as_slice)
}

pub fn annotation<'a>(tree: &'a Tree, name: &str) -> Option<&'a str> {
    tree.get("metadata")?.get("annotations")?.get(name)?.as_str()
}

/// RFC 3339 to the second, as `metav1.Time` is written.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The time at a pointer, if there is one.
pub fn time_at(tree: &Tree, pointer: &str) -> Option<Timestamp> {
    text(tree, pointer).parse().ok()
}

/// A number or a percentage (`int32` or text like `25%`) of a total. Malformed text counts as 0.
pub fn scaled(value: Option<&Tree>, total: i64, round_up: bool) -> i64 {
    match value {
        Some(Tree::Number(number)) => number.as_i64().unwrap_or_default(),
        Some(Tree::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or_default();
            let product = percent.saturating_mul(total);
            if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) }
        }
        _ => 0,
    }
}

/// The merge patch (RFC 7386) that turns `old` into `new`; None where they are the same. A null in `new` is absence.
pub fn merge_diff(old: &Tree, new: &Tree) -> Option<Tree> {
    let (Tree::Object(old), Tree::Object(new)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for name in old.keys().filter(|name| new.get(*name).is_none_or(Tree::is_null)) {
        if !old[name].is_null() {
            patch.insert(name.clone(), Tree::Null);
        }
    }
    for (name, value) in new.iter().filter(|(_, value)| !value.is_null()) {
        match old.get(name) {
            Some(before) => {
                if let Some(change) = merge_diff(before, value) {
                    patch.insert(name.clone(), change);
                }
            }
            None => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    (!patch.is_empty()).then_some(Tree::Object(patch))
}

/// The document without nulls and empty lists, so that two ways to say one thing compare equal. Empty objects stay:
/// `emptyDir: {}` means something.
pub fn canonical(tree: &Tree) -> Tree {
    match tree {
        Tree::Object(fields) => {
            let absent = |value: &Tree| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            fields.iter().filter(|(_, v)| !absent(v)).map(|(k, v)| (k.clone(), canonical(v))).collect()
        }
        Tree::Array(items) => items.iter().map(canonical).collect(),
        other => other.clone(),
    }
}

/// `null` for 0, the number otherwise: a counter that upstream omits when empty.
pub fn counter(count: usize) -> Tree {
    if count == 0 { Tree::Null } else { json!(count) }
}

pub fn words(items: &[Tree]) -> Vec<SmolStr> {
    items.iter().filter_map(Tree::as_str).map(SmolStr::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_holds_only_what_changed() {
        let old = json!({"a": 1, "b": {"c": 1, "d": 2}, "gone": 3});
        let new = json!({"a": 1, "b": {"c": 5, "d": 2}, "new": [1], "nothing": null});
        assert_eq!(merge_diff(&old, &new), Some(json!({"gone": null, "b": {"c": 5}, "new": [1]})));
        assert_eq!(merge_diff(&new, &new), None);
    }

    #[test]
    fn percentages_round_as_asked() {
        assert_eq!(scaled(Some(&json!("25%")), 10, true), 3);
        assert_eq!(scaled(Some(&json!("25%")), 10, false), 2);
        assert_eq!(scaled(Some(&json!(4)), 10, false), 4);
    }
}
