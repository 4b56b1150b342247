//! The schemas of a document: those its paths refer to, and all that they refer to.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, json};

use super::Dialect;
use crate::kind::KindRef;
use crate::schema::{Field, FieldType, ListKind, MapKind, Schema, Type, TypeId};
use crate::{Kind, Registry, Tree, builtin};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
/// What every group's paths use.
const COMMON: [&str; 3] = ["DeleteOptions", "Status", "APIResourceList"];

/// Definitions that are no object: name, its schema in v2, its schema in v3.
const LEAVES: [(&str, &str, &str); 7] = [
    (
        "io.k8s.apimachinery.pkg.api.resource.Quantity",
        r#"{"type":"string"}"#,
        r#"{"oneOf":[{"type":"string"},{"type":"number"}]}"#,
    ),
    (
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
        r#"{"type":"string","format":"int-or-string"}"#,
        r#"{"format":"int-or-string","oneOf":[{"type":"integer"},{"type":"string"}]}"#,
    ),
    (
        "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
        r#"{"type":"string","format":"date-time"}"#,
        r#"{"type":"string","format":"date-time"}"#,
    ),
    (
        "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
        r#"{"type":"string","format":"date-time"}"#,
        r#"{"type":"string","format":"date-time"}"#,
    ),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", r#"{"type":"object"}"#, r#"{"type":"object"}"#),
    ("io.k8s.apimachinery.pkg.runtime.RawExtension", r#"{"type":"object"}"#, r#"{"type":"object"}"#),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON", "{}", "{}"),
];

pub(super) struct Definitions<'a> {
    dialect: Dialect,
    registry: &'a Registry,
    wanted: BTreeSet<TypeId>,
    custom: Vec<KindRef>,
}

/// The definition name of a kind: upstream's package for a built-in one, the reversed group for a custom one.
pub(super) fn name_of(kind: &Kind) -> String {
    if !kind.custom {
        return kind.schema.ty().name.to_string();
    }
    let mut parts: Vec<&str> = kind.gvk.group.split('.').collect();
    parts.reverse();
    format!("{}.{}.{}", parts.join("."), kind.gvk.version, kind.gvk.kind)
}

/// The definition name of the kind's list.
pub(super) fn list_name_of(kind: &Kind) -> String {
    let name = name_of(kind);
    let package = name.rsplit_once('.').map_or("", |(package, _)| package);
    format!("{package}.{}", kind.list_kind)
}

impl<'a> Definitions<'a> {
    pub(super) fn new(dialect: Dialect, registry: &'a Registry) -> Definitions<'a> {
        let mut definitions = Definitions { dialect, registry, wanted: BTreeSet::new(), custom: Vec::new() };
        for kind in COMMON {
            definitions.want_named(&format!("{META}{kind}"));
        }
        definitions
    }

    /// Takes in a kind, its list and the bodies of its subresources.
    pub(super) fn root(&mut self, kind: &KindRef) {
        if kind.custom {
            self.want_named(&format!("{META}ObjectMeta"));
            self.want_named(&format!("{META}ListMeta"));
            self.custom.push(kind.clone());
        } else {
            self.want(kind.schema.id());
            self.want_named(&list_name_of(kind));
        }
        for subresource in &kind.subresources {
            if let Some(schema) =
                builtin::subresource_schema(kind, &subresource.name).filter(|_| subresource.gvk != kind.gvk)
            {
                self.want(schema.id());
            }
        }
    }

    fn want_named(&mut self, name: &str) {
        if let Some(schema) = builtin::schema(name) {
            self.want(schema.id());
        }
    }

    fn want(&mut self, id: TypeId) {
        let table = builtin::table();
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            if self.wanted.insert(id) {
                open.extend(table.json_fields(id).iter().filter_map(|field| struct_of(&field.ty)));
            }
        }
    }

    /// Writes all definitions.
    pub(super) fn write(&self, out: &mut String) {
        super::write_map(out, self.members());
    }

