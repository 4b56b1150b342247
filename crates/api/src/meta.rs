//! Reading and writing `metadata` and paths of a tree, where no typed view is wanted.

use std::collections::BTreeMap;

use base::SmolStr;
use serde_json::{Map, json};

use crate::{Gvk, Key, Tree};

/// The value at a path of names: `spec.nodeName`. Names with dots need [`tree_at_parts`].
pub fn tree_at<'a>(tree: &'a Tree, path: &str) -> Option<&'a Tree> {
    tree_at_parts(tree, &path.split('.').collect::<Vec<_>>())
}

pub fn tree_at_parts<'a>(tree: &'a Tree, parts: &[&str]) -> Option<&'a Tree> {
    parts.iter().try_fold(tree, |node, name| node.get(name))
}

/// The text at a path; empty where there is none.
pub fn str_at<'a>(tree: &'a Tree, path: &str) -> &'a str {
    tree_at(tree, path).and_then(Tree::as_str).unwrap_or_default()
}

pub fn i64_at(tree: &Tree, path: &str) -> Option<i64> {
    tree_at(tree, path).and_then(Tree::as_i64)
}

pub fn bool_at(tree: &Tree, path: &str) -> bool {
    tree_at(tree, path).and_then(Tree::as_bool).unwrap_or_default()
}

/// The elements of the list at a path; none where there is no list.
pub fn list_at<'a>(tree: &'a Tree, path: &str) -> &'a [Tree] {
    tree_at(tree, path).and_then(Tree::as_array).map_or(&[], Vec::as_slice)
}

/// Sets the value at a path and makes the objects on the way; a scalar in the way is replaced.
pub fn set_at(tree: &mut Tree, path: &str, value: Tree) {
    *path.split('.').fold(tree, object_member) = value;
}

/// Takes the value at a path out.
pub fn remove_at(tree: &mut Tree, path: &str) -> Option<Tree> {
    let (parent, name) = path.rsplit_once('.').map_or(("", path), |(parent, name)| (parent, name));
    let mut parts = parent.split('.').filter(|part| !part.is_empty());
    let parent = parts.try_fold(tree, |node, part| node.get_mut(part))?;
    parent.as_object_mut()?.remove(name)
}

fn object_member<'a>(node: &'a mut Tree, name: &str) -> &'a mut Tree {
    if !node.is_object() {
        *node = Tree::Object(Map::new());
    }
    let map = node.as_object_mut().expect("made an object above");
    map.entry(name).or_insert(Tree::Null)
}

fn field<'a>(tree: &'a Tree, name: &str) -> &'a str {
    tree.get("metadata").and_then(|meta| meta.get(name)).and_then(Tree::as_str).unwrap_or_default()
}

fn set_field(tree: &mut Tree, name: &str, value: &str) {
    let metadata = object_member(tree, "metadata");
    if value.is_empty() {
        if let Some(map) = metadata.as_object_mut() {
            map.remove(name);
        }
        return;
    }
    *object_member(metadata, name) = json!(value);
}

pub fn name(tree: &Tree) -> &str {
    field(tree, "name")
}

pub fn namespace(tree: &Tree) -> &str {
    field(tree, "namespace")
}

pub fn uid(tree: &Tree) -> &str {
    field(tree, "uid")
}

pub fn resource_version(tree: &Tree) -> &str {
    field(tree, "resourceVersion")
}

pub fn generate_name(tree: &Tree) -> &str {
    field(tree, "generateName")
}

/// Empty while the object is not being deleted.
pub fn deletion_timestamp(tree: &Tree) -> &str {
    field(tree, "deletionTimestamp")
}

pub fn generation(tree: &Tree) -> i64 {
    i64_at(tree, "metadata.generation").unwrap_or_default()
}

pub fn key(tree: &Tree) -> Key {
    Key::new(namespace(tree), name(tree))
}

/// The kind that the object says it is; None where it says none.
pub fn gvk(tree: &Tree) -> Option<Gvk> {
    let kind = tree.get("kind")?.as_str()?;
    Gvk::parse(tree.get("apiVersion")?.as_str()?, kind)
}

pub fn set_gvk(tree: &mut Tree, gvk: &Gvk) {
    *object_member(tree, "apiVersion") = json!(gvk.api_version());
    *object_member(tree, "kind") = json!(gvk.kind);
}

/// The empty text removes the field, here and below.
pub fn set_name(tree: &mut Tree, value: &str) {
    set_field(tree, "name", value);
}

pub fn set_namespace(tree: &mut Tree, value: &str) {
    set_field(tree, "namespace", value);
}

pub fn set_uid(tree: &mut Tree, value: &str) {
    set_field(tree, "uid", value);
}

pub fn set_resource_version(tree: &mut Tree, value: &str) {
    set_field(tree, "resourceVersion", value);
}

pub fn labels(tree: &Tree) -> BTreeMap<SmolStr, SmolStr> {
    text_map(tree_at(tree, "metadata.labels"))
}

pub fn annotations(tree: &Tree) -> BTreeMap<SmolStr, SmolStr> {
    text_map(tree_at(tree, "metadata.annotations"))
}

pub fn label<'a>(tree: &'a Tree, name: &str) -> Option<&'a str> {
    tree_at_parts(tree, &["metadata", "labels", name])?.as_str()
}

pub fn annotation<'a>(tree: &'a Tree, name: &str) -> Option<&'a str> {
    tree_at_parts(tree, &["metadata", "annotations", name])?.as_str()
}

pub fn set_label(tree: &mut Tree, name: &str, value: &str) {
    *object_member(object_member(object_member(tree, "metadata"), "labels"), name) = json!(value);
}

pub fn set_annotation(tree: &mut Tree, name: &str, value: &str) {
    *object_member(object_member(object_member(tree, "metadata"), "annotations"), name) = json!(value);
}

pub fn finalizers(tree: &Tree) -> Vec<&str> {
    list_at(tree, "metadata.finalizers").iter().filter_map(Tree::as_str).collect()
}

/// A map of texts; other values are passed over.
pub fn text_map(node: Option<&Tree>) -> BTreeMap<SmolStr, SmolStr> {
    let members = node.and_then(Tree::as_object).into_iter().flatten();
    members.filter_map(|(key, value)| Some((key.into(), value.as_str()?.into()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_and_written() {
        let mut tree = json!({"metadata": {"name": "a", "labels": {"x/y": "1"}}});
        set_at(&mut tree, "spec.nodeName", json!("n1"));
        set_annotation(&mut tree, "a.b/c", "d");
        assert_eq!(str_at(&tree, "spec.nodeName"), "n1");
        assert_eq!(annotation(&tree, "a.b/c"), Some("d"));
        assert_eq!(label(&tree, "x/y"), Some("1"));
        assert_eq!(remove_at(&mut tree, "spec.nodeName"), Some(json!("n1")));
        set_namespace(&mut tree, "");
        assert_eq!(tree["spec"], json!({}));
        assert_eq!(key(&tree), Key::new("", "a"));
    }
}
