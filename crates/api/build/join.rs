//! Joins both sources and our facts into one model: JSON decides what exists, protobuf and comments how it is kept.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::Facts;
use crate::model::{Field, List, Markers, Model, Shape, Type};
use crate::openapi::{Definition, Property};
use crate::proto::{Message, fold};

/// Definitions that are a leaf for us, or no object at all.
const LEAVES: [&str; 12] = [
    "io.k8s.List",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
    "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
];

/// Never spoken in protobuf.
const JSON_ONLY: [&str; 1] = ["io.k8s.apimachinery.pkg.version.Info"];

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const API_VERSION_TEXT: &str = "The schema version of this object, as group/version.";
const KIND_TEXT: &str = "The kind of this object, in CamelCase.";

pub fn join(definitions: &BTreeMap<String, Definition>, messages: &BTreeMap<String, Message>, facts: &Facts) -> Model {
    let mut join = Join { definitions, messages, facts, types: BTreeMap::new() };
    for definition in definitions.values().filter(|definition| !LEAVES.contains(&definition.name.as_str())) {
        join.definition(definition);
        if let Some(list_kind) = &definition.list_kind {
            join.list(definition, list_kind);
        }
    }
    let places = |ty: &Type| ty.fields.iter().map(|field| (ty.name.clone(), field.name.clone())).collect::<Vec<_>>();
    facts.assert_used(&join.types.values().flat_map(places).collect());
    Model { types: join.types.into_values().collect() }
}

struct Join<'a> {
    definitions: &'a BTreeMap<String, Definition>,
    messages: &'a BTreeMap<String, Message>,
    facts: &'a Facts,
    types: BTreeMap<String, Type>,
}

