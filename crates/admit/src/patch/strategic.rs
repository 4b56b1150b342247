//! Strategic merge patch: a merge patch that knows which lists merge, and by which key.
//!
//! Directives: `$patch: replace|delete|merge`, `$retainKeys`, `$deleteFromPrimitiveList/field`, `$setElementOrder/field`.

use api::{Field, FieldType, Schema, Tree};
use serde_json::Map;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

type Object = Map<String, Tree>;

#[derive(Debug, thiserror::Error)]
pub(super) enum StrategicError {
    #[error("invalid JSON document")]
    NotAnObject,
    #[error("unknown patch type: {directive} in map: {map}")]
    Directive { directive: String, map: String },
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    #[error("invalid patch format of primitive list")]
    Primitive,
    #[error("invalid patch format of setElementOrder list")]
    Order,
    #[error("map: {map} does not contain declared merge key: {key}")]
    NoMergeKey { map: String, key: String },
}

/// The schema of an object, where it has one: untyped parts merge like a JSON merge patch.
type MaybeSchema<'a> = Option<&'a Schema>;

pub(super) fn apply(schema: &Schema, current: &Tree, patch: &Tree) -> Result<Tree, StrategicError> {
    let (Tree::Object(current), Tree::Object(patch)) = (current, patch) else {
        return Err(StrategicError::NotAnObject);
    };
    Ok(Tree::Object(merge(Some(schema), current.clone(), patch)?))
}

fn merge(schema: MaybeSchema<'_>, mut current: Object, patch: &Object) -> Result<Object, StrategicError> {
    match patch.get(PATCH).map(|directive| directive.as_str().unwrap_or_default()) {
        None | Some("merge") => {}
        Some("replace") => return Ok(cleaned(patch)),
        Some("delete") => return Ok(Object::new()),
        Some(other) => {
            let map = Tree::Object(patch.clone()).to_string();
            return Err(StrategicError::Directive { directive: other.to_owned(), map });
        }
    }
    retain(&mut current, patch)?;
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        let field = schema.and_then(|schema| schema.field(name));
        let have = current.remove(name);
        let Some(merged) = merge_value(schema, field, have, value, order_of(patch, name)?, deletions(patch, name)?)?
        else {
            continue;
        };
        current.insert(name.clone(), merged);
    }
    lists_without_values(schema, &mut current, patch)?;
    Ok(current)
}

/// Order and deletion directives may come without a value for their list.
fn lists_without_values(schema: MaybeSchema<'_>, current: &mut Object, patch: &Object) -> Result<(), StrategicError> {
    let named = |name: &str| name.strip_prefix(DELETE_FROM).or_else(|| name.strip_prefix(SET_ORDER)).map(str::to_owned);
    let mut names: Vec<String> = patch.keys().filter_map(|name| named(name)).collect();
    names.dedup();
    for name in names.into_iter().filter(|name| !patch.contains_key(name)) {
        let Some(Tree::Array(have)) = current.get(&name).cloned() else { continue };
        let field = schema.and_then(|schema| schema.field(&name));
        let key = field.map(|field| field.patch.merge_key.as_str()).unwrap_or_default();
        let kept = without(have, deletions(patch, &name)?);
        let kept = match order_of(patch, &name)? {
            Some(order) => ordered(kept, order, key),
            None => kept,
        };
        current.insert(name, Tree::Array(kept));
    }
    Ok(())
}

fn merge_value(
    schema: MaybeSchema<'_>,
    field: Option<&Field>,
    have: Option<Tree>,
    value: &Tree,
    order: Option<&[Tree]>,
    gone: &[Tree],
) -> Result<Option<Tree>, StrategicError> {
    let inner = field.zip(schema).and_then(|(field, schema)| schema.child(&field.ty));
    match (value, have) {
        (Tree::Null, _) => Ok(None),
        (Tree::Object(patch), Some(Tree::Object(have))) => merge_object(inner.as_ref(), field, have, patch).map(Some),
        (Tree::Object(patch), _) => merge_object(inner.as_ref(), field, Object::new(), patch).map(Some),
        (Tree::Array(patch), have) => {
            let Some(field) = field.filter(|field| field.patch.merge) else {
                return Ok(Some(Tree::Array(patch.iter().map(clean).collect())));
            };
            let have = match have {
                Some(Tree::Array(have)) => have,
                _ => Vec::new(),
            };
            let key = field.patch.merge_key.as_str();
            let merged = if key.is_empty() {
                merge_scalars(without(have, gone), patch, order)?
            } else {
                merge_items(inner.as_ref(), key, have, patch, order)?
            };
            Ok(Some(Tree::Array(merged)))
        }
        (value, _) => Ok(Some(value.clone())),
    }
}

/// A struct merges by its own schema; a map merges key by key, its values by theirs.
fn merge_object(
    inner: MaybeSchema<'_>,
    field: Option<&Field>,
    have: Object,
    patch: &Object,
) -> Result<Tree, StrategicError> {
    let is_map = field.is_some_and(|field| matches!(field.ty, FieldType::Map(_)));
    if !is_map || inner.is_none() {
        return merge(inner.filter(|_| !is_map), have, patch).map(Tree::Object);
    }
    let mut merged = have;
    for (key, value) in patch.iter().filter(|(key, _)| !key.starts_with('$')) {
        match (value, merged.remove(key)) {
            (Tree::Null, _) => continue,
            (Tree::Object(patch), Some(Tree::Object(have))) => {
                merged.insert(key.clone(), Tree::Object(merge(inner, have, patch)?));
            }
            (value, _) => drop(merged.insert(key.clone(), clean(value))),
        }
    }
    Ok(Tree::Object(merged))
}

