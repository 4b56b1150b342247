//! The walk over a document and its schema.

use api::{Field, FieldType, Schema, Tree};
use serde_json::{Map, json};

use super::scalar::{self, Misfit};
use crate::causes::{At, Causes};

/// The state of one walk.
pub(super) struct Fitting {
    custom: bool,
    pub(super) unknown: Vec<String>,
    pub(super) causes: Causes,
}

/// Where the typed decoder would be: the struct that holds the field, and the names down to it without indexes.
#[derive(Clone)]
pub(super) struct Go {
    owner: String,
    path: String,
}

// === impl Go ===

impl Go {
    pub(super) fn of(schema: &Schema) -> Go {
        Go { owner: short(&schema.ty().name), path: String::new() }
    }

    fn field(&self, name: &str) -> Go {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Go { owner: self.owner.clone(), path }
    }

    fn inside(&self, schema: &Schema) -> Go {
        Go { owner: short(&schema.ty().name), path: self.path.clone() }
    }

    fn cannot(&self, have: &str, ty: &str) -> String {
        if self.path.is_empty() {
            return format!("json: cannot unmarshal {have} into Go value of type {ty}");
        }
        format!("json: cannot unmarshal {have} into Go struct field {}.{} of type {ty}", self.owner, self.path)
    }
}

// === impl Fitting ===

impl Fitting {
    pub(super) fn new(custom: bool) -> Fitting {
        Fitting { custom, unknown: Vec::new(), causes: Causes::default() }
    }

    /// The document itself: an object with apiVersion, kind and metadata, whatever its schema says of them.
    pub(super) fn root(&mut self, schema: &Schema, tree: &mut Tree, go: &Go) -> Result<(), String> {
        if self.custom {
            return self.resource(schema, tree, &At::root(), go);
        }
        self.structure(schema, tree, &At::root(), go)
    }

    /// A custom resource (or an embedded one): metadata follows the built-in description, the rest the schema.
    fn resource(&mut self, schema: &Schema, tree: &mut Tree, at: &At, go: &Go) -> Result<(), String> {
        let Some(object) = tree.as_object_mut() else {
            return self.misfit(tree, at, go, "object");
        };
        let mut aside = Map::new();
        for name in ["apiVersion", "kind", "metadata"] {
            if let Some((name, value)) = object.remove_entry(name) {
                aside.insert(name, value);
            }
        }
        self.structure(schema, tree, at, go)?;
        if let (Some(meta), Some(schema)) = (aside.get_mut("metadata"), super::object_meta()) {
            self.custom = false;
            let fitted = self.structure(
                &schema,
                meta,
                &at.child("metadata"),
                &Go { owner: "ObjectMeta".into(), path: "metadata".into() },
            );
            self.custom = true;
            fitted?;
        }
        if let Some(object) = tree.as_object_mut() {
            object.append(&mut aside);
        }
        Ok(())
    }

    fn structure(&mut self, schema: &Schema, tree: &mut Tree, at: &At, go: &Go) -> Result<(), String> {
        let Some(object) = tree.as_object_mut() else {
            let ty = short_pair(&schema.ty().name);
            return self.misfit(tree, at, go, &ty);
        };
        let names: Vec<String> = object.keys().cloned().collect();
        for name in names {
            let Some(field) = schema.field(&name) else {
                if !schema.ty().preserve_unknown {
                    object.remove(&name);
                    self.unknown.push(format!("unknown field {:?}", at.child(&name).as_str()));
                }
                continue;
            };
            self.field(schema, field, object, at, go)?;
        }
        Ok(())
    }

    fn field(
        &mut self,
        schema: &Schema,
        field: &Field,
        object: &mut Map<String, Tree>,
        at: &At,
        go: &Go,
    ) -> Result<(), String> {
        let name = field.name.as_str();
        let Some(value) = object.get_mut(name) else { return Ok(()) };
        if value.is_null() {
            self.null(field, object, at);
            return Ok(());
        }
        self.value(schema, &field.ty, value, &at.child(name), &go.field(name))?;
        let empty = match (&field.ty, &*value) {
            (FieldType::List(_), Tree::Array(list)) => list.is_empty(),
            (FieldType::Map(_), Tree::Object(map)) => map.is_empty(),
            _ => false,
        };
        // The typed form does not tell an empty list from an absent one, unless the field is always written.
        if empty && !self.custom && !field.required {
            object.remove(name);
        }
        Ok(())
    }

