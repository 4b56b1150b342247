//! One page of a LIST: objects as bytes of their own, so that none keeps the whole answer alive.

use std::sync::Arc;

use api::Object;
use base::Revision;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ClientError;

/// Part of a collection at one revision.
#[derive(Clone, Debug, Default)]
pub struct ListPage {
    pub revision: Revision,
    pub items: Vec<Arc<Object>>,
    /// Continues the list at the same revision; None on the last page.
    pub more: Option<String>,
}

#[derive(Deserialize)]
struct Wire<'a> {
    metadata: Meta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    r#continue: String,
}

impl ListPage {
    pub fn parse(body: &[u8]) -> Result<ListPage, ClientError> {
        let wire: Wire<'_> = serde_json::from_slice(body).map_err(ClientError::decode)?;
        let revision = wire.metadata.resource_version.parse().map_err(ClientError::decode)?;
        let mut items = Vec::new();
        for raw in wire.items.unwrap_or_default() {
            let object = Object::parse(Bytes::copy_from_slice(raw.get().as_bytes())).map_err(ClientError::decode)?;
            items.push(Arc::new(object));
        }
        let more = Some(wire.metadata.r#continue).filter(|token| !token.is_empty());
        Ok(ListPage { revision, items, more })
    }
}
