//! The schema's rules over a custom resource: required fields, enumerations, bounds, formats, patterns, duplicates.

use std::collections::BTreeSet;

use api::schema::Rules;
use api::{Field, FieldType, Kind, ListKind, Schema, Tree};

use super::raw;
use crate::causes::{At, Causes, shown};

/// Checks a whole custom resource.
pub(super) fn custom(kind: &Kind, tree: &Tree, causes: &mut Causes) {
    if let Some(rules) = &kind.schema.ty().rules {
        check(rules, tree, &At::root(), causes);
    }
    structure(&kind.schema, tree, &At::root(), true, causes);
}

fn structure(schema: &Schema, tree: &Tree, at: &At, root: bool, causes: &mut Causes) {
    let Some(object) = tree.as_object() else { return };
    for field in &schema.ty().fields {
        let implied = root && matches!(field.name.as_str(), "apiVersion" | "kind" | "metadata");
        if implied {
            continue;
        }
        let at = at.child(&field.name);
        match object.get(field.name.as_str()) {
            None if field.required => causes.required(&at, ""),
            None => {}
            Some(Tree::Null) => {}
            Some(value) => self::field(schema, field, value, &at, causes),
        }
    }
}

fn field(schema: &Schema, field: &Field, value: &Tree, at: &At, causes: &mut Causes) {
    if let Some(rules) = &field.rules {
        check(rules, value, at, causes);
    }
    duplicates(&field.list, value, at, causes);
    inner(schema, &field.ty, value, at, causes);
}

fn inner(schema: &Schema, ty: &FieldType, value: &Tree, at: &At, causes: &mut Causes) {
    match (ty, value) {
        (FieldType::Struct(id), value) => {
            let schema = schema.at(*id);
            structure(&schema, value, at, schema.ty().embedded, causes);
        }
        (FieldType::List(element), Tree::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                inner(schema, element, item, &at.index(index), causes);
            }
        }
        (FieldType::Map(element), Tree::Object(map)) => {
            for (key, item) in map {
                inner(schema, element, item, &at.child(key), causes);
            }
        }
        _ => {}
    }
}

/// Keyed lists and sets hold each item once.
fn duplicates(kind: &ListKind, value: &Tree, at: &At, causes: &mut Causes) {
    let Some(items) = value.as_array() else { return };
    let name = |item: &Tree| match kind {
        ListKind::Atomic => None,
        ListKind::Set => Some(item.clone()),
        ListKind::Map(keys) => {
            let keys = keys.iter().filter_map(|key| Some((key.to_string(), item.get(key.as_str())?.clone())));
            Some(Tree::Object(keys.collect()))
        }
    };
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        if let Some(name) = name(item)
            && !seen.insert(name.to_string())
        {
            causes.duplicate(&at.index(index), &name);
        }
    }
}

/// The rules of one value, and of its elements.
fn check(rules: &Rules, value: &Tree, at: &At, causes: &mut Causes) {
    if !rules.enumeration.is_empty() && !rules.enumeration.contains(value) {
        let words: Vec<String> = rules.enumeration.iter().map(plain).collect();
        causes.not_supported(at, value, &words.iter().map(String::as_str).collect::<Vec<_>>());
    }
    match value {
        Tree::String(text) => self::text(rules, text, value, at, causes),
        Tree::Number(number) => self::number(rules, number.as_f64().unwrap_or(0.0), value, at, causes),
        Tree::Array(items) => list(rules, items, value, at, causes),
        Tree::Object(map) => {
            if rules.properties_max.is_some_and(|max| map.len() as u64 > max) {
                causes.too_many(at, map.len(), size(rules.properties_max));
            }
            if let Some(min) = rules.properties_min.filter(|min| (map.len() as u64) < *min) {
                causes.invalid(at, value, &format!("{at} in body should have at least {min} properties"));
            }
            for (key, item) in map {
                rules.items.iter().for_each(|rules| check(rules, item, &at.child(key), causes));
            }
        }
        Tree::Null | Tree::Bool(_) => {}
    }
    if let Some(extra) = &rules.extra {
        raw::combined(extra, value, at, causes);
    }
}

fn text(rules: &Rules, text: &str, value: &Tree, at: &At, causes: &mut Causes) {
    let length = text.chars().count() as u64;
    if rules.length_max.is_some_and(|max| length > max) {
        causes.too_long(at, size(rules.length_max));
    }
    if let Some(min) = rules.length_min.filter(|min| length < *min) {
        causes.invalid(at, value, &format!("{at} in body should be at least {min} chars long"));
    }
    if !rules.pattern.is_empty() && !raw::matches(&rules.pattern, text) {
        causes.invalid(at, value, &format!("{at} in body should match '{}'", rules.pattern));
    }
    if !raw::is_format(&rules.format, text) {
        causes.invalid(at, value, &format!("{at} in body must be of type {}: {}", rules.format, shown(value)));
    }
}

fn number(rules: &Rules, number: f64, value: &Tree, at: &At, causes: &mut Causes) {
    if let Some(min) = rules.minimum.filter(|min| number < *min || rules.exclusive_minimum && number == *min) {
        let or_equal = if rules.exclusive_minimum { "" } else { " or equal to" };
        causes.invalid(at, value, &format!("{at} in body should be greater than{or_equal} {min}"));
    }
    if let Some(max) = rules.maximum.filter(|max| number > *max || rules.exclusive_maximum && number == *max) {
        let or_equal = if rules.exclusive_maximum { "" } else { " or equal to" };
        causes.invalid(at, value, &format!("{at} in body should be less than{or_equal} {max}"));
    }
    if let Some(step) = rules.multiple_of.filter(|step| *step != 0.0 && (number / step).fract().abs() > f64::EPSILON) {
        causes.invalid(at, value, &format!("{at} in body should be a multiple of {step}"));
    }
}

fn list(rules: &Rules, items: &[Tree], value: &Tree, at: &At, causes: &mut Causes) {
    if rules.items_max.is_some_and(|max| items.len() as u64 > max) {
        causes.too_many(at, items.len(), size(rules.items_max));
    }
    if let Some(min) = rules.items_min.filter(|min| (items.len() as u64) < *min) {
        causes.invalid(at, value, &format!("{at} in body should have at least {min} items"));
    }
    let distinct: BTreeSet<String> = items.iter().map(ToString::to_string).collect();
    if rules.unique_items && distinct.len() < items.len() {
        causes.invalid(at, value, &format!("{at} in body shouldn't contain duplicates"));
    }
    for (index, item) in items.iter().enumerate() {
        rules.items.iter().for_each(|rules| check(rules, item, &at.index(index), causes));
    }
}

fn plain(value: &Tree) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn size(max: Option<u64>) -> usize {
    max.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX)
}
