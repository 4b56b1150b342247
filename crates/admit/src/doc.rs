//! Reading and writing trees by path: `spec.template.metadata`. Paths here name object fields only, never list items.

use api::Tree;
use serde_json::Map;

static NOTHING: Tree = Tree::Null;

pub(crate) fn at<'a>(tree: &'a Tree, path: &str) -> Option<&'a Tree> {
    let found = path.split('.').try_fold(tree, |tree, name| tree.get(name))?;
    (!found.is_null()).then_some(found)
}

/// The value at a path, null where there is none.
pub(crate) fn get<'a>(tree: &'a Tree, path: &str) -> &'a Tree {
    at(tree, path).unwrap_or(&NOTHING)
}

pub(crate) fn text<'a>(tree: &'a Tree, path: &str) -> &'a str {
    at(tree, path).and_then(Tree::as_str).unwrap_or_default()
}

pub(crate) fn int(tree: &Tree, path: &str) -> Option<i64> {
    at(tree, path).and_then(Tree::as_i64)
}

pub(crate) fn is_true(tree: &Tree, path: &str) -> bool {
    at(tree, path).and_then(Tree::as_bool).unwrap_or(false)
}

pub(crate) fn has(tree: &Tree, path: &str) -> bool {
    at(tree, path).is_some()
}

/// The items of a list, none where there is no list.
pub(crate) fn items<'a>(tree: &'a Tree, path: &str) -> &'a [Tree] {
    at(tree, path).and_then(Tree::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub(crate) fn entries<'a>(tree: &'a Tree, path: &str) -> impl Iterator<Item = (&'a String, &'a Tree)> {
    at(tree, path).and_then(Tree::as_object).into_iter().flatten()
}

pub(crate) fn at_mut<'a>(tree: &'a mut Tree, path: &str) -> Option<&'a mut Tree> {
    path.split('.').try_fold(tree, |tree, name| tree.get_mut(name)).filter(|found| !found.is_null())
}

pub(crate) fn items_mut<'a>(tree: &'a mut Tree, path: &str) -> impl Iterator<Item = &'a mut Tree> {
    at_mut(tree, path).and_then(Tree::as_array_mut).into_iter().flatten()
}

/// The object at a path, made where it is missing or not an object.
pub(crate) fn object_mut<'a>(tree: &'a mut Tree, path: &str) -> &'a mut Map<String, Tree> {
    let mut here = tree;
    for name in path.split('.').filter(|name| !name.is_empty()) {
        here = as_object_mut(here).entry(name).or_insert(Tree::Null);
    }
    as_object_mut(here)
}

/// The list at a path, made where it is missing.
pub(crate) fn list_mut<'a>(tree: &'a mut Tree, path: &str) -> &'a mut Vec<Tree> {
    let (parent, name) = split(path);
    let slot = object_mut(tree, parent).entry(name).or_insert(Tree::Null);
    if !slot.is_array() {
        *slot = Tree::Array(Vec::new());
    }
    slot.as_array_mut().expect("made an array just above")
}

pub(crate) fn set(tree: &mut Tree, path: &str, value: impl Into<Tree>) {
    let (parent, name) = split(path);
    object_mut(tree, parent).insert(name.to_owned(), value.into());
}

/// Sets where nothing (or null) is.
pub(crate) fn fill(tree: &mut Tree, path: &str, value: impl Into<Tree>) {
    if !has(tree, path) {
        set(tree, path, value);
    }
}

/// Sets where nothing or an empty text is.
pub(crate) fn fill_text(tree: &mut Tree, path: &str, value: &str) {
    if text(tree, path).is_empty() {
        set(tree, path, value);
    }
}

/// Copies a field of one document over a field of another, if it is there.
pub(crate) fn copy_field(from: &Tree, field: &str, to: &mut Tree, path: &str) {
    if let Some(value) = at(from, field) {
        set(to, path, value.clone());
    }
}

/// Copies one field over another of the same document, if it is there.
pub(crate) fn copy_within(tree: &mut Tree, from: &str, to: &str) {
    if let Some(value) = at(tree, from).cloned() {
        set(tree, to, value);
    }
}

pub(crate) fn remove(tree: &mut Tree, path: &str) -> Option<Tree> {
    let (parent, name) = split(path);
    let holder = if parent.is_empty() { Some(tree) } else { at_mut(tree, parent) };
    holder.and_then(Tree::as_object_mut).and_then(|object| object.remove(name))
}

pub(crate) fn remove_if(tree: &mut Tree, path: &str, test: impl Fn(&Tree) -> bool) {
    if at(tree, path).is_some_and(test) {
        remove(tree, path);
    }
}

/// Puts the value that `from` has at the path, or nothing where it has nothing.
pub(crate) fn copy(from: &Tree, to: &mut Tree, path: &str) {
    match at(from, path) {
        Some(value) => set(to, path, value.clone()),
        None => drop(remove(to, path)),
    }
}

fn as_object_mut(tree: &mut Tree) -> &mut Map<String, Tree> {
    if !tree.is_object() {
        *tree = Tree::Object(Map::new());
    }
    tree.as_object_mut().expect("made an object just above")
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn paths_read_and_write() {
        let mut tree = json!({"a": {"b": null, "c": 1}});
        assert!(!super::has(&tree, "a.b"));
        super::fill(&mut tree, "a.b", 2);
        super::fill(&mut tree, "a.c", 2);
        super::set(&mut tree, "x.y", "z");
        super::remove(&mut tree, "no.where");
        assert_eq!(tree, json!({"a": {"b": 2, "c": 1}, "x": {"y": "z"}}));
    }
}
