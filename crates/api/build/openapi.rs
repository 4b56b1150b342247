//! Reads JSON names, types, texts and required fields out of k8s-openapi's schema literals.
//!
//! Every definition is one file: a first line that names it, and a `json_schema!({ .. })` literal that is JSON but for
//! parenthesised expressions, which name another definition by its Rust path.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::model::Shape;

pub struct Definition {
    pub name: String,
    pub text: String,
    pub fields: Vec<Property>,
    pub required: Vec<String>,
    /// `PodList` for a kind that can be listed.
    pub list_kind: Option<String>,
}

pub struct Property {
    pub name: String,
    pub text: String,
    pub shape: Shape,
}

/// A value of the literal.
enum Node {
    Text(String),
    /// A reference and, where it is set, the description beside it.
    Reference(String, Option<String>),
    Object(Vec<(String, Node)>),
    List(Vec<Node>),
    Other,
}

pub fn read(root: &Path) -> BTreeMap<String, Definition> {
    let mut found = BTreeMap::new();
    visit(root, &mut found);
    found
}

fn visit(folder: &Path, found: &mut BTreeMap<String, Definition>) {
    for entry in fs::read_dir(folder).expect("sources are readable") {
        let path = entry.expect("sources are readable").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("source names are UTF-8");
        if path.is_dir() {
            // Only what is generally available is served.
            if !name.contains("alpha") && !name.contains("beta") {
                visit(&path, found);
            }
            continue;
        }
        let source = fs::read_to_string(&path).expect("sources are readable");
        if let Some(definition) = definition(&source) {
            found.insert(definition.name.clone(), definition);
        }
    }
}

fn definition(source: &str) -> Option<Definition> {
    let name = source.strip_prefix("// Generated from definition ")?.lines().next()?.to_owned();
    let start = source.find("json_schema!(")? + "json_schema!(".len();
    let mut scanner = Scanner { source: source.as_bytes(), at: start };
    let Node::Object(members) = scanner.node() else { panic!("{name}: the schema is no object") };
    let mut definition = Definition {
        name,
        text: String::new(),
        fields: Vec::new(),
        required: Vec::new(),
        list_kind: list_kind(source),
    };
    for (key, value) in members {
        match (key.as_str(), value) {
            ("description", Node::Text(text)) => definition.text = text,
            ("properties", Node::Object(properties)) => {
                definition.fields = properties.into_iter().map(|(name, node)| property(name, node)).collect();
            }
            ("required", Node::List(names)) => {
                definition.required = names.into_iter().filter_map(text).collect();
            }
            _ => {}
        }
    }
    Some(definition)
}

fn list_kind(source: &str) -> Option<String> {
    let (_, rest) = source.split_once("const LIST_KIND: &'static str = \"")?;
    rest.split_once('"').map(|(kind, _)| kind.to_owned())
}

fn text(node: Node) -> Option<String> {
    if let Node::Text(text) = node { Some(text) } else { None }
}

fn property(name: String, node: Node) -> Property {
    let mut words = String::new();
    match &node {
        Node::Reference(_, Some(text)) => words.clone_from(text),
        Node::Object(members) => {
            if let Some((_, Node::Text(text))) = members.iter().find(|(key, _)| key == "description") {
                words.clone_from(text);
            }
        }
        _ => {}
    }
    let shape = shape(&node).unwrap_or_else(|| panic!("{name}: a shape that this build does not know"));
    Property { name, text: words, shape }
}

fn shape(node: &Node) -> Option<Shape> {
    let members = match node {
        Node::Reference(path, _) => return Some(reference(path)),
        Node::Object(members) => members,
        _ => return None,
    };
    let member = |name: &str| members.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let word = |name: &str| match member(name) {
        Some(Node::Text(text)) => text.as_str(),
        _ => "",
    };
    match (word("type"), word("format")) {
        ("string", "") => Some(Shape::String),
        ("string", "byte") => Some(Shape::Bytes),
        ("boolean", "") => Some(Shape::Bool),
        ("integer", "int32") => Some(Shape::Int32),
        ("integer", "int64") => Some(Shape::Int64),
        ("number", "double") => Some(Shape::Double),
        ("array", "") => Some(Shape::List(Box::new(shape(member("items")?)?))),
        ("object", "") => Some(Shape::Map(Box::new(shape(member("additionalProperties")?)?))),
        _ => None,
    }
}