impl Join<'_> {
    fn message(&self, name: &str) -> Option<&Message> {
        let (package, name) = name.rsplit_once('.')?;
        self.messages.get(&format!("{package}.{}", fold(name)))
    }

    fn definition(&mut self, definition: &Definition) {
        let fields = self.fields(&definition.name, &definition.fields, &definition.required);
        let message = self.message(&definition.name);
        let atomic = message.is_some_and(|message| message.atomic);
        let ty = Type { name: definition.name.clone(), text: definition.text.clone(), atomic, fields };
        self.types.insert(ty.name.clone(), ty);
    }

    /// The fields of a type: those its message has, then one inlined struct for each group of the others.
    fn fields(&mut self, name: &str, properties: &[Property], required: &[String]) -> Vec<Field> {
        let message = self.message(name);
        let direct = |property: &Property| message.is_some_and(|m| m.fields.contains_key(&fold(&property.name)));
        let mut fields = Vec::new();
        let mut rest: BTreeMap<String, &Property> = BTreeMap::new();
        for property in properties {
            if direct(property) || self.facts.has(name, "number", &property.name) {
                fields.push(self.field(name, message, property, required));
            } else if matches!(property.name.as_str(), "apiVersion" | "kind") || JSON_ONLY.contains(&name) {
                fields.push(plain(&property.name, 0, property.shape.clone(), &property.text));
            } else {
                rest.insert(fold(&property.name), property);
            }
        }
        for (number, inner) in self.inlined(name, message, properties) {
            fields.push(self.inline(&inner, number, &mut rest, required));
        }
        assert!(rest.is_empty(), "{name}: no protobuf number for {:?}", rest.keys().collect::<Vec<_>>());
        fields.sort_by(|left, right| (&left.name, left.number).cmp(&(&right.name, right.number)));
        fields
    }

    /// Singular message fields that JSON does not know by name: Go inlines their structs.
    fn inlined(&self, name: &str, message: Option<&Message>, properties: &[Property]) -> Vec<(u32, String)> {
        let known: BTreeSet<String> = properties.iter().map(|property| fold(&property.name)).collect();
        let package = name.rsplit_once('.').map_or("", |(package, _)| package);
        let mut found = Vec::new();
        for (folded, field) in message.into_iter().flat_map(|message| &message.fields) {
            let Some(inner) = field.message.as_ref().filter(|_| !known.contains(folded)) else { continue };
            let inner = self.spelt(&format!("{package}.{inner}"));
            // A message that was replaced since shares no field with what JSON has.
            if self.reaches(&inner, &known) {
                found.push((field.number, inner));
            }
        }
        found
    }

    fn reaches(&self, name: &str, known: &BTreeSet<String>) -> bool {
        let Some(message) = self.message(name) else { return false };
        let package = name.rsplit_once('.').map_or("", |(package, _)| package);
        let deeper = |inner: &String| self.reaches(&self.spelt(&format!("{package}.{inner}")), known);
        message
            .fields
            .iter()
            .all(|(folded, field)| known.contains(folded) || field.message.as_ref().is_some_and(deeper))
    }

    /// The description's spelling of a name, where prost has changed its case.
    fn spelt(&self, name: &str) -> String {
        let folded = name.to_ascii_lowercase();
        let same = self.definitions.keys().find(|known| known.to_ascii_lowercase() == folded);
        same.cloned().unwrap_or_else(|| name.to_owned())
    }

    fn inline(
        &mut self,
        inner: &str,
        number: u32,
        rest: &mut BTreeMap<String, &Property>,
        required: &[String],
    ) -> Field {
        let (package, _) = inner.rsplit_once('.').expect("a definition has a package");
        let mut stack: Vec<&Message> = self.message(inner).into_iter().collect();
        let mut mine = Vec::new();
        while let Some(message) = stack.pop() {
            for (folded, field) in &message.fields {
                if let Some(property) = rest.remove(folded) {
                    mine.push(Property {
                        name: property.name.clone(),
                        text: property.text.clone(),
                        shape: property.shape.clone(),
                    });
                } else if let Some(next) = &field.message {
                    stack.extend(self.message(&format!("{package}.{next}")));
                }
            }
        }
        if !self.definitions.contains_key(inner) && !self.types.contains_key(inner) {
            let fields = self.fields(inner, &mine, required);
            let message = self.message(inner).expect("an inlined struct was found as a message");
            let ty = Type { name: inner.to_owned(), text: message.text.clone(), atomic: message.atomic, fields };
            self.types.insert(inner.to_owned(), ty);
        }
        Field { inline: true, ..plain("", number, Shape::Struct(inner.to_owned()), "") }
    }

    fn field(&self, ty: &str, message: Option<&Message>, property: &Property, required: &[String]) -> Field {
        let wire = message.and_then(|message| message.fields.get(&fold(&property.name)));
        let name = &property.name;
        let told = |fact: &str| self.facts.value(ty, fact, name);
        let number = told("number").map(|digits| digits.parse().expect("a number is decimal"));
        let number = number.or(wire.map(|wire| wire.number)).expect("told or read: checked by the caller");
        let mut markers = wire.map_or_else(Markers::default, |wire| wire.markers.clone());
        self.tell(ty, name, &mut markers);
        let mut shape = property.shape.clone();
        if shape == Shape::String && wire.is_some_and(|wire| wire.message.as_deref() == Some("Duration")) {
            shape = Shape::Duration;
        }
        // The source calls every object's metadata required, which upstream does not.
        let metadata = property.shape == Shape::Struct(OBJECT_META.to_owned());
        let required = required.contains(name) && told("optional").is_none() && !metadata || told("required").is_some();
        let scalar = matches!(shape, Shape::String | Shape::Bool | Shape::Int32 | Shape::Int64 | Shape::Double);
        let keeps_zero = scalar && (required || told("pointer").is_some() || told("keep").is_some());
        Field {
            name: name.clone(),
            number,
            shape,
            required,
            inline: false,
            keeps_zero,
            text: property.text.clone(),
            markers,
        }
    }

    /// Our facts go over what comments say.
    fn tell(&self, ty: &str, field: &str, markers: &mut Markers) {
        let told = |fact: &str| self.facts.value(ty, fact, field);
        if told("value").is_some() {
            markers.default = Some("{}".to_owned());
        }
        if let Some(default) = told("default") {
            markers.default = Some(default.to_owned());
        }
        if let Some(values) = told("enum") {
            markers.rules.enumeration = serde_json::from_str(values).expect("an enumeration is a JSON list");
        }
        if let Some(words) = told("filled") {
            let words =
                if words.is_empty() { String::new() } else { serde_json::from_str(words).expect("a JSON text") };
            markers.rules.filled = Some(words);
        }
        if let Some(merge_key) = told("patch") {
            markers.merge = true;
            merge_key.clone_into(&mut markers.merge_key);
        }
        match told("list") {
            None => {}
            Some(r#""set""#) => markers.list = Some(List::Set),
            Some(keys) => {
                let keys = serde_json::from_str(keys).expect("list keys are a JSON list");
                markers.list = Some(List::Map(keys));
            }
        }
    }

    /// The collection of a kind; JSON's source has one generic type for all.
    fn list(&mut self, of: &Definition, list_kind: &str) {
        let (package, kind) = of.name.rsplit_once('.').expect("a definition has a package");
        let name = format!("{package}.{list_kind}");
        let text = self.message(&name).map(|message| message.text.clone());
        let text = text.unwrap_or_else(|| format!("{list_kind} is a collection of {kind}."));
        let items = Shape::List(Box::new(Shape::Struct(of.name.clone())));
        let mut items = Field { required: true, ..plain("items", 2, items, "The objects of this page.") };
        items.markers.list = None;
        let mut metadata =
            plain("metadata", 1, Shape::Struct(LIST_META.to_owned()), "Where this page stands in its list.");
        metadata.markers.default = Some("{}".to_owned());
        let fields = vec![
            plain("apiVersion", 0, Shape::String, API_VERSION_TEXT),
            items,
            plain("kind", 0, Shape::String, KIND_TEXT),
            metadata,
        ];
        self.types.insert(name.clone(), Type { name, text, atomic: false, fields });
    }
}

fn plain(name: &str, number: u32, shape: Shape, text: &str) -> Field {
    Field {
        name: name.to_owned(),
        number,
        shape,
        required: false,
        inline: false,
        keeps_zero: false,
        text: text.to_owned(),
        markers: Markers::default(),
    }
}
