//! Structural schemas into tables: every node has a type, so that pruning, defaulting and merging know what they see.

use base::SmolStr;
use bytes::Bytes;

use crate::schema::{Field, FieldType, ListKind, MapKind, PatchRule, Rules, Table, Type, TypeId};
use crate::{Cause, Tree, builtin, meta};

/// Nodes of one schema: a definition is at most as large as an object may be.
const NODES_MAX: usize = 20_000;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Builds the table of one version; its first type is the object itself. `path` is where the schema stands, for causes.
///
/// # Errors
/// Every way in which the schema is not structural.
pub fn table(schema: &Tree, path: &str, preserve_unknown: bool) -> Result<Table, Vec<Cause>> {
    let mut builder = Builder { types: Vec::new(), causes: Vec::new(), nodes: 0, metadata: None };
    if meta::str_at(schema, "type") != "object" {
        let message = if schema.get("type").is_none() {
            cause("FieldValueRequired", &format!("{path}.type"), "Required value: must not be empty at the root")
        } else {
            let given = meta::str_at(schema, "type");
            let text = format!("Invalid value: {given:?}: must be object at the root");
            cause("FieldValueInvalid", &format!("{path}.type"), &text)
        };
        return Err(vec![message]);
    }
    let root = builder.object(schema, path, 0);
    debug_assert_eq!(root, TypeId(0), "the root is built first");
    builder.root(preserve_unknown, rules(schema));
    if !builder.causes.is_empty() {
        return Err(builder.causes);
    }
    let source = serde_json::to_vec(schema).map(Bytes::from).unwrap_or_default();
    Ok(Table { types: builder.types, source })
}

fn cause(reason: &str, field: &str, message: &str) -> Cause {
    Cause { reason: reason.to_owned(), message: message.to_owned(), field: field.to_owned() }
}

struct Builder {
    types: Vec<Type>,
    causes: Vec<Cause>,
    nodes: usize,
    metadata: Option<TypeId>,
}

impl Builder {
    fn wrong(&mut self, reason: &str, field: &str, message: &str) {
        self.causes.push(cause(reason, field, message));
    }

    /// What every object has, whatever its schema says of it.
    fn root(&mut self, preserve_unknown: bool, rules: Option<Box<Rules>>) {
        self.implied(TypeId(0));
        let root = &mut self.types[0];
        root.preserve_unknown |= preserve_unknown;
        root.rules = rules;
    }

    /// Makes apiVersion, kind and metadata of an object what they always are.
    fn implied(&mut self, id: TypeId) {
        let metadata = self.metadata();
        let fields = &mut self.types[id.0 as usize].fields;
        fields.retain(|field| !matches!(field.name.as_str(), "apiVersion" | "kind" | "metadata"));
        fields.push(plain("apiVersion", FieldType::String));
        fields.push(plain("kind", FieldType::String));
        fields.push(plain("metadata", FieldType::Struct(metadata)));
        fields.sort_by(|left, right| left.name.cmp(&right.name));
    }

    fn reserve(&mut self) -> TypeId {
        let id = u32::try_from(self.types.len()).expect("NODES_MAX bounds the types");
        self.types.push(Type::default());
        TypeId(id)
    }

    fn object(&mut self, node: &Tree, path: &str, depth: usize) -> TypeId {
        let id = self.reserve();
        let required: Vec<&str> = meta::list_at(node, "required").iter().filter_map(Tree::as_str).collect();
        let mut fields = Vec::new();
        for (name, property) in node.get("properties").and_then(Tree::as_object).into_iter().flatten() {
            let place = format!("{path}.properties[{name}]");
            let ty = self.node(property, &place, depth + 1, "specified object fields");
            fields.push(Field {
                name: name.into(),
                required: required.contains(&name.as_str()),
                nullable: meta::bool_at(property, "nullable"),
                default: property.get("default").filter(|default| !default.is_null()).cloned(),
                list: self.list(property, &place),
                map: map(property),
                rules: rules(property),
                ..plain(name, ty)
            });
        }
        // Required names without a schema of their own still have to be there.
        let known: Vec<SmolStr> = fields.iter().map(|field| field.name.clone()).collect();
        for name in required.into_iter().filter(|name| !known.iter().any(|known| known == name)) {
            fields.push(Field { required: true, ..plain(name, FieldType::Any) });
        }
        fields.sort_by(|left, right| left.name.cmp(&right.name));
        let embedded = meta::bool_at(node, "x-kubernetes-embedded-resource");
        let ty = &mut self.types[id.0 as usize];
        ty.fields = fields;
        ty.preserve_unknown = meta::bool_at(node, "x-kubernetes-preserve-unknown-fields");
        ty.embedded = embedded;
        ty.map = map(node);
        if embedded {
            self.implied(id);
        }
        id
    }

