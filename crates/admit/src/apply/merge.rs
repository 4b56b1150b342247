//! Merging an applied configuration into the live object, and taking out what an applier gave up.

use std::collections::BTreeSet;

use api::Tree;
use serde_json::Map;

use super::set::Set;
use super::typed::{Shape, Typed, fields_of};

/// The live document with everything the configuration says.
pub(crate) fn merge(typed: Typed<'_>, live: &Tree, applied: &Tree) -> Tree {
    let shape = typed.shape([Some(live), Some(applied)]);
    match (&shape, live, applied) {
        (Shape::Struct | Shape::Map, Tree::Object(left), Tree::Object(right)) => {
            let mut merged = left.clone();
            for (name, value) in right {
                let value = match left.get(name) {
                    Some(live) if !live.is_null() => merge(typed.child(name).0, live, value),
                    _ => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Tree::Object(merged)
        }
        (Shape::ListMap(element, _) | Shape::Set(element), Tree::Array(_), Tree::Array(_)) => {
            merge_items(typed, &shape, typed.element(element), live, applied)
        }
        _ => applied.clone(),
    }
}

/// Items of the configuration keep their order; items only the live list has stay where they were between them.
fn merge_items(typed: Typed<'_>, shape: &Shape<'_>, element: Typed<'_>, live: &Tree, applied: &Tree) -> Tree {
    let left = typed.named_items(shape, Some(live));
    let right = typed.named_items(shape, Some(applied));
    let wanted: BTreeSet<&String> = right.iter().map(|(name, _)| name).collect();
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let mut left_items = left.iter().peekable();
    for (name, item) in &right {
        while let Some((_, kept)) = left_items.next_if(|(name, _)| !wanted.contains(name)) {
            merged.push((*kept).clone());
        }
        left_items.next();
        let live = left.iter().find(|(have, _)| have == name).map(|(_, live)| *live);
        merged.push(live.map_or_else(|| (*item).clone(), |live| merge(element, live, item)));
    }
    merged.extend(left_items.filter(|(name, _)| !wanted.contains(name)).map(|(_, kept)| (*kept).clone()));
    Tree::Array(merged)
}

/// The document without the fields of a set; None when nothing is left of it.
pub(crate) fn remove(typed: Typed<'_>, value: &Tree, gone: &Set) -> Option<Tree> {
    let shape = typed.shape([Some(value), None]);
    match (&shape, value) {
        (Shape::Struct | Shape::Map, Tree::Object(map)) => {
            let mut kept = Map::new();
            for (name, value) in map {
                let kept_value = match gone.get(&super::set::field(name)) {
                    Some(node) if node.member => None,
                    Some(node) => remove(typed.child(name).0, value, &node.set),
                    None => Some(value.clone()),
                };
                kept.extend(kept_value.map(|value| (name.clone(), value)));
            }
            (!kept.is_empty() || map.is_empty()).then_some(Tree::Object(kept))
        }
        (Shape::ListMap(element, _) | Shape::Set(element), Tree::Array(items)) => {
            let mut kept = Vec::new();
            for (name, item) in typed.named_items(&shape, Some(value)) {
                match gone.get(&name) {
                    Some(node) if node.member => {}
                    Some(node) => kept.extend(remove(typed.element(element), item, &node.set)),
                    None => kept.push(item.clone()),
                }
            }
            (!kept.is_empty() || items.is_empty()).then_some(Tree::Array(kept))
        }
        _ => Some(value.clone()),
    }
}

/// The set with the named fields above its members (`EnsureNamedFieldsAreMembers`): who owns `a.b` also holds `a`.
pub(crate) fn with_parents(typed: Typed<'_>, value: &Tree, set: &Set) -> Set {
    let mut whole = Set::default();
    let shape = typed.shape([Some(value), None]);
    for (element, node) in set.iter() {
        let mut node = node.clone();
        match (&shape, element.strip_prefix("f:")) {
            (Shape::Struct | Shape::Map, Some(name)) => {
                let (child, known) = typed.child(name);
                node.member |= known;
                node.set = with_parents(child, value.get(name).unwrap_or(&Tree::Null), &node.set);
            }
            (Shape::ListMap(item, _) | Shape::Set(item), None) => {
                let items = typed.named_items(&shape, Some(value));
                let item_value = items.iter().find(|(name, _)| name == element).map_or(&Tree::Null, |(_, item)| item);
                node.set = with_parents(typed.element(item), item_value, &node.set);
            }
            _ => {}
        }
        whole.insert_node(element.clone(), node);
    }
    whole
}

fn empty() -> Tree {
    Tree::Object(Map::new())
}

/// The fields of a document with all named fields above them.
fn whole(typed: Typed<'_>, tree: &Tree) -> Set {
    with_parents(typed, tree, &fields_of(typed, tree))
}

/// `merged` without what the applier owned before.
pub(crate) fn without(typed: Typed<'_>, merged: &Tree, last: &Set) -> Tree {
    remove(typed, merged, &with_parents(typed, merged, last)).unwrap_or_else(empty)
}

/// `pruned` with what of `merged` is still owned.
pub(crate) fn with_owned(typed: Typed<'_>, merged: &Tree, pruned: &Tree, owned: &Set) -> Tree {
    let kept = whole(typed, pruned).union(&with_parents(typed, merged, owned));
    remove(typed, merged, &whole(typed, merged).difference(&kept)).unwrap_or_else(empty)
}

/// `pruned` with the fields that nobody ever owned, which went only because something above them did.
pub(crate) fn with_dangling(typed: Typed<'_>, merged: &Tree, pruned: &Tree, last: &Set) -> Tree {
    let last = with_parents(typed, merged, last);
    let gone = whole(typed, merged).difference(&whole(typed, pruned)).intersection(&last);
    remove(typed, merged, &gone).unwrap_or_else(empty)
}
