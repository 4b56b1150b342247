//! Reads protobuf numbers, message types and comment markers out of k8s-pb's modules.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::model::{List, Markers};
use crate::shape::Declared;

#[derive(Default)]
pub struct Message {
    pub name: String,
    pub text: String,
    pub atomic: bool,
    /// By folded name (see [`fold`]).
    pub fields: BTreeMap<String, Field>,
}

pub struct Field {
    pub number: u32,
    /// The message type of a singular message field, by its last path segment.
    pub message: Option<String>,
    pub markers: Markers,
}

/// Both sources mangle names in their own way; they agree once case and punctuation are gone.
pub fn fold(name: &str) -> String {
    let name = name.strip_prefix("r#").unwrap_or(name);
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// Messages by folded definition name with dots kept: `io.k8s.api.core.v1.pod`.
pub fn read(root: &Path) -> BTreeMap<String, Message> {
    let mut found = BTreeMap::new();
    visit(root, "io.k8s", &mut found);
    found
}

fn visit(folder: &Path, package: &str, found: &mut BTreeMap<String, Message>) {
    for entry in fs::read_dir(folder).expect("sources are readable") {
        let path = entry.expect("sources are readable").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("source names are UTF-8");
        if path.is_dir() {
            if !name.contains("alpha") && !name.contains("beta") {
                visit(&path, &format!("{package}.{}", name.replace('_', "-")), found);
            }
        } else if name == "mod.rs" {
            let source = fs::read_to_string(&path).expect("sources are readable");
            messages(&source, package, found);
        }
    }
}

fn messages(source: &str, package: &str, found: &mut BTreeMap<String, Message>) {
    let mut comment: Vec<&str> = Vec::new();
    let mut current: Option<Message> = None;
    let mut attribute = String::new();
    let mut declaration = String::new();
    for line in source.lines() {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("///") {
            comment.push(text.strip_prefix(' ').unwrap_or(text));
        } else if let Some(name) = line.strip_prefix("pub struct ").and_then(|rest| rest.split([' ', '{']).next()) {
            let (text, markers) = read_comment(&comment);
            current = Some(Message { name: name.to_owned(), text, atomic: markers.atomic, ..Message::default() });
            comment.clear();
        } else if line.starts_with("#[prost(") || (!attribute.is_empty() && !attribute.ends_with(")]")) {
            attribute.push_str(line);
        } else if line == "}" {
            if let Some(message) = current.take() {
                found.insert(format!("{package}.{}", fold(&message.name)), message);
            }
            comment.clear();
        } else if let Some(message) = current.as_mut().filter(|_| !line.starts_with("#[")) {
            declaration.push_str(line);
            let closed = declaration.matches('<').count() == declaration.matches('>').count();
            if closed && line.ends_with(',') && attribute.ends_with(")]") {
                let (name, field) = field(&attribute, &declaration, &comment);
                message.fields.insert(name, field);
                comment.clear();
                attribute.clear();
                declaration.clear();
            }
        } else if !line.starts_with("#[") {
            comment.clear();
        }
    }
}

fn field(attribute: &str, declaration: &str, comment: &[&str]) -> (String, Field) {
    let number = attribute.split_once("tag = \"").and_then(|(_, rest)| rest.split_once('"'));
    let number = number.and_then(|(digits, _)| digits.parse().ok()).expect("a prost field has a number");
    let (name, ty) = declaration
        .strip_prefix("pub ")
        .and_then(|rest| rest.split_once(':'))
        .unwrap_or_else(|| panic!("{declaration}: a field has a type"));
    let ty = ty.trim_start();
    let singular = attribute.starts_with("#[prost(message, optional");
    let message = singular.then(|| {
        let inner = ty.trim_end_matches([',', '>']).rsplit(['<', ':']).next();
        inner.expect("rsplit yields at least one piece").to_owned()
    });
    let (_, markers) = read_comment(comment);
    (fold(name), Field { number, message, markers })
}

/// The words of a comment without its markers, and the markers.
fn read_comment(comment: &[&str]) -> (String, Markers) {
    let mut markers = Markers::default();
    let mut words: Vec<String> = Vec::new();
    let (mut keys, mut unique_keys) = (Vec::new(), Vec::new());
    let mut internal = false;
    for line in comment {
        // What follows a rule is for upstream's own developers, but for its markers.
        internal |= line.starts_with("---");
        let Some(marker) = line.strip_prefix('+') else {
            if !internal {
                words.push(line.replace("<http", "http").replace('>', ""));
            }
            continue;
        };
        let (name, value) = marker.split_once('=').unwrap_or((marker, ""));
        match (name, value) {
            ("listType", "atomic") => markers.list = Some(List::Atomic),
            ("listType", "set") => markers.list = Some(List::Set),
            ("listType", "map") => markers.list = Some(List::Map(Vec::new())),
            ("listMapKey", key) => keys.push(key.to_owned()),
            ("patchStrategy", strategy) => {
                markers.merge = strategy.contains("merge");
                markers.retain_keys = strategy.contains("retainKeys");
            }
            ("patchMergeKey", key) => key.clone_into(&mut markers.merge_key),
            ("mapType" | "structType", "atomic") => markers.atomic = true,
            // `ref(Constant)` names a constant of Go; those few are facts of ours.
            ("default", value) if !value.starts_with("ref(") => markers.default = Some(value.to_owned()),
            ("k8s:listMapKey", key) => unique_keys.push(key.to_owned()),
            (rule, value) => declared(rule, value, &mut markers.rules),
        }
    }
    // A map key without the list type is left over from elsewhere and means nothing.
    if let Some(List::Map(list)) = &mut markers.list {
        *list = keys;
    }
    if let Some(unique) = &mut markers.rules.unique {
        *unique = unique_keys;
    }
    (words.join(" ").trim().to_owned(), markers)
}

/// Declarative validation. What upstream's markers say beyond this is a function of admission.
fn declared(rule: &str, value: &str, rules: &mut Declared) {
    match (rule, value) {
        ("k8s:required", "") => rules.filled = Some(String::new()),
        ("k8s:maxItems", value) => rules.items_max = value.parse().ok(),
        ("k8s:maxLength", value) => rules.length_max = value.parse().ok(),
        ("k8s:minimum", value) => rules.minimum = value.parse().ok(),
        ("k8s:format", value) => value.clone_into(&mut rules.format),
        ("k8s:unique", "set" | "map") | ("k8s:listType", "set" | "map") => rules.unique = Some(Vec::new()),
        ("k8s:customUnique", "") => rules.unique = None,
        ("k8s:immutable", "") => rules.immutable = true,
        ("k8s:update", "NoModify") => rules.no_modify = true,
        ("k8s:unionMember", "") => rules.union_member = true,
        _ => {}
    }
}
