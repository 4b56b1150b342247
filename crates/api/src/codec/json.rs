//! JSON into a tree, with what a tree cannot hold: the paths of duplicate keys.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number};

use crate::Tree;

/// A document and the paths, as `spec.containers[0].name`, of keys that it has twice. The last value counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    pub tree: Tree,
    pub duplicates: Vec<String>,
}

/// Bytes that are no JSON document, or one too deep.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct JsonError(#[from] serde_json::Error);

/// Duplicate paths that are told; a document of nothing else must not become a list of its own size.
const DUPLICATES_MAX: usize = 64;

/// Parses one document and nothing after it. Integers stay integers; nesting is bounded by the parser at 128 levels.
///
/// # Errors
/// Malformed or too deeply nested text.
pub fn parse(bytes: &[u8]) -> Result<Parsed, JsonError> {
    Ok(serde_json::from_slice(bytes)?)
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Parsed, D::Error> {
        let mut context = Context { path: String::new(), duplicates: Vec::new(), depth: 0 };
        let tree = Node(&mut context).deserialize(deserializer)?;
        Ok(Parsed { tree, duplicates: context.duplicates })
    }
}

struct Context {
    path: String,
    duplicates: Vec<String>,
    depth: usize,
}

struct Node<'a>(&'a mut Context);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Context {
    fn deeper<E: Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        if self.depth > base::limits::NESTING_DEPTH_MAX {
            return Err(E::custom(format_args!("nested more than {} levels deep", base::limits::NESTING_DEPTH_MAX)));
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Tree, E> {
        // JSON has no such number; YAML spells it `.nan` and `.inf`.
        Number::from_f64(value).map(Tree::Number).ok_or_else(|| E::custom(format_args!("unsupported value: {value}")))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let context = self.0;
        context.deeper()?;
        let mut items = Vec::new();
        let end = context.path.len();
        loop {
            fmt::Write::write_fmt(&mut context.path, format_args!("[{}]", items.len())).map_err(Error::custom)?;
            let item = access.next_element_seed(Node(context))?;
            context.path.truncate(end);
            match item {
                Some(item) => items.push(item),
                None => break,
            }
        }
        context.depth -= 1;
        Ok(Tree::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let context = self.0;
        context.deeper()?;
        let mut members = Map::new();
        let end = context.path.len();
        while let Some(key) = access.next_key::<String>()? {
            if end > 0 {
                context.path.push('.');
            }
            context.path.push_str(&key);
            let value = access.next_value_seed(Node(context))?;
            if members.insert(key, value).is_some()
                && context.duplicates.len() < DUPLICATES_MAX
                && !context.duplicates.contains(&context.path)
            {
                let path = context.path.clone();
                context.duplicates.push(path);
            }
            context.path.truncate(end);
        }
        context.depth -= 1;
        Ok(Tree::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use serde_json::json;

    #[test]
    fn keeps_numbers_and_tells_duplicates() {
        let text = r#"{"a":1,"f":1.0,"big":9223372036854775807,"l":[{"x":1,"x":2}],"a":3,"a":4}"#;
        let parsed = parse(text.as_bytes()).unwrap();
        assert_eq!(parsed.tree, json!({"a": 4, "f": 1.0, "big": i64::MAX, "l": [{"x": 2}]}));
        assert!(parsed.tree["f"].is_f64() && parsed.tree["a"].is_i64());
        assert_eq!(parsed.duplicates, ["l[0].x", "a"]);
    }

    #[test]
    fn bounds_what_it_reads() {
        let deep = "[".repeat(100_000);
        assert!(parse(deep.as_bytes()).is_err());
        for bad in ["", "{", "{}x", "nul", "[1,]", "{\"a\":NaN}", "\u{0}"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
