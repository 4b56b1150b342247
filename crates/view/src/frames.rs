//! A watch's byte stream cut into lines, and the lines read as events.

use std::sync::Arc;

use api::{Object, Status};
use base::Revision;
use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ClientError;
use crate::error::status_of;

/// Longest line a watch may send: the largest object, its envelope and its escapes.
pub const FRAME_BYTES_MAX: usize = 2 * base::limits::OBJECT_BYTES_MAX;

/// One event of a watch.
#[derive(Clone, Debug)]
pub enum Frame {
    /// ADDED or MODIFIED: for a cache they are the same news.
    Put(Arc<Object>),
    Deleted(Arc<Object>),
    Bookmark(Revision),
    Error(Status),
}

/// Collects bytes until a line is whole.
#[derive(Debug, Default)]
pub struct Frames {
    rest: BytesMut,
}

#[derive(Deserialize)]
struct Wire<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

// === impl Frames ===

impl Frames {
    /// Adds what arrived and returns the events that are whole now.
    ///
    /// # Errors
    /// A line that is no event, or one longer than [`FRAME_BYTES_MAX`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, ClientError> {
        let mut searched = self.rest.len();
        self.rest.extend_from_slice(bytes);
        let mut frames = Vec::new();
        while let Some(at) = self.rest[searched..].iter().position(|byte| *byte == b'\n') {
            let line = self.rest.split_to(searched + at + 1);
            searched = 0;
            if let Some(frame) = parse(line.trim_ascii())? {
                frames.push(frame);
            }
        }
        if self.rest.len() > FRAME_BYTES_MAX {
            return Err(ClientError::TooLarge { limit: FRAME_BYTES_MAX });
        }
        Ok(frames)
    }
}

fn parse(line: &[u8]) -> Result<Option<Frame>, ClientError> {
    if line.is_empty() {
        return Ok(None);
    }
    let wire: Wire<'_> = serde_json::from_slice(line).map_err(ClientError::decode)?;
    let bytes = wire.object.get().as_bytes();
    let object = || Object::parse(Bytes::copy_from_slice(bytes)).map_err(ClientError::decode);
    let frame = match wire.r#type {
        "ADDED" | "MODIFIED" => Frame::Put(Arc::new(object()?)),
        "DELETED" => Frame::Deleted(Arc::new(object()?)),
        "BOOKMARK" => Frame::Bookmark(object()?.revision),
        "ERROR" => Frame::Error(status_of(500, bytes)),
        other => return Err(ClientError::decode(format!("unknown watch event type {other:?}"))),
    };
    Ok(Some(frame))
}

#[cfg(test)]
mod tests {
    use super::{Frame, Frames};

    #[test]
    fn lines_may_arrive_in_any_pieces() {
        let text = concat!(
            r#"{"type":"ADDED","object":{"metadata":{"name":"a","namespace":"n","resourceVersion":"5"}}}"#,
            "\n",
            r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}"#,
            "\n",
            r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}"#,
            "\n",
        );
        for size in [1, 7, 64, text.len()] {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                for frame in frames.push(chunk).unwrap() {
                    seen.push(match frame {
                        Frame::Put(object) => format!("put {} @{}", object.key, object.revision),
                        Frame::Deleted(object) => format!("deleted {}", object.key),
                        Frame::Bookmark(revision) => format!("bookmark {revision}"),
                        Frame::Error(status) => format!("error {}", status.code),
                    });
                }
            }
            assert_eq!(seen, ["put n/a @5", "bookmark 9", "error 410"], "pieces of {size}");
        }
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(Frames::default().push(b"<html>\n").is_err());
    }
}
