//! From a changed object to the keys that must be looked at.

use api::{Index, Key, LabelSelector, Object, Stream, Tree};
use base::SmolStr;

/// Objects that no controller owns, by namespace: candidates for adoption.
pub const ORPHAN: Index = Index {
    name: "orphan",
    words: |object| if object.header.controller().is_none() { vec![object.key.namespace.clone()] } else { vec![] },
};
/// Pods by the node they are bound to; unbound pods under the empty word.
pub const NODE: Index = Index { name: "node", words: |object| vec![super::pod::node_name(object)] };

/// The object's own key.
pub fn own(old: Option<&Object>, new: Option<&Object>) -> Vec<Key> {
    new.or(old).map(|object| object.key.clone()).into_iter().collect()
}

/// The controllers of this kind that own the object, or did before the change.
pub fn controllers(kind: &str, old: Option<&Object>, new: Option<&Object>) -> Vec<Key> {
    let mut keys: Vec<Key> = [old, new]
        .into_iter()
        .flatten()
        .filter_map(|object| {
            let owner = object.header.controller().filter(|owner| owner.kind == kind)?;
            Some(Key { namespace: object.key.namespace.clone(), name: owner.name.clone() })
        })
        .collect();
    keys.dedup();
    keys
}

/// Controllers of this kind, and for an object that nobody controls those whose `/spec/selector` matches it.
pub fn controllers_or_selecting(
    kind: &str,
    candidates: &Stream,
    selector: fn(&Tree) -> Option<LabelSelector>,
    old: Option<&Object>,
    new: Option<&Object>,
) -> Vec<Key> {
    let mut keys = controllers(kind, old, new);
    if let Some(orphan) = new.filter(|object| object.header.controller().is_none()) {
        keys.extend(selecting(candidates, selector, orphan));
    }
    keys
}

/// Objects of the candidate stream, in the same namespace, whose selector matches the labels of `object`.
pub fn selecting(candidates: &Stream, selector: fn(&Tree) -> Option<LabelSelector>, object: &Object) -> Vec<Key> {
    candidates
        .in_namespace(&object.key.namespace)
        .filter(|candidate| {
            let found = candidate.tree().pointer("/spec/selector").and_then(selector);
            found.is_some_and(|selector| !selector.is_empty() && selector.matches(&object.header.labels))
        })
        .map(|candidate| candidate.key.clone())
        .collect()
}

/// `spec.selector` as a `LabelSelector`.
pub fn label_selector(tree: &Tree) -> Option<LabelSelector> {
    LabelSelector::from_tree(tree).ok()
}

/// `spec.selector` as a plain map of labels (Services, ReplicationControllers).
pub fn map_selector(tree: &Tree) -> Option<LabelSelector> {
    LabelSelector::from_tree(&serde_json::json!({ "matchLabels": tree })).ok()
}

/// Every object of a stream.
pub fn every(stream: &Stream) -> Vec<Key> {
    stream.iter().map(|object| object.key.clone()).collect()
}

/// The one key of a controller that looks at the whole cluster.
pub fn single() -> Vec<Key> {
    vec![Key::cluster("cluster")]
}

pub fn cluster(name: &SmolStr) -> Key {
    Key { namespace: SmolStr::default(), name: name.clone() }
}