    /// All definitions, in order of their names, each made when its turn comes.
    pub(super) fn members(&self) -> impl Iterator<Item = (String, Tree)> {
        let groups = groups(self.registry);
        let mut all: BTreeMap<String, Tree> = BTreeMap::new();
        for (name, v2, v3) in LEAVES {
            let text = if self.dialect == Dialect::V2 { v2 } else { v3 };
            all.insert(name.to_owned(), serde_json::from_str(text).expect("written above as JSON"));
        }
        for kind in &self.custom {
            all.insert(name_of(kind), self.custom_kind(kind));
            all.insert(list_name_of(kind), self.custom_list(kind));
        }
        let mut texts: Vec<(String, Option<TypeId>)> = all.keys().map(|name| (name.clone(), None)).collect();
        let table = builtin::table();
        texts.extend(self.wanted.iter().map(|id| (table.ty(*id).name.to_string(), Some(*id))));
        texts.sort();
        texts.into_iter().map(move |(name, id)| {
            let tree = match id {
                Some(id) => self.definition(&Schema::new(table.clone(), id), &groups),
                None => all.remove(&name).expect("listed from this map"),
            };
            (name, tree)
        })
    }

    fn definition(&self, schema: &Schema, groups: &BTreeMap<String, String>) -> Tree {
        let ty = schema.ty();
        let mut fields = schema.fields();
        fields.sort_by(|left, right| left.name.cmp(&right.name));
        let properties: Map<String, Tree> =
            fields.iter().map(|field| (field.name.to_string(), self.property(schema, field))).collect();
        let required: Vec<&str> =
            fields.iter().filter(|field| field.required).map(|field| field.name.as_str()).collect();
        let mut tree = json!({ "type": "object", "properties": properties });
        let text = builtin::description(ty.description);
        if !text.is_empty() {
            tree["description"] = json!(text);
        }
        if !required.is_empty() {
            tree["required"] = json!(required);
        }
        if ty.map == MapKind::Atomic {
            tree["x-kubernetes-map-type"] = json!("atomic");
        }
        if let Some(gvk) = gvk_of(ty, &fields, groups) {
            tree["x-kubernetes-group-version-kind"] = json!([gvk]);
        }
        tree
    }

    fn property(&self, schema: &Schema, field: &Field) -> Tree {
        let text = builtin::description(field.description);
        let mut tree = self.shape(schema, &field.ty);
        // In v3 nothing may stand beside a reference.
        if self.dialect == Dialect::V3 && tree.get("$ref").is_some() {
            tree = json!({ "allOf": [tree] });
        }
        if !text.is_empty() {
            tree["description"] = json!(text);
        }
        self.values(field, &mut tree);
        if let FieldType::List(_) = field.ty {
            lists(field, &mut tree);
        }
        patches(field, &mut tree);
        if field.map == MapKind::Atomic {
            tree["x-kubernetes-map-type"] = json!("atomic");
        }
        tree
    }

    /// Default and enumeration. Upstream's v2 document has no defaults.
    fn values(&self, field: &Field, tree: &mut Tree) {
        if let (Dialect::V3, Some(default)) = (self.dialect, &field.default) {
            tree["default"] = default.clone();
        }
        let Some(rules) = field.rules.as_deref() else { return };
        if !rules.enumeration.is_empty() {
            tree["enum"] = json!(rules.enumeration);
        }
        if let Some(items) = rules.items.as_deref().filter(|items| !items.enumeration.is_empty()) {
            tree["items"]["enum"] = json!(items.enumeration);
        }
    }

    fn shape(&self, schema: &Schema, ty: &FieldType) -> Tree {
        let named = |at: usize| self.dialect.reference(LEAVES[at].0);
        match ty {
            FieldType::String | FieldType::Duration => json!({ "type": "string" }),
            FieldType::Bool => json!({ "type": "boolean" }),
            FieldType::Int32 => json!({ "type": "integer", "format": "int32" }),
            FieldType::Int64 => json!({ "type": "integer", "format": "int64" }),
            FieldType::Double => json!({ "type": "number", "format": "double" }),
            FieldType::Bytes => json!({ "type": "string", "format": "byte" }),
            FieldType::Quantity => named(0),
            FieldType::IntOrString => named(1),
            FieldType::Time => named(2),
            FieldType::MicroTime => named(3),
            FieldType::FieldsV1 => named(4),
            FieldType::RawExtension => named(5),
            FieldType::Any => named(6),
            FieldType::Struct(id) => self.dialect.reference(&schema.table().ty(*id).name),
            FieldType::List(inner) => json!({ "type": "array", "items": self.shape(schema, inner) }),
            FieldType::Map(inner) => json!({ "type": "object", "additionalProperties": self.shape(schema, inner) }),
        }
    }

