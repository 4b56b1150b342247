//! The schema's rules over a document: required fields, enumerations, bounds, formats, patterns, duplicates, unions.
//!
//! Custom kinds follow every word of their schema. For built-in kinds the description requires and tells apart more than
//! upstream enforces, so they follow only what is declared as a rule.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use api::schema::{Rules, Table};
use api::{Field, FieldType, Kind, ListKind, Schema, Tree, TypeId};

use super::{format, raw};
use crate::causes::{At, Causes, shown};
use crate::context::Cx;

/// Checks a whole custom resource.
pub(super) fn custom(kind: &Kind, tree: &Tree, causes: &mut Causes) {
    if let Some(rules) = &kind.schema.ty().rules {
        check(rules, tree, &At::root(), causes);
    }
    Walk { custom: true, status: false }.structure(&kind.schema, tree, None, &At::root(), true, causes);
}

/// Checks what is declared of a built-in kind. Speaks after the kind's own rules and only where those were silent; what
/// was already so in the old state passes.
pub(super) fn builtin(cx: &Cx<'_>, tree: &Tree, old: Option<&Tree>, causes: &mut Causes) {
    let schema = &cx.kind.schema;
    let status = cx.sub() == "status";
    let found = |tree: &Tree, old: Option<&Tree>| {
        let mut found = Causes::default();
        Walk { custom: false, status }.structure(schema, tree, old, &At::root(), true, &mut found);
        found.into_vec()
    };
    let mut new = found(tree, old);
    if let Some(old) = old.filter(|_| !new.is_empty()) {
        let had = found(old, None);
        new.retain(|cause| !had.contains(cause));
    }
    causes.extend_where_silent(new);
}

/// One walk over a document.
#[derive(Clone, Copy)]
struct Walk {
    custom: bool,
    /// Of a built-in kind the status alone is looked at, or all but the status.
    status: bool,
}

impl Walk {
    fn structure(self, schema: &Schema, tree: &Tree, old: Option<&Tree>, at: &At, root: bool, causes: &mut Causes) {
        let Some(object) = tree.as_object() else { return };
        let fields = &schema.ty().fields;
        for field in fields {
            let name = field.name.as_str();
            if field.inline {
                if let Some(inner) = schema.child(&field.ty) {
                    self.structure(&inner, tree, old, at, root, causes);
                }
                continue;
            }
            if root && self.skips(name) {
                continue;
            }
            let at = at.child(name);
            let value = object.get(name).filter(|value| !value.is_null());
            match value {
                None if field.required && self.custom => causes.required(&at, ""),
                None => self.absent(field, &at, causes),
                Some(value) => {
                    let old = old.and_then(|old| old.get(name)).filter(|old| !old.is_null());
                    self.field(schema, field, value, old, &at, causes);
                }
            }
        }
        union(fields, tree, at, causes);
    }

    fn skips(self, name: &str) -> bool {
        let implied = matches!(name, "apiVersion" | "kind" | "metadata");
        implied || !self.custom && self.status != (name == "status")
    }

    fn absent(self, field: &Field, at: &At, causes: &mut Causes) {
        if let Some(words) = field.rules.as_ref().and_then(|rules| rules.filled.as_ref()) {
            causes.required(at, words);
        }
    }

    fn field(self, schema: &Schema, field: &Field, value: &Tree, old: Option<&Tree>, at: &At, causes: &mut Causes) {
        if !self.custom && is_empty(value) {
            return self.absent(field, at, causes);
        }
        if let Some(rules) = &field.rules {
            // Upstream's own parts write statuses; their words are not looked at.
            if self.status && !rules.enumeration.is_empty() {
                return;
            }
            check(rules, value, at, causes);
            if old.is_some_and(|old| old != value) && (rules.immutable || rules.no_modify) {
                causes.immutable(at, value);
            }
            if let Some(kind) = &rules.unique {
                duplicates(kind, value, at, causes);
            }
        }
        if self.custom {
            duplicates(&field.list, value, at, causes);
        }
        self.inner(schema, &field.ty, value, old, at, causes);
    }

    fn inner(self, schema: &Schema, ty: &FieldType, value: &Tree, old: Option<&Tree>, at: &At, causes: &mut Causes) {
        match (ty, value) {
            (FieldType::Struct(id), _) if !self.custom && !RULED[id.0 as usize] => {}
            (FieldType::Struct(id), value) => {
                let schema = schema.at(*id);
                self.structure(&schema, value, old, at, schema.ty().embedded, causes);
            }
            (FieldType::List(element), Tree::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.inner(schema, element, item, None, &at.index(index), causes);
                }
            }
            (FieldType::Map(element), Tree::Object(map)) => {
                for (key, item) in map {
                    self.inner(schema, element, item, None, &at.child(key), causes);
                }
            }
            _ => {}
        }
    }
}

/// Which built-in types declare a rule anywhere below: a walk leaves the others alone.
static RULED: LazyLock<Vec<bool>> = LazyLock::new(|| {
    let table: &Table = api::builtin::table();
    let mut ruled: Vec<bool> =
        table.types.iter().map(|ty| ty.fields.iter().any(|field| field.rules.is_some())).collect();
    loop {
        let below = |ty: &FieldType| struct_of(ty).is_some_and(|id| ruled[id.0 as usize]);
        let next: Vec<bool> = table
            .types
            .iter()
            .zip(&ruled)
            .map(|(ty, known)| *known || ty.fields.iter().any(|field| below(&field.ty)))
            .collect();
        if next == ruled {
            return ruled;
        }
        ruled = next;
    }
});

fn struct_of(ty: &FieldType) -> Option<TypeId> {
    match ty {
        FieldType::Struct(id) => Some(*id),
        FieldType::List(inner) | FieldType::Map(inner) => struct_of(inner),
        _ => None,
    }
}

/// Zero to a typed server: as good as absent.
fn is_empty(value: &Tree) -> bool {
    match value {
        Tree::String(text) => text.is_empty(),
        Tree::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Of the members of a union one is set.
fn union(fields: &[Field], tree: &Tree, at: &At, causes: &mut Causes) {
    let members = fields.iter().filter(|field| field.rules.as_ref().is_some_and(|rules| rules.union_member));
    let members: Vec<&str> = members.map(|field| field.name.as_str()).collect();
    if members.is_empty() {
        return;
    }
    let all = members.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let set: Vec<&str> = members.into_iter().filter(|name| tree.get(name).is_some_and(|v| !v.is_null())).collect();
    match set.as_slice() {
        [] => causes.invalid_text(at, "", &format!("must specify one of: {all}")),
        [_] => {}
        many => {
            let shown = format!("{{{}}}", many.join(", "));
            causes.invalid_text(at, &shown, &format!("must specify exactly one of: {all}"));
        }
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
    if rules.format.starts_with("k8s-") {
        format::wrong(&rules.format, text).iter().for_each(|why| causes.invalid(at, value, why));
    } else if !raw::is_format(&rules.format, text) {
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
