//! Bodies in and out: JSON, YAML and protobuf around the same trees.

use api::codec::{json, protobuf, yaml};
use api::{Gvk, Kind, Registry, Schema, Status, Tree, builtin};
use bytes::Bytes;

use crate::media::Encoding;

/// A request body.
pub(crate) fn decode(encoding: Encoding, registry: &Registry, bytes: &[u8]) -> Result<admit::Body, Status> {
    let unreadable = |error: &dyn std::fmt::Display| {
        Status::bad_request(format!("the object provided is unrecognized: couldn't get version/kind; {error}"))
    };
    match encoding {
        Encoding::Json => {
            let body = json::parse(bytes).map_err(|error| unreadable(&format!("json parse error: {error}")))?;
            Ok(admit::Body { tree: body.tree, duplicates: body.duplicates })
        }
        Encoding::Yaml => {
            let body = yaml::parse_body(bytes).map_err(|error| unreadable(&format!("yaml parse error: {error}")))?;
            Ok(admit::Body { tree: body.tree, duplicates: body.duplicates })
        }
        Encoding::Protobuf => {
            let find = |gvk: &Gvk| schema_of(registry, gvk);
            let (gvk, mut tree) = protobuf::decode(find, bytes).map_err(|error| unreadable(&error))?;
            name_type(&mut tree, &gvk);
            Ok(admit::Body { tree, duplicates: Vec::new() })
        }
    }
}

/// `DeleteOptions`, whose group clients choose as they like.
pub(crate) fn decode_options(encoding: Encoding, registry: &Registry, bytes: &[u8]) -> Result<Tree, Status> {
    decode(encoding, registry, bytes).map(|body| body.tree)
}

fn name_type(tree: &mut Tree, gvk: &Gvk) {
    if let Some(map) = tree.as_object_mut() {
        map.insert("apiVersion".into(), gvk.api_version().into());
        map.insert("kind".into(), gvk.kind.as_str().into());
    }
}

fn schema_of(registry: &Registry, gvk: &Gvk) -> Option<Schema> {
    if let Some(kind) = registry.kind(gvk) {
        return (!kind.custom).then(|| kind.schema.clone());
    }
    builtin::schema_of(&gvk.group, &gvk.version, &gvk.kind).or_else(|| builtin::meta_schema(&gvk.kind))
}

/// An object of a kind. Custom resources have no protobuf form: JSON, as upstream refuses only by negotiation.
pub(crate) fn encode_object(encoding: Encoding, kind: &Kind, tree: &Tree) -> Result<Bytes, Status> {
    encode(encoding, (!kind.custom).then_some(&kind.schema), &kind.gvk, tree)
}

/// A body of a type that is no resource of its own: `Scale`, `TokenRequest`.
pub(crate) fn encode_gvk(encoding: Encoding, gvk: &Gvk, tree: &Tree) -> Result<Bytes, Status> {
    encode(encoding, builtin::schema_of(&gvk.group, &gvk.version, &gvk.kind).as_ref(), gvk, tree)
}

fn encode(encoding: Encoding, schema: Option<&Schema>, gvk: &Gvk, tree: &Tree) -> Result<Bytes, Status> {
    match (encoding, schema) {
        (Encoding::Protobuf, Some(schema)) => {
            let bytes = protobuf::encode(schema, gvk, tree);
            bytes.map(Bytes::from).map_err(|error| Status::internal(format!("protobuf of {}: {error}", gvk.kind)))
        }
        (Encoding::Protobuf, None) => Err(not_acceptable()),
        (Encoding::Json | Encoding::Yaml, _) => encode_plain(encoding, tree),
    }
}

fn not_acceptable() -> Status {
    let message = "only the following media types are accepted: application/json, application/yaml";
    Status::new(api::Reason::NotAcceptable, message)
}