    /// A custom kind's schema as it was written, with what every object has.
    fn custom_kind(&self, kind: &Kind) -> Tree {
        let source = &kind.schema.table().source;
        let mut tree: Tree = serde_json::from_slice(source).unwrap_or_else(|_| json!({ "type": "object" }));
        if self.dialect == Dialect::V2 {
            without_v3_words(&mut tree);
        }
        tree["properties"]["apiVersion"] = json!({ "type": "string" });
        tree["properties"]["kind"] = json!({ "type": "string" });
        tree["properties"]["metadata"] = self.metadata("ObjectMeta");
        tree["x-kubernetes-group-version-kind"] = json!([gvk_tree(kind, &kind.gvk.kind)]);
        tree
    }

    fn custom_list(&self, kind: &Kind) -> Tree {
        json!({
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": { "type": "string" },
                "kind": { "type": "string" },
                "metadata": self.metadata("ListMeta"),
                "items": { "type": "array", "items": self.dialect.reference(&name_of(kind)) },
            },
            "x-kubernetes-group-version-kind": [gvk_tree(kind, &kind.list_kind)],
        })
    }

    fn metadata(&self, name: &str) -> Tree {
        let reference = self.dialect.reference(&format!("{META}{name}"));
        if self.dialect == Dialect::V3 { json!({ "allOf": [reference] }) } else { reference }
    }
}

/// Swagger knows neither `nullable` nor alternatives; upstream drops them from its v2 document too.
fn without_v3_words(tree: &mut Tree) {
    match tree {
        Tree::Object(members) => {
            let is_schema = members.get("type").is_some_and(Tree::is_string) || members.contains_key("anyOf");
            if is_schema {
                for word in ["nullable", "anyOf", "oneOf", "not"] {
                    members.remove(word);
                }
            }
            members.values_mut().for_each(without_v3_words);
        }
        Tree::Array(items) => items.iter_mut().for_each(without_v3_words),
        _ => {}
    }
}

fn struct_of(ty: &FieldType) -> Option<TypeId> {
    match ty {
        FieldType::Struct(id) => Some(*id),
        FieldType::List(inner) | FieldType::Map(inner) => struct_of(inner),
        _ => None,
    }
}

fn lists(field: &Field, tree: &mut Tree) {
    match &field.list {
        ListKind::Atomic => tree["x-kubernetes-list-type"] = json!("atomic"),
        ListKind::Set => tree["x-kubernetes-list-type"] = json!("set"),
        ListKind::Map(keys) => {
            tree["x-kubernetes-list-type"] = json!("map");
            tree["x-kubernetes-list-map-keys"] = json!(keys);
        }
    }
}

fn patches(field: &Field, tree: &mut Tree) {
    let words = [(field.patch.merge, "merge"), (field.patch.retain_keys, "retainKeys")];
    let words: Vec<&str> = words.into_iter().filter(|(set, _)| *set).map(|(_, word)| word).collect();
    if !words.is_empty() {
        tree["x-kubernetes-patch-strategy"] = json!(words.join(","));
    }
    if !field.patch.merge_key.is_empty() {
        tree["x-kubernetes-patch-merge-key"] = json!(field.patch.merge_key);
    }
}

/// Packages to group and version, as the registry's kinds show them.
fn groups(registry: &Registry) -> BTreeMap<String, String> {
    let mut groups = BTreeMap::from([(META.trim_end_matches('.').to_owned(), String::new())]);
    for kind in registry.iter().filter(|kind| !kind.custom) {
        if let Some((package, _)) = kind.schema.ty().name.rsplit_once('.') {
            groups.insert(package.to_owned(), kind.gvk.group.to_string());
        }
    }
    groups
}

/// A type that names its own apiVersion and kind is a kind.
fn gvk_of(ty: &Type, fields: &[&Field], groups: &BTreeMap<String, String>) -> Option<Tree> {
    let own = |name: &str| fields.iter().any(|field| field.name == name && field.number == 0);
    let (package, kind) = ty.name.rsplit_once('.')?;
    let (_, version) = package.rsplit_once('.')?;
    let group = groups.get(package)?;
    (own("apiVersion") && own("kind")).then(|| json!({ "group": group, "version": version, "kind": kind }))
}

pub(super) fn gvk_tree(kind: &Kind, name: &str) -> Tree {
    json!({ "group": kind.gvk.group, "version": kind.gvk.version, "kind": name })
}
