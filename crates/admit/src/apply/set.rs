//! Sets of field paths, in the form of `FieldsV1`.
//!
//! An element is kept as it is written: `f:name` a field, `k:{"name":"a"}` a list item by its keys, `v:"x"` a member of
//! a set. So a set converts to JSON and back by walking it.

use std::collections::BTreeMap;

use api::Tree;
use serde_json::Map;

/// A set of paths below one point of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Set {
    below: BTreeMap<String, Node>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    /// The path that ends here is in the set.
    pub(crate) member: bool,
    pub(crate) set: Set,
}

/// Deepest path in a stored field set; decoders bound documents to the same.
const DEPTH_MAX: usize = base::limits::NESTING_DEPTH_MAX;

pub(crate) fn field(name: &str) -> String {
    format!("f:{name}")
}

/// A list item by its keys, in the order of their names.
pub(crate) fn keyed(keys: Map<String, Tree>) -> String {
    format!("k:{}", Tree::Object(keys))
}

pub(crate) fn valued(value: &Tree) -> String {
    format!("v:{value}")
}

// === impl Node ===

impl Node {
    pub(crate) fn leaf() -> Node {
        Node { member: true, set: Set::default() }
    }

    fn is_empty(&self) -> bool {
        !self.member && self.set.is_empty()
    }
}

// === impl Set ===

impl Set {
    pub(crate) fn is_empty(&self) -> bool {
        self.below.is_empty()
    }

    pub(crate) fn insert_node(&mut self, element: String, node: Node) {
        if !node.is_empty() {
            self.below.insert(element, node);
        }
    }

    pub(crate) fn insert(&mut self, path: &[String]) {
        let Some((first, rest)) = path.split_first() else { return };
        let node = self.below.entry(first.clone()).or_default();
        if rest.is_empty() {
            node.member = true;
        } else {
            node.set.insert(rest);
        }
    }

    pub(crate) fn get(&self, element: &str) -> Option<&Node> {
        self.below.get(element)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Node)> {
        self.below.iter()
    }

    pub(crate) fn remove(&mut self, element: &str) -> Option<Node> {
        self.below.remove(element)
    }

    pub(crate) fn node_mut(&mut self, element: &str) -> Option<&mut Node> {
        self.below.get_mut(element)
    }

    pub(crate) fn union(&self, other: &Set) -> Set {
        let mut union = self.clone();
        for (element, node) in &other.below {
            let mine = union.below.entry(element.clone()).or_default();
            mine.member |= node.member;
            mine.set = mine.set.union(&node.set);
        }
        union
    }

    pub(crate) fn intersection(&self, other: &Set) -> Set {
        let mut both = Set::default();
        for (element, node) in &self.below {
            if let Some(theirs) = other.below.get(element) {
                let member = node.member && theirs.member;
                both.insert_node(element.clone(), Node { member, set: node.set.intersection(&theirs.set) });
            }
        }
        both
    }

    pub(crate) fn difference(&self, other: &Set) -> Set {
        let mut rest = Set::default();
        for (element, node) in &self.below {
            let left = match other.below.get(element) {
                None => node.clone(),
                Some(theirs) => Node { member: node.member && !theirs.member, set: node.set.difference(&theirs.set) },
            };
            rest.insert_node(element.clone(), left);
        }
        rest
    }

    /// Every path of the set as a client reads it: `.spec.containers[name="a"].image`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, prefix: &str, paths: &mut Vec<String>) {
        for (element, node) in &self.below {
            let path = format!("{prefix}{}", shown(element));
            if node.member {
                paths.push(path.clone());
            }
            node.set.collect(&path, paths);
        }
    }

    pub(crate) fn to_tree(&self) -> Tree {
        let mut tree = Map::new();
        for (element, node) in &self.below {
            let mut below = node.set.to_tree();
            if let (true, false, Some(map)) = (node.member, node.set.is_empty(), below.as_object_mut()) {
                map.insert(".".into(), Tree::Object(Map::new()));
            }
            tree.insert(element.clone(), below);
        }
        Tree::Object(tree)
    }

    /// None for what is no field set.
    pub(crate) fn parse(tree: &Tree) -> Option<Set> {
        Self::parse_at(tree, 0)
    }

    fn parse_at(tree: &Tree, depth: usize) -> Option<Set> {
        let mut set = Set::default();
        for (element, below) in tree.as_object().filter(|_| depth < DEPTH_MAX)? {
            if element == "." {
                continue;
            }
            let below_map = below.as_object()?;
            let member = below_map.is_empty() || below_map.contains_key(".");
            let node = Node { member, set: Set::parse_at(below, depth + 1)? };
            set.insert_node(canonical(element)?, node);
        }
        Some(set)
    }
}

/// The one spelling of an element; None for an unknown form.
fn canonical(element: &str) -> Option<String> {
    let (form, rest) = element.split_at_checked(2)?;
    match form {
        "f:" | "i:" => Some(element.to_owned()),
        "k:" | "v:" => serde_json::from_str::<Tree>(rest).ok().map(|value| format!("{form}{value}")),
        _ => None,
    }
}

fn shown(element: &str) -> String {
    let (form, rest) = element.split_at_checked(2).unwrap_or(("", element));
    match form {
        "f:" => format!(".{rest}"),
        "k:" => {
            let keys: Map<String, Tree> = serde_json::from_str(rest).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        "v:" => format!("[={rest}]"),
        _ => format!("[{rest}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::Set;
    use serde_json::json;

    #[test]
    fn fields_v1_round_trips() {
        let tree = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:finalizers": {"v:\"x\"": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}},
        });
        let set = Set::parse(&tree).unwrap();
        assert_eq!(set.to_tree(), tree);
        assert_eq!(
            set.paths(),
            [
                ".metadata.finalizers[=\"x\"]",
                ".metadata.labels",
                ".metadata.labels.app",
                ".spec.ports[port=80,protocol=\"TCP\"]",
                ".spec.ports[port=80,protocol=\"TCP\"].port",
            ]
        );
        assert!(set.difference(&set).is_empty());
        assert_eq!(set.union(&set).intersection(&set), set);
        assert!(Set::parse(&json!({"x:y": {}})).is_none() && Set::parse(&json!({"f:y": 1})).is_none());
    }
}
