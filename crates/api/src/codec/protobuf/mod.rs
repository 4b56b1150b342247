//! Kubernetes' protobuf: trees and wire bytes, driven by the same table as everything else.
//!
//! An object travels as `k8s\0` and a `runtime.Unknown`, which names its kind and holds its message. What JSON writes as
//! text or a bare value (quantities, times, int-or-strings, fields) is a message of its own here: see `leaf`.

mod decode;
mod encode;
mod leaf;
mod schema_props;
pub(crate) mod wire;

use crate::{Gvk, Schema, Tree, meta};

/// What every protobuf object starts with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// A tree that does not fit its schema.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {what}")]
pub struct EncodeError {
    pub path: String,
    pub what: String,
}

/// Bytes that are no object.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    #[error("unexpected end of the message")]
    Short,
    #[error("field {field}: wire type {wire} is not expected")]
    WireType { field: u32, wire: u8 },
    #[error("text is not UTF-8")]
    Text,
    #[error("{what} is out of range")]
    Range { what: &'static str },
    #[error("nested too deeply")]
    Depth,
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    Kind { api_version: String, kind: String },
    #[error("embedded JSON")]
    Json(String),
}

/// The object in its envelope.
///
/// # Errors
/// A tree that does not fit the schema.
pub fn encode(schema: &Schema, gvk: &Gvk, tree: &Tree) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(MAGIC);
    wire::nested(&mut out, 1, |out| {
        wire::text(out, 1, &gvk.api_version());
        wire::text(out, 2, &gvk.kind);
        Ok(())
    })?;
    wire::nested(&mut out, 2, |out| encode::message(out, schema, tree))?;
    wire::text(&mut out, 3, "");
    wire::text(&mut out, 4, "");
    Ok(out)
}

/// The message alone, without an envelope.
///
/// # Errors
/// A tree that does not fit the schema.
pub fn encode_bare(schema: &Schema, tree: &Tree) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(1024);
    encode::message(&mut out, schema, tree)?;
    Ok(out)
}

/// An enveloped object of a kind that `find` knows. The tree names its apiVersion and kind.
///
/// # Errors
/// Bytes that are no envelope, of an unknown kind, or malformed.
pub fn decode(find: impl Fn(&Gvk) -> Option<Schema>, bytes: &[u8]) -> Result<(Gvk, Tree), DecodeError> {
    let envelope = bytes.strip_prefix(MAGIC).ok_or(DecodeError::Magic)?;
    let (mut api_version, mut kind, mut raw) = ("", "", &[][..]);
    for entry in wire::fields(envelope) {
        match entry? {
            (1, wire::Value::Bytes(type_meta)) => {
                for entry in wire::fields(type_meta) {
                    match entry? {
                        (1, value) => api_version = value.text(1)?,
                        (2, value) => kind = value.text(2)?,
                        _ => {}
                    }
                }
            }
            (2, wire::Value::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let unknown = || DecodeError::Kind { api_version: api_version.to_owned(), kind: kind.to_owned() };
    let gvk = Gvk::parse(api_version, kind).ok_or_else(unknown)?;
    let schema = find(&gvk).ok_or_else(unknown)?;
    let mut tree = decode_bare(&schema, raw)?;
    meta::set_gvk(&mut tree, &gvk);
    Ok((gvk, tree))
}

/// A message without an envelope.
///
/// # Errors
/// Malformed bytes.
pub fn decode_bare(schema: &Schema, bytes: &[u8]) -> Result<Tree, DecodeError> {
    decode::message(schema, bytes, 0)
}

/// A watch event in its frame: four bytes of length, then `meta/v1 WatchEvent` around the enveloped object.
pub fn watch_frame(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 4];
    wire::text(&mut out, 1, kind);
    wire::length(&mut out, 2, wire::size_of_bytes(1, object.len()));
    wire::bytes(&mut out, 1, object);
    let length = u32::try_from(out.len() - 4).expect("an object is a few megabytes at most");
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

#[cfg(test)]
mod tests;
