//! Documents seen through their schema: which parts merge, which are whole; their fields as a set, their differences.

use api::schema::Table;
use api::{FieldType, ListKind, MapKind, Schema, Tree};
use serde_json::Map;

use super::set::{Node, Set, field, keyed, valued};

/// A position in the schema.
#[derive(Clone, Copy)]
pub(crate) struct Typed<'a> {
    table: &'a Table,
    ty: &'a FieldType,
    list: &'a ListKind,
    map: MapKind,
    /// The root of a custom resource: its metadata is described by the built-in table.
    custom_root: bool,
}

/// How a value merges.
pub(crate) enum Shape<'a> {
    /// As a whole.
    Atomic,
    /// Field by field, each with its own type.
    Struct,
    /// Key by key, all of one type.
    Map,
    /// Item by item; members of a set, told apart by value.
    Set(&'a FieldType),
    /// Item by item, told apart by these keys.
    ListMap(&'a FieldType, &'a [base::SmolStr]),
}

static ANY: FieldType = FieldType::Any;
static WHOLE: ListKind = ListKind::Atomic;

// === impl Typed ===

impl<'a> Typed<'a> {
    /// `root` is `FieldType::Struct` of the schema's own type; it outlives the walk.
    pub(crate) fn root(schema: &'a Schema, root: &'a FieldType, custom: bool) -> Typed<'a> {
        Typed { table: schema.table(), ty: root, list: &WHOLE, map: MapKind::Granular, custom_root: custom }
    }

    fn of(self, ty: &'a FieldType) -> Typed<'a> {
        Typed { ty, list: &WHOLE, map: MapKind::Granular, custom_root: false, ..self }
    }

    /// The shape for these values: untyped parts take the shape of what is there.
    pub(crate) fn shape(self, values: [Option<&Tree>; 2]) -> Shape<'a> {
        match self.ty {
            FieldType::Struct(id) => {
                let ty = self.table.ty(*id);
                if self.map == MapKind::Atomic || ty.map == MapKind::Atomic { Shape::Atomic } else { Shape::Struct }
            }
            FieldType::Map(_) if self.map == MapKind::Atomic => Shape::Atomic,
            FieldType::Map(_) => Shape::Map,
            FieldType::List(element) => match self.list {
                ListKind::Atomic => Shape::Atomic,
                ListKind::Set => Shape::Set(element),
                ListKind::Map(keys) => Shape::ListMap(element, keys),
            },
            FieldType::Any if values.iter().flatten().all(|value| value.is_object()) => Shape::Map,
            _ => Shape::Atomic,
        }
    }

    /// The type of a struct's field or a map's value; whether the schema names it.
    pub(crate) fn child(self, name: &str) -> (Typed<'a>, bool) {
        match self.ty {
            FieldType::Struct(_) if self.custom_root && name == "metadata" => match crate::vocabulary::object_meta() {
                Some((schema, root)) => (Typed::root(schema, root, false), true),
                None => (self.of(&ANY), true),
            },
            FieldType::Struct(id) => match self.table.field(*id, name) {
                Some(field) => {
                    (Typed { ty: &field.ty, list: &field.list, map: field.map, custom_root: false, ..self }, true)
                }
                None => (self.of(&ANY), false),
            },
            FieldType::Map(element) => (self.of(element), false),
            _ => (self.of(&ANY), false),
        }
    }

    pub(crate) fn element(self, ty: &'a FieldType) -> Typed<'a> {
        self.of(ty)
    }

    /// How an item of a keyed list is named; absent keys count with their defaults.
    pub(crate) fn key_of(self, element: &FieldType, keys: &[base::SmolStr], item: &Tree) -> String {
        let mut named = Map::new();
        for key in keys {
            let value = item.get(key.as_str()).cloned().or_else(|| match element {
                FieldType::Struct(id) => self.table.field(*id, key).and_then(|field| field.default.clone()),
                _ => None,
            });
            if let Some(value) = value {
                named.insert(key.to_string(), value);
            }
        }
        keyed(named)
    }

    /// Items of a list under their names, in order.
    pub(crate) fn named_items<'t>(self, shape: &Shape<'_>, list: Option<&'t Tree>) -> Vec<(String, &'t Tree)> {
        let items = list.and_then(Tree::as_array).map(Vec::as_slice).unwrap_or_default().iter();
        match shape {
            Shape::ListMap(element, keys) => items.map(|item| (self.key_of(element, keys, item), item)).collect(),
            _ => items.map(|item| (valued(item), item)).collect(),
        }
    }
}