fn merge_scalars(have: Vec<Tree>, patch: &[Tree], order: Option<&[Tree]>) -> Result<Vec<Tree>, StrategicError> {
    let mut merged = have;
    for value in patch {
        if value.is_object() || value.is_array() {
            return Err(StrategicError::Primitive);
        }
        if !merged.contains(value) {
            merged.push(value.clone());
        }
    }
    Ok(match order {
        Some(order) => ordered(merged, order, ""),
        None => merged,
    })
}

fn merge_items(
    inner: MaybeSchema<'_>,
    key: &str,
    have: Vec<Tree>,
    patch: &[Tree],
    order: Option<&[Tree]>,
) -> Result<Vec<Tree>, StrategicError> {
    let directive = |item: &Tree| item.get(PATCH).and_then(Tree::as_str).unwrap_or_default().to_owned();
    if patch.iter().any(|item| directive(item) == "replace") {
        return Ok(patch.iter().filter(|item| directive(item) != "replace").map(clean).collect());
    }
    let mut merged = have;
    for item in patch {
        let Tree::Object(object) = item else {
            return Err(StrategicError::NoMergeKey { map: item.to_string(), key: key.to_owned() });
        };
        let Some(name) = object.get(key) else {
            return Err(StrategicError::NoMergeKey { map: item.to_string(), key: key.to_owned() });
        };
        let at = merged.iter().position(|have| have.get(key) == Some(name));
        match (directive(item).as_str(), at) {
            ("delete", _) => merged.retain(|have| have.get(key) != Some(name)),
            ("" | "merge", Some(at)) => {
                let have = merged[at].as_object().cloned().unwrap_or_default();
                merged[at] = Tree::Object(merge(inner, have, object)?);
            }
            ("" | "merge", None) => merged.push(Tree::Object(merge(inner, Object::new(), object)?)),
            (other, _) => {
                return Err(StrategicError::Directive { directive: other.to_owned(), map: item.to_string() });
            }
        }
    }
    Ok(match order {
        Some(order) => ordered(merged, order, key),
        None => merged,
    })
}

/// Items of the order list stand in its order; the others stay where they stood relative to their neighbours.
fn ordered(items: Vec<Tree>, order: &[Tree], key: &str) -> Vec<Tree> {
    let name = |item: &Tree| if key.is_empty() { Some(item.clone()) } else { item.get(key).cloned() };
    let rank = |item: &Tree| {
        let name = name(item)?;
        order.iter().position(|wanted| Some(&name) == self::named(wanted, key).as_ref())
    };
    let place: Vec<Option<Tree>> = items.iter().map(name).collect();
    let before = |item: &Tree| place.iter().position(|have| *have == name(item)).unwrap_or(usize::MAX);
    let (mut listed, rest): (Vec<Tree>, Vec<Tree>) = items.iter().cloned().partition(|item| rank(item).is_some());
    listed.sort_by_key(|item| rank(item));
    let mut merged = Vec::with_capacity(items.len());
    let mut rest = rest.into_iter().peekable();
    for item in listed {
        while let Some(other) = rest.next_if(|other| before(other) < before(&item)) {
            merged.push(other);
        }
        merged.push(item);
    }
    merged.extend(rest);
    merged
}

fn named(wanted: &Tree, key: &str) -> Option<Tree> {
    if key.is_empty() { Some(wanted.clone()) } else { wanted.get(key).cloned() }
}

fn without(have: Vec<Tree>, gone: &[Tree]) -> Vec<Tree> {
    have.into_iter().filter(|item| !gone.contains(item)).collect()
}

fn order_of<'a>(patch: &'a Object, name: &str) -> Result<Option<&'a [Tree]>, StrategicError> {
    match patch.get(&format!("{SET_ORDER}{name}")) {
        None => Ok(None),
        Some(Tree::Array(order)) => Ok(Some(order)),
        Some(_) => Err(StrategicError::Order),
    }
}

fn deletions<'a>(patch: &'a Object, name: &str) -> Result<&'a [Tree], StrategicError> {
    match patch.get(&format!("{DELETE_FROM}{name}")) {
        None => Ok(&[]),
        Some(Tree::Array(gone)) => Ok(gone),
        Some(_) => Err(StrategicError::Primitive),
    }
}

fn retain(current: &mut Object, patch: &Object) -> Result<(), StrategicError> {
    let keys = match patch.get(RETAIN_KEYS) {
        None => return Ok(()),
        Some(Tree::Array(keys)) => keys,
        Some(_) => return Err(StrategicError::RetainKeys),
    };
    let kept = |name: &str| keys.iter().any(|key| key.as_str() == Some(name));
    let sets = patch.iter().filter(|(name, value)| !name.starts_with('$') && !value.is_null());
    if sets.into_iter().any(|(name, _)| !kept(name)) {
        return Err(StrategicError::RetainKeys);
    }
    current.retain(|name, _| kept(name));
    Ok(())
}

/// New content out of a patch: without nulls and directives.
fn clean(value: &Tree) -> Tree {
    match value {
        Tree::Object(object) => Tree::Object(cleaned(object)),
        Tree::Array(items) => Tree::Array(items.iter().map(clean).collect()),
        other => other.clone(),
    }
}

fn cleaned(object: &Object) -> Object {
    let kept = object.iter().filter(|(name, value)| !value.is_null() && !is_directive(name));
    kept.map(|(name, value)| (name.clone(), clean(value))).collect()
}

fn is_directive(name: &str) -> bool {
    name == PATCH || name == RETAIN_KEYS || name.starts_with(DELETE_FROM) || name.starts_with(SET_ORDER)
}