    /// Null is absence, except where a custom resource's schema keeps it or forbids it.
    fn null(&mut self, field: &Field, object: &mut Map<String, Tree>, at: &At) {
        if self.custom && field.nullable {
            return;
        }
        if self.custom && field.default.is_none() && !matches!(field.ty, FieldType::Any) {
            let at = at.child(&field.name);
            let want = open_api_type(&field.ty);
            self.causes.wrong_type(&at, "null", &format!("{at} in body must be of type {want}: \"null\""));
            return;
        }
        object.remove(field.name.as_str());
    }

    fn value(&mut self, schema: &Schema, ty: &FieldType, value: &mut Tree, at: &At, go: &Go) -> Result<(), String> {
        match ty {
            FieldType::Any => Ok(()),
            FieldType::RawExtension | FieldType::FieldsV1 => match value {
                Tree::Object(_) => Ok(()),
                Tree::Null => Ok(()),
                other => self.misfit(other, at, go, "object"),
            },
            FieldType::Struct(id) => {
                let inner = schema.at(*id);
                let go = go.inside(&inner);
                if inner.ty().embedded {
                    return self.resource(&inner, value, at, &go);
                }
                self.structure(&inner, value, at, &go)
            }
            FieldType::List(element) => self.list(schema, element, value, at, go),
            FieldType::Map(element) => self.map(schema, element, value, at, go),
            _ => match scalar::check(ty, value) {
                Ok(()) => Ok(()),
                Err(Misfit::Type(have)) if !self.custom => Err(go.cannot(&have, &go_type(schema, ty))),
                Err(Misfit::Text(message)) if !self.custom => Err(message),
                Err(Misfit::Type(_)) => {
                    let (want, have) = (open_api_type(ty), open_api_name(value));
                    self.causes.wrong_type(at, have, &format!("{at} in body must be of type {want}: {have:?}"));
                    Ok(())
                }
                Err(Misfit::Text(message)) => {
                    self.causes.invalid(at, value, &message);
                    Ok(())
                }
            },
        }
    }

    fn list(&mut self, schema: &Schema, element: &FieldType, value: &mut Tree, at: &At, go: &Go) -> Result<(), String> {
        let Some(list) = value.as_array_mut() else {
            let ty = format!("[]{}", go_type(schema, element));
            return self.misfit(value, at, go, &ty);
        };
        for (index, item) in list.iter_mut().enumerate() {
            if item.is_null() && !self.custom {
                *item = zero(element);
            }
            self.value(schema, element, item, &at.index(index), go)?;
        }
        Ok(())
    }

    fn map(&mut self, schema: &Schema, element: &FieldType, value: &mut Tree, at: &At, go: &Go) -> Result<(), String> {
        let Some(map) = value.as_object_mut() else {
            let ty = format!("map[string]{}", go_type(schema, element));
            return self.misfit(value, at, go, &ty);
        };
        for (key, item) in map.iter_mut() {
            if item.is_null() && !self.custom {
                *item = zero(element);
            }
            self.value(schema, element, item, &at.child(key), go)?;
        }
        Ok(())
    }

    fn misfit(&mut self, value: &Tree, at: &At, go: &Go, ty: &str) -> Result<(), String> {
        if !self.custom {
            return Err(go.cannot(scalar::json_type(value), ty));
        }
        if !ty.is_empty() {
            let want = if ty.starts_with("[]") { "array" } else { "object" };
            let have = open_api_name(value);
            self.causes.wrong_type(at, have, &format!("{at} in body must be of type {want}: {have:?}"));
        }
        Ok(())
    }
}