    fn node(&mut self, node: &Tree, path: &str, depth: usize, place: &str) -> FieldType {
        self.nodes += 1;
        if depth > base::limits::NESTING_DEPTH_MAX || self.nodes > NODES_MAX {
            if self.nodes == NODES_MAX + 1 || depth == base::limits::NESTING_DEPTH_MAX + 1 {
                self.wrong("FieldValueInvalid", path, "Invalid value: \"\": the schema is too large");
            }
            return FieldType::Any;
        }
        self.forbidden(node, path);
        if meta::bool_at(node, "x-kubernetes-int-or-string") {
            return FieldType::IntOrString;
        }
        match meta::str_at(node, "type") {
            "string" => FieldType::String,
            "boolean" => FieldType::Bool,
            "integer" if meta::str_at(node, "format") == "int32" => FieldType::Int32,
            "integer" => FieldType::Int64,
            "number" => FieldType::Double,
            "array" => self.array(node, path, depth),
            "object" => self.map_or_object(node, path, depth),
            "" if meta::bool_at(node, "x-kubernetes-preserve-unknown-fields") => FieldType::Any,
            "" => {
                let message = format!("Required value: must not be empty for {place}");
                self.wrong("FieldValueRequired", &format!("{path}.type"), &message);
                FieldType::Any
            }
            other => {
                let message = format!(
                    "Unsupported value: {other:?}: supported values: \"array\", \"boolean\", \"integer\", \"number\", \
                     \"object\", \"string\""
                );
                self.wrong("FieldValueNotSupported", &format!("{path}.type"), &message);
                FieldType::Any
            }
        }
    }

    fn forbidden(&mut self, node: &Tree, path: &str) {
        for (name, why) in [
            ("$ref", "$ref is not supported"),
            ("definitions", "definitions is not supported"),
            ("dependencies", "dependencies is not supported"),
            ("deprecated", "deprecated is not supported"),
            ("id", "id is not supported"),
            ("patternProperties", "patternProperties is not supported"),
            ("readOnly", "readOnly is not supported"),
            ("writeOnly", "writeOnly is not supported"),
            ("xml", "xml is not supported"),
        ] {
            if node.get(name).is_some() {
                self.wrong("FieldValueForbidden", &format!("{path}.{name}"), &format!("Forbidden: {why}"));
            }
        }
        if meta::bool_at(node, "uniqueItems") {
            let message = "Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.wrong("FieldValueForbidden", &format!("{path}.uniqueItems"), message);
        }
        let both = node.get("properties").is_some_and(|all| all.as_object().is_some_and(|all| !all.is_empty()));
        if both && node.get("additionalProperties").is_some_and(|one| *one != Tree::Bool(false)) {
            let message = "Forbidden: additionalProperties and properties are mutual exclusive";
            self.wrong("FieldValueForbidden", &format!("{path}.additionalProperties"), message);
        }
    }

    fn array(&mut self, node: &Tree, path: &str, depth: usize) -> FieldType {
        let items = match node.get("items") {
            Some(Tree::Array(_)) => {
                let message = "Forbidden: items must be a schema object and not an array";
                self.wrong("FieldValueForbidden", &format!("{path}.items"), message);
                FieldType::Any
            }
            Some(items) if items.is_object() => {
                self.node(items, &format!("{path}.items"), depth + 1, "specified array items")
            }
            _ => {
                self.wrong("FieldValueRequired", &format!("{path}.items"), "Required value: must be specified");
                FieldType::Any
            }
        };
        FieldType::List(Box::new(items))
    }

    fn map_or_object(&mut self, node: &Tree, path: &str, depth: usize) -> FieldType {
        match node.get("additionalProperties") {
            Some(values) if values.is_object() => {
                let place = format!("{path}.additionalProperties");
                let values = self.node(values, &place, depth + 1, "specified object fields");
                FieldType::Map(Box::new(values))
            }
            Some(Tree::Bool(true)) => FieldType::Map(Box::new(FieldType::Any)),
            _ => FieldType::Struct(self.object(node, path, depth)),
        }
    }