/// JSON or YAML; protobuf has no form for it.
pub(crate) fn encode_plain(encoding: Encoding, tree: &Tree) -> Result<Bytes, Status> {
    match encoding {
        Encoding::Json => {
            let mut text = serde_json::to_vec(tree).map_err(|error| Status::internal(error.to_string()))?;
            text.push(b'\n');
            Ok(text.into())
        }
        Encoding::Yaml => {
            let text = yaml::render(tree).map_err(|error| Status::internal(error.to_string()))?;
            Ok(text.into())
        }
        Encoding::Protobuf => Err(not_acceptable()),
    }
}

pub(crate) fn encode_status(encoding: Encoding, tree: &Tree) -> Option<Bytes> {
    let schema = builtin::meta_schema("Status");
    encode(encoding, schema.as_ref(), &Gvk::new("", "v1", "Status"), tree).ok()
}

pub(crate) fn encode_partial(encoding: Encoding, tree: &Tree) -> Result<Bytes, Status> {
    let gvk = Gvk::new("meta.k8s.io", "v1", "PartialObjectMetadata");
    if encoding == Encoding::Protobuf {
        let message = partial_message(tree)?;
        return Ok(envelope("meta.k8s.io/v1", &gvk.kind, &message));
    }
    encode_plain(encoding, tree)
}

/// A list as a protobuf message of its own making: `metadata = 1`, `items = 2`, for every list kind alike.
pub(crate) fn encode_list(kind: &Kind, meta: Tree, items: impl Iterator<Item = Tree>) -> Result<Bytes, Status> {
    if kind.custom {
        return Err(not_acceptable());
    }
    let mut out = Vec::new();
    put_bytes(&mut out, 1, &list_meta(&meta));
    for item in items {
        put_bytes(&mut out, 2, &message(&kind.schema, &item)?);
    }
    Ok(envelope(&kind.gvk.api_version(), &kind.list_kind, &out))
}

pub(crate) fn encode_partial_list(meta: Tree, items: impl Iterator<Item = Tree>) -> Result<Bytes, Status> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, &list_meta(&meta));
    for item in items {
        put_bytes(&mut out, 2, &partial_message(&item)?);
    }
    Ok(envelope("meta.k8s.io/v1", "PartialObjectMetadataList", &out))
}

fn message(schema: &Schema, tree: &Tree) -> Result<Vec<u8>, Status> {
    protobuf::encode_bare(schema, tree).map_err(|error| Status::internal(format!("protobuf: {error}")))
}

/// `PartialObjectMetadata { metadata = 1 }`.
fn partial_message(tree: &Tree) -> Result<Vec<u8>, Status> {
    let schema = builtin::meta_schema("ObjectMeta").ok_or_else(|| Status::internal("no ObjectMeta"))?;
    let mut out = Vec::new();
    put_bytes(&mut out, 1, &message(&schema, &tree["metadata"])?);
    Ok(out)
}

/// `ListMeta`: selfLink 1, resourceVersion 2, continue 3, remainingItemCount 4. Its strings are written even when empty.
fn list_meta(meta: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, b"");
    put_bytes(&mut out, 2, meta["resourceVersion"].as_str().unwrap_or_default().as_bytes());
    put_bytes(&mut out, 3, meta["continue"].as_str().unwrap_or_default().as_bytes());
    if let Some(remaining) = meta["remainingItemCount"].as_u64() {
        out.push(4 << 3);
        put_varint(&mut out, remaining);
    }
    out
}

/// `k8s\0` and `runtime.Unknown { typeMeta = 1 { apiVersion = 1, kind = 2 }, raw = 2, contentEncoding = 3, contentType = 4 }`.
fn envelope(api_version: &str, kind: &str, message: &[u8]) -> Bytes {
    let mut type_meta = Vec::new();
    put_bytes(&mut type_meta, 1, api_version.as_bytes());
    put_bytes(&mut type_meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(message.len() + type_meta.len() + 32);
    out.extend_from_slice(b"k8s\0");
    put_bytes(&mut out, 1, &type_meta);
    put_bytes(&mut out, 2, message);
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    out.into()
}

fn put_bytes(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