/// Fills in every default of the schema where a field is absent, down to the leaves.
pub(crate) fn fill_defaults(schema: &Schema, tree: &mut Tree) {
    let Some(object) = tree.as_object_mut() else { return };
    for field in &schema.ty().fields {
        if field.inline {
            if let Some(inner) = schema.child(&field.ty) {
                let mut whole = Tree::Object(std::mem::take(object));
                fill_defaults(&inner, &mut whole);
                if let Tree::Object(filled) = whole {
                    *object = filled;
                }
            }
            continue;
        }
        if let Some(default) = &field.default
            && object.get(field.name.as_str()).is_none_or(|value| value.is_null() && !field.nullable)
        {
            object.insert(field.name.to_string(), default.clone());
        }
        if let Some(value) = object.get_mut(field.name.as_str()) {
            fill_value(schema, &field.ty, value);
        }
    }
}

fn fill_value(schema: &Schema, ty: &FieldType, value: &mut Tree) {
    match (ty, value) {
        (FieldType::Struct(id), value) => fill_defaults(&schema.at(*id), value),
        (FieldType::List(element), Tree::Array(items)) => {
            items.iter_mut().for_each(|item| fill_value(schema, element, item));
        }
        (FieldType::Map(element), Tree::Object(map)) => {
            map.values_mut().for_each(|item| fill_value(schema, element, item));
        }
        _ => {}
    }
}

fn zero(ty: &FieldType) -> Tree {
    match ty {
        FieldType::Struct(_) | FieldType::Map(_) | FieldType::RawExtension | FieldType::FieldsV1 => json!({}),
        FieldType::List(_) => json!([]),
        FieldType::Bool => json!(false),
        FieldType::Int32 | FieldType::Int64 | FieldType::Double | FieldType::IntOrString => json!(0),
        FieldType::Quantity => json!("0"),
        FieldType::Any | FieldType::Time | FieldType::MicroTime => Tree::Null,
        FieldType::String | FieldType::Bytes | FieldType::Duration => json!(""),
    }
}

fn go_type(schema: &Schema, ty: &FieldType) -> String {
    match ty {
        FieldType::String => "string".into(),
        FieldType::Bool => "bool".into(),
        FieldType::Int32 => "int32".into(),
        FieldType::Int64 => "int64".into(),
        FieldType::Double => "float64".into(),
        FieldType::Bytes => "[]uint8".into(),
        FieldType::Quantity => "resource.Quantity".into(),
        FieldType::IntOrString => "intstr.IntOrString".into(),
        FieldType::Time => "v1.Time".into(),
        FieldType::MicroTime => "v1.MicroTime".into(),
        FieldType::Duration => "v1.Duration".into(),
        FieldType::FieldsV1 => "v1.FieldsV1".into(),
        FieldType::RawExtension => "runtime.RawExtension".into(),
        FieldType::Any => "interface {}".into(),
        FieldType::Struct(id) => short_pair(&schema.at(*id).ty().name),
        FieldType::List(element) => format!("[]{}", go_type(schema, element)),
        FieldType::Map(element) => format!("map[string]{}", go_type(schema, element)),
    }
}

fn open_api_type(ty: &FieldType) -> &'static str {
    match ty {
        FieldType::Bool => "boolean",
        FieldType::Int32 | FieldType::Int64 => "integer",
        FieldType::Double => "number",
        FieldType::List(_) => "array",
        FieldType::Struct(_) | FieldType::Map(_) | FieldType::RawExtension | FieldType::FieldsV1 => "object",
        FieldType::IntOrString => "integer,string",
        _ => "string",
    }
}

fn open_api_name(value: &Tree) -> &'static str {
    match value {
        Tree::Null => "null",
        Tree::Bool(_) => "boolean",
        Tree::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Tree::Number(_) => "number",
        Tree::String(_) => "string",
        Tree::Array(_) => "array",
        Tree::Object(_) => "object",
    }
}

/// `PodSpec` of `io.k8s.api.core.v1.PodSpec`.
fn short(name: &str) -> String {
    name.rsplit('.').next().unwrap_or_default().to_owned()
}

/// `v1.PodSpec`.
fn short_pair(name: &str) -> String {
    let mut parts = name.rsplit('.');
    let last = parts.next().unwrap_or_default();
    parts.next().map_or_else(|| last.to_owned(), |version| format!("{version}.{last}"))
}
