//! The media types of the walk, and the little of protobuf that a test can say without a schema.

use anyhow::{Context, bail, ensure};
use serde_json::Value;

pub const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// What a protobuf body starts with.
pub const MAGIC: &[u8] = b"k8s\0";
/// `DeleteOptions{gracePeriodSeconds: 0}` in its envelope: type meta (apiVersion, kind), then the message.
const DELETE_NOW: &[u8] = b"k8s\0\x0a\x13\x0a\x02v1\x12\x0dDeleteOptions\x12\x02\x08\x00";

/// How bodies are written, both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    Json,
    Yaml,
    Protobuf,
}

// === impl Media ===

impl Media {
    pub const ALL: [Media; 3] = [Media::Json, Media::Yaml, Media::Protobuf];

    pub fn name(self) -> &'static str {
        match self {
            Media::Json => JSON,
            Media::Yaml => YAML,
            Media::Protobuf => PROTOBUF,
        }
    }

    /// The walk's number: its objects' names are made of it.
    pub fn tag(self) -> u8 {
        match self {
            Media::Json => 1,
            Media::Yaml => 2,
            Media::Protobuf => 3,
        }
    }

    /// The shapes of a read in this encoding. Tables have no protobuf form.
    pub fn shapes(self) -> &'static [&'static str] {
        match self {
            Media::Json | Media::Yaml => &["Table", "PartialObjectMetadata"],
            Media::Protobuf => &["PartialObjectMetadata"],
        }
    }

    /// `Accept` for a shape of a read.
    pub fn of_shape(self, shape: &str) -> String {
        format!("{};as={shape};v=v1;g=meta.k8s.io", self.name())
    }

    /// The tree of a body; None for protobuf, of which only the frame is checked.
    pub fn decode(self, body: &[u8]) -> anyhow::Result<Option<Value>> {
        match self {
            Media::Json => serde_json::from_slice(body).map(Some).context("read JSON"),
            Media::Yaml => {
                ensure!(!body.starts_with(b"{"), "YAML is written as JSON");
                serde_saphyr::from_slice(body).map(Some).context("read YAML")
            }
            Media::Protobuf => {
                ensure!(body.starts_with(MAGIC), "no protobuf but {}", String::from_utf8_lossy(body));
                Ok(None)
            }
        }
    }

    /// A body that asks for a deletion at once.
    pub fn delete_now(self) -> &'static [u8] {
        match self {
            Media::Json => br#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0}"#,
            Media::Yaml => b"kind: DeleteOptions\napiVersion: v1\ngracePeriodSeconds: 0\n",
            Media::Protobuf => DELETE_NOW,
        }
    }
}

/// The complete events at the front of a watch's bytes, each as its type and the rest; what is left stays.
pub fn events(media: Media, bytes: &mut Vec<u8>) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    while let Some(frame) = frame(media, bytes) {
        if media == Media::Protobuf {
            // WatchEvent { type: 1, object: 2 }, both length-delimited; types are shorter than 128 bytes.
            let [0x0a, length, rest @ ..] = frame.as_slice() else { bail!("no watch event: {frame:02x?}") };
            let (kind, object) = rest.split_at_checked(usize::from(*length)).context("the event is cut")?;
            found.push((String::from_utf8_lossy(kind).into_owned(), object.to_vec()));
        } else {
            let event: Value = serde_json::from_slice(&frame).context("read a watch event")?;
            let kind = event["type"].as_str().context("an event without a type")?.to_owned();
            found.push((kind, event["object"].to_string().into_bytes()));
        }
    }
    Ok(found)
}

/// One frame: a line of JSON, or a length in four bytes and as much protobuf.
fn frame(media: Media, bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    if media == Media::Protobuf {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let frame = rest.get(..length)?.to_vec();
        bytes.drain(..4 + length);
        return Some(frame);
    }
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some(bytes.drain(..=end).collect())
}

pub fn holds(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

/// Whether every field of `wanted` is in `found` with the same value. Lists are compared by position.
pub fn within(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            wanted.iter().all(|(key, value)| found.get(key).is_some_and(|found| within(value, found)))
        }
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.len() == found.len() && wanted.iter().zip(found).all(|(wanted, found)| within(wanted, found))
        }
        (wanted, found) => wanted == found,
    }
}