/// The fields a document sets (`ToFieldSet`).
pub(crate) fn fields_of(typed: Typed<'_>, value: &Tree) -> Set {
    node_of(typed, value).set
}

fn node_of(typed: Typed<'_>, value: &Tree) -> Node {
    let mut set = Set::default();
    let shape = typed.shape([Some(value), None]);
    match (&shape, value) {
        (Shape::Struct | Shape::Map, Tree::Object(map)) => {
            for (name, value) in map {
                let (child, known) = typed.child(name);
                let mut node = node_of(child, value);
                let bare = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                node.member |= bare || !known;
                set.insert_node(field(name), node);
            }
        }
        (Shape::ListMap(element, _) | Shape::Set(element), Tree::Array(_)) => {
            for (name, item) in typed.named_items(&shape, Some(value)) {
                let node = node_of(typed.element(element), item);
                let mut whole = Node { member: true, set: Set::default() };
                if matches!(shape, Shape::ListMap(..)) {
                    whole.set = node.set;
                }
                set.insert_node(name, whole);
            }
        }
        _ => return Node::leaf(),
    }
    Node { member: false, set }
}

/// What differs between two documents, by path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Differences {
    pub(crate) added: Set,
    pub(crate) modified: Set,
    pub(crate) removed: Set,
}

impl Differences {
    /// Fields that the newer document sets anew or otherwise.
    pub(crate) fn changed(&self) -> Set {
        self.added.union(&self.modified)
    }
}

pub(crate) fn compare(typed: Typed<'_>, old: &Tree, new: &Tree) -> Differences {
    let mut found = Differences::default();
    walk(typed, [Some(old), Some(new)], &mut Vec::new(), &mut found);
    found
}

fn walk(typed: Typed<'_>, [old, new]: [Option<&Tree>; 2], path: &mut Vec<String>, found: &mut Differences) {
    if old == new {
        return;
    }
    let shape = typed.shape([old, new]);
    match &shape {
        Shape::Atomic => {
            let into = match (old, new) {
                (None, _) => &mut found.added,
                (_, None) => &mut found.removed,
                _ => &mut found.modified,
            };
            into.insert(path);
            return;
        }
        Shape::Struct | Shape::Map => {
            let (left, right) = (old.and_then(Tree::as_object), new.and_then(Tree::as_object));
            let names = left.into_iter().flatten().map(|(name, _)| name);
            let fresh = right.into_iter().flatten().map(|(name, _)| name);
            let fresh = fresh.filter(|name| left.is_none_or(|left| !left.contains_key(*name)));
            for name in names.chain(fresh) {
                let sides = [left.and_then(|map| map.get(name)), right.and_then(|map| map.get(name))];
                path.push(field(name));
                walk(typed.child(name).0, sides, path, found);
                path.pop();
            }
        }
        Shape::ListMap(element, _) | Shape::Set(element) => {
            let (left, right) = (typed.named_items(&shape, old), typed.named_items(&shape, new));
            let find = |list: &[(String, &'_ Tree)], name: &str| list.iter().position(|(have, _)| have == name);
            for (name, item) in &left {
                let other = find(&right, name).map(|at| right[at].1);
                step(typed.element(element), name, [Some(item), other], path, found);
            }
            for (name, item) in right.iter().filter(|(name, _)| find(&left, name).is_none()) {
                step(typed.element(element), name, [None, Some(item)], path, found);
            }
        }
    }
    if old.is_none() {
        found.added.insert(path);
    } else if new.is_none() {
        found.removed.insert(path);
    }
}

fn step(typed: Typed<'_>, name: &str, sides: [Option<&Tree>; 2], path: &mut Vec<String>, found: &mut Differences) {
    path.push(name.to_owned());
    walk(typed, sides, path, found);
    path.pop();
}
