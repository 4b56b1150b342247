//! OpenAPI documents, made from the table and the registry when asked for.
//!
//! Nothing is kept: a document is written definition by definition into one text. Definitions carry what clients use:
//! kinds, list and patch extensions, defaults, enumerations, texts.

mod definitions;
mod paths;
mod proto;

use std::collections::BTreeMap;

use serde_json::json;

use crate::kind::KindRef;
use crate::{FieldType, Registry, Tree};

use definitions::Definitions;
pub use proto::v2_protobuf;

/// What the two document versions spell differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    V2,
    V3,
}

impl Dialect {
    fn reference(self, name: &str) -> Tree {
        let place = if self == Dialect::V2 { "definitions" } else { "components/schemas" };
        json!({ "$ref": format!("#/{place}/{name}") })
    }
}

/// The one OpenAPI v2 (Swagger) document of everything served, as JSON text.
pub fn v2(registry: &Registry) -> String {
    let mut definitions = Definitions::new(Dialect::V2, registry);
    let mut out = format!("{{\"swagger\":\"2.0\",\"info\":{},\"paths\":", info());
    let mut items = BTreeMap::new();
    for kind in registry.iter() {
        definitions.root(kind);
        items.extend(paths::of(Dialect::V2, kind));
    }
    write_map(&mut out, items.into_iter());
    out.push_str(",\"definitions\":");
    definitions.write(&mut out);
    out.push('}');
    out
}

/// The OpenAPI v3 document of one group and version, as JSON text; None where nothing of it is served.
pub fn v3(registry: &Registry, group: &str, version: &str) -> Option<String> {
    let mine = |kind: &&KindRef| kind.gvk.group == group && kind.gvk.version == version;
    registry.iter().find(mine)?;
    let mut definitions = Definitions::new(Dialect::V3, registry);
    let mut out = format!("{{\"openapi\":\"3.0.0\",\"info\":{},\"paths\":", info());
    let mut items = BTreeMap::new();
    for kind in registry.iter().filter(mine) {
        definitions.root(kind);
        items.extend(paths::of(Dialect::V3, kind));
    }
    write_map(&mut out, items.into_iter());
    out.push_str(",\"components\":{\"schemas\":");
    definitions.write(&mut out);
    out.push_str("}}");
    Some(out)
}

fn info() -> Tree {
    json!({ "title": "Kubernetes", "version": crate::builtin::KUBERNETES_VERSION })
}

fn write_map(out: &mut String, members: impl Iterator<Item = (String, Tree)>) {
    out.push('{');
    for (at, (name, value)) in members.enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&Tree::String(name).to_string());
        out.push(':');
        out.push_str(&value.to_string());
    }
    out.push('}');
}

/// The zero of Go, which upstream's documents give as the default of what is never absent.
pub fn zero(ty: &FieldType) -> Tree {
    match ty {
        FieldType::Bool => json!(false),
        FieldType::Int32 | FieldType::Int64 => json!(0),
        FieldType::Double => json!(0.0),
        _ => json!(""),
    }
}

#[cfg(test)]
mod tests;