/// `crate::api::core::v1::Pod` is `io.k8s.api.core.v1.Pod`.
fn reference(path: &str) -> Shape {
    let path = path.strip_prefix("crate::").expect("references are absolute");
    let name = format!("io.k8s.{}", path.replace("::", "."));
    let name = name
        .replace("apiextensions_apiserver", "apiextensions-apiserver")
        .replace("kube_aggregator", "kube-aggregator");
    match path.rsplit("::").next().unwrap_or(path) {
        "Quantity" => Shape::Quantity,
        "IntOrString" => Shape::IntOrString,
        "Time" => Shape::Time,
        "MicroTime" => Shape::MicroTime,
        "FieldsV1" => Shape::FieldsV1,
        "RawExtension" => Shape::RawExtension,
        "JSON" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray" => Shape::Any,
        _ => Shape::Struct(name),
    }
}

/// Reads the literal from left to right.
struct Scanner<'a> {
    source: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&mut self) -> u8 {
        while self.source[self.at].is_ascii_whitespace() || self.source[self.at] == b',' {
            self.at += 1;
        }
        self.source[self.at]
    }

    fn node(&mut self) -> Node {
        match self.peek() {
            b'"' => Node::Text(self.string()),
            b'{' => self.object(),
            b'[' => self.list(),
            b'(' => self.expression(),
            _ => self.bare(),
        }
    }

    fn object(&mut self) -> Node {
        self.at += 1;
        let mut members = Vec::new();
        while self.peek() != b'}' {
            let key = self.string();
            assert_eq!(self.peek(), b':', "a key is followed by a colon");
            self.at += 1;
            members.push((key, self.node()));
        }
        self.at += 1;
        Node::Object(members)
    }

    fn list(&mut self) -> Node {
        self.at += 1;
        let mut items = Vec::new();
        while self.peek() != b']' {
            items.push(self.node());
        }
        self.at += 1;
        Node::List(items)
    }

    /// A reference without parentheses; or `true` and numbers, which we do not read.
    fn bare(&mut self) -> Node {
        let start = self.at;
        while !matches!(self.source[self.at], b',' | b'\n' | b'}' | b']') {
            self.at += 1;
        }
        self.path(start).map_or(Node::Other, |path| Node::Reference(path, None))
    }

    /// The definition that the code from `start` to here refers to.
    fn path(&self, start: usize) -> Option<String> {
        let code = std::str::from_utf8(&self.source[start..self.at]).expect("sources are UTF-8");
        let (_, rest) = code.split_once("subschema_for::<")?;
        rest.split_once(">()").map(|(path, _)| path.to_owned())
    }

    fn expression(&mut self) -> Node {
        let start = self.at;
        let mut depth = 0usize;
        let mut strings = Vec::new();
        loop {
            match self.source[self.at] {
                b'(' => depth += 1,
                b')' => depth -= 1,
                b'"' => {
                    strings.push(self.string());
                    continue;
                }
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                break;
            }
        }
        let path = self.path(start).expect("an expression refers to a definition");
        let text = strings.iter().position(|word| word == "description").and_then(|at| strings.get(at + 1).cloned());
        Node::Reference(path, text)
    }

    fn string(&mut self) -> String {
        assert_eq!(self.peek(), b'"', "a string");
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            let byte = self.source[self.at];
            self.at += 1;
            match byte {
                b'"' => break,
                b'\\' => self.escape(&mut bytes),
                byte => bytes.push(byte),
            }
        }
        String::from_utf8(bytes).expect("sources are UTF-8")
    }

    fn escape(&mut self, bytes: &mut Vec<u8>) {
        let byte = self.source[self.at];
        self.at += 1;
        match byte {
            b'n' => bytes.push(b'\n'),
            b't' => bytes.push(b'\t'),
            b'r' => bytes.push(b'\r'),
            b'"' | b'\\' | b'\'' => bytes.push(byte),
            b'u' => {
                let rest = std::str::from_utf8(&self.source[self.at + 1..self.at + 8]).expect("an ASCII escape");
                let (hex, _) = rest.split_once('}').expect("an escape is closed");
                let code = u32::from_str_radix(hex, 16).ok().and_then(char::from_u32).expect("a character");
                bytes.extend_from_slice(code.encode_utf8(&mut [0; 4]).as_bytes());
                self.at += hex.len() + 2;
            }
            other => panic!("escape \\{} is not known", char::from(other)),
        }
    }
}
