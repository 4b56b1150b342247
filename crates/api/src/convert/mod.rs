//! Versions of one kind that share a storage: the stored form, and the others, which are views of it.
//!
//! Custom kinds convert by their `apiVersion` alone (conversion `None`) and lose what the other schema does not know.
//! Among the built-in kinds, events are stored as the core group's and HorizontalPodAutoscalers as `autoscaling/v2`.

mod autoscaler;
mod event;

use std::borrow::Cow;

use serde_json::json;

use crate::schema::Schema;
use crate::{FieldType, Kind, Tree, meta};

/// A document in the form of another row of its storage.
pub fn convert(mut tree: Tree, to: &Kind) -> Tree {
    let api_version = to.gvk.api_version();
    if meta::str_at(&tree, "apiVersion") == api_version {
        return tree;
    }
    match (to.gvk.group.as_str(), to.gvk.version.as_str(), to.gvk.kind.as_str()) {
        _ if to.custom => prune_root(&to.schema, &mut tree),
        ("events.k8s.io", _, "Event") => event::to_new(&mut tree),
        ("", _, "Event") => event::to_core(&mut tree),
        ("autoscaling", "v1", "HorizontalPodAutoscaler") => autoscaler::to_v1(&mut tree),
        ("autoscaling", "v2", "HorizontalPodAutoscaler") => autoscaler::to_v2(&mut tree),
        _ => {}
    }
    if let Some(map) = tree.as_object_mut() {
        map.insert("apiVersion".into(), json!(api_version));
        map.insert("kind".into(), json!(to.gvk.kind));
    }
    tree
}

/// The same, without a copy where the document already has that form.
pub fn in_form<'t>(tree: &'t Tree, of: &Kind) -> Cow<'t, Tree> {
    if meta::str_at(tree, "apiVersion") == of.gvk.api_version() {
        return Cow::Borrowed(tree);
    }
    Cow::Owned(convert(tree.clone(), of))
}

/// Takes out what a custom kind's schema does not name; type and metadata are every object's.
fn prune_root(schema: &Schema, tree: &mut Tree) {
    let Some(object) = tree.as_object_mut() else { return };
    let implied = |name: &str| matches!(name, "apiVersion" | "kind" | "metadata");
    if !schema.ty().preserve_unknown {
        object.retain(|name, _| implied(name) || schema.field(name).is_some());
    }
    for (name, value) in object.iter_mut().filter(|(name, _)| !implied(name)) {
        if let Some(field) = schema.field(name) {
            prune_value(schema, &field.ty, value);
        }
    }
}

fn prune_value(schema: &Schema, ty: &FieldType, value: &mut Tree) {
    match (ty, value) {
        (FieldType::Struct(id), value) => {
            let schema = schema.at(*id);
            if schema.ty().embedded { prune_root(&schema, value) } else { prune(&schema, value) }
        }
        (FieldType::List(element), Tree::Array(items)) => {
            items.iter_mut().for_each(|item| prune_value(schema, element, item));
        }
        (FieldType::Map(element), Tree::Object(map)) => {
            map.values_mut().for_each(|item| prune_value(schema, element, item));
        }
        _ => {}
    }
}

fn prune(schema: &Schema, tree: &mut Tree) {
    let Some(object) = tree.as_object_mut() else { return };
    if !schema.ty().preserve_unknown {
        object.retain(|name, _| schema.field(name).is_some());
    }
    for (name, value) in object.iter_mut() {
        if let Some(field) = schema.field(name) {
            prune_value(schema, &field.ty, value);
        }
    }
}

#[cfg(test)]
mod tests;