    fn list(&mut self, node: &Tree, path: &str) -> ListKind {
        let keys: Vec<SmolStr> = meta::list_at(node, "x-kubernetes-list-map-keys")
            .iter()
            .filter_map(Tree::as_str)
            .map(SmolStr::from)
            .collect();
        match meta::str_at(node, "x-kubernetes-list-type") {
            "set" => ListKind::Set,
            "map" if keys.is_empty() => {
                let message = "Required value: must not be empty if x-kubernetes-list-type is map";
                self.wrong("FieldValueRequired", &format!("{path}.x-kubernetes-list-map-keys"), message);
                ListKind::Atomic
            }
            "map" => ListKind::Map(keys),
            _ => ListKind::Atomic,
        }
    }

    /// `ObjectMeta` and what it holds, copied into this table.
    fn metadata(&mut self) -> TypeId {
        if let Some(id) = self.metadata {
            return id;
        }
        let schema = builtin::schema(OBJECT_META).expect("the description has ObjectMeta");
        let id = self.copy(schema.id());
        self.metadata = Some(id);
        id
    }

    fn copy(&mut self, from: TypeId) -> TypeId {
        let id = self.reserve();
        let mut ty = builtin::table().ty(from).clone();
        for field in &mut ty.fields {
            field.number = 0;
            self.copy_shape(&mut field.ty);
        }
        self.types[id.0 as usize] = ty;
        id
    }

    fn copy_shape(&mut self, shape: &mut FieldType) {
        match shape {
            FieldType::Struct(inner) => *inner = self.copy(*inner),
            FieldType::List(inner) | FieldType::Map(inner) => self.copy_shape(inner),
            _ => {}
        }
    }
}

fn plain(name: &str, ty: FieldType) -> Field {
    Field {
        name: name.into(),
        number: 0,
        ty,
        required: false,
        nullable: false,
        default: None,
        list: ListKind::Atomic,
        map: MapKind::Granular,
        patch: PatchRule::default(),
        rules: None,
        description: 0,
        inline: false,
        proto_optional: true,
    }
}

fn map(node: &Tree) -> MapKind {
    if meta::str_at(node, "x-kubernetes-map-type") == "atomic" { MapKind::Atomic } else { MapKind::Granular }
}

/// What a node demands beyond its type; None where nothing.
fn rules(node: &Tree) -> Option<Box<Rules>> {
    const EXTRA: [&str; 5] = ["allOf", "anyOf", "oneOf", "not", "x-kubernetes-validations"];
    let count = |name: &str| node.get(name).and_then(Tree::as_u64);
    let number = |name: &str| node.get(name).and_then(Tree::as_f64);
    let extra: serde_json::Map<String, Tree> =
        EXTRA.iter().filter_map(|name| Some(((*name).to_owned(), node.get(*name)?.clone()))).collect();
    let below = node.get("items").or_else(|| node.get("additionalProperties"));
    let rules = Rules {
        enumeration: meta::list_at(node, "enum").to_vec(),
        format: meta::str_at(node, "format").into(),
        pattern: meta::str_at(node, "pattern").into(),
        minimum: number("minimum"),
        maximum: number("maximum"),
        exclusive_minimum: meta::bool_at(node, "exclusiveMinimum"),
        exclusive_maximum: meta::bool_at(node, "exclusiveMaximum"),
        multiple_of: number("multipleOf"),
        length_min: count("minLength"),
        length_max: count("maxLength"),
        items_min: count("minItems"),
        items_max: count("maxItems"),
        unique_items: meta::str_at(node, "x-kubernetes-list-type") == "set",
        properties_min: count("minProperties"),
        properties_max: count("maxProperties"),
        extra: (!extra.is_empty()).then(|| Box::new(Tree::Object(extra))),
        items: below.and_then(rules),
        ..Rules::default()
    };
    (!rules.is_none()).then(|| Box::new(rules))
}

impl Rules {
    /// True when nothing is constrained.
    fn is_none(&self) -> bool {
        let numbers = [self.minimum, self.maximum, self.multiple_of];
        let counts = [
            self.length_min,
            self.length_max,
            self.items_min,
            self.items_max,
            self.properties_min,
            self.properties_max,
        ];
        self.enumeration.is_empty()
            && self.format.is_empty()
            && self.pattern.is_empty()
            && numbers.iter().all(Option::is_none)
            && counts.iter().all(Option::is_none)
            && !self.unique_items
            && self.extra.is_none()
            && self.items.is_none()
    }
}
