//! Objects, lists and watch frames in the encoding and shape that was negotiated.
//!
//! Plain JSON copies served bytes. Everything else pays for a tree.

use std::sync::Arc;

use api::convert::{convert, in_form};
use api::kind::KindRef;
use api::{Object, Status, Tree, columns};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;

use crate::codec;
use crate::context::Routed;
use crate::media::{Accept, Encoding, Shape};

/// What a Table row carries beside its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Include {
    Nothing,
    Metadata,
    Whole,
}

/// A negotiated way to write objects of one kind. Cheap to clone.
#[derive(Clone)]
pub(super) struct Renderer {
    pub accept: Accept,
    pub kind: KindRef,
    /// The form that cells are read from: columns of built-in kinds know the stored one alone.
    printed: KindRef,
    include: Include,
    now: Timestamp,
}

/// `metadata` of a list.
#[derive(Clone, Debug, Default)]
pub(super) struct ListMeta {
    pub revision: base::Revision,
    pub token: String,
    pub remaining: Option<usize>,
}

// === impl Renderer ===

impl Renderer {
    pub fn new(routed: &Routed, accept: Accept) -> Result<Renderer, Status> {
        let include = match routed.cx.query.get("includeObject").unwrap_or_default() {
            "" | "Metadata" => Include::Metadata,
            "None" => Include::Nothing,
            "Object" => Include::Whole,
            other => {
                let why = format!("{other:?}: supported values: \"\", \"Metadata\", \"None\", \"Object\"");
                return Err(crate::query::invalid_options("TableOptions", "Unsupported value", "includeObject", &why));
            }
        };
        let (kind, now) = (routed.kind.clone(), routed.cx.shared.deps.clock.now());
        let printed = if kind.custom { kind.clone() } else { routed.cx.registry.stored(&kind).clone() };
        Ok(Renderer { accept, kind, printed, include, now })
    }

    pub fn media_type(&self) -> &'static str {
        self.accept.encoding.media_type()
    }

    /// True where served bytes are the answer.
    pub fn is_plain(&self) -> bool {
        self.accept.shape == Shape::Whole && self.accept.encoding == Encoding::Json && self.kind.is_stored()
    }

    /// One object.
    pub fn document(&self, object: &Object) -> Result<Bytes, Status> {
        if self.is_plain() {
            return Ok(object.bytes.clone());
        }
        let tree = convert(object.tree(), &self.kind);
        self.tree(tree)
    }

    /// One object that exists only as a tree: a dry run's result, the body of a subresource.
    pub fn tree(&self, tree: Tree) -> Result<Bytes, Status> {
        match self.accept.shape {
            Shape::Whole => codec::encode_object(self.accept.encoding, &self.kind, &tree),
            Shape::Partial => codec::encode_partial(self.accept.encoding, &partial(&tree)),
            Shape::Table => {
                let meta = ListMeta::default();
                let table = self.table(&meta, Some(&tree["metadata"]["resourceVersion"]), vec![tree.clone()]);
                codec::encode_plain(self.accept.encoding, &table)
            }
        }
    }

    /// A list in a form that is no concatenation of served bytes.
    pub fn list(&self, meta: &ListMeta, objects: &[Arc<Object>]) -> Result<Bytes, Status> {
        let trees = objects.iter().map(|object| convert(object.tree(), &self.kind));
        match self.accept.shape {
            Shape::Table => {
                let table = self.table(meta, None, trees.collect());
                codec::encode_plain(self.accept.encoding, &table)
            }
            Shape::Whole if self.accept.encoding == Encoding::Protobuf => {
                codec::encode_list(&self.kind, meta.tree(), trees)
            }
            Shape::Whole => {
                let kind = self.kind.list_kind.as_str();
                let list = list_tree(&self.kind.gvk.api_version(), kind, meta, trees.collect());
                codec::encode_plain(self.accept.encoding, &list)
            }
            Shape::Partial if self.accept.encoding == Encoding::Protobuf => {
                codec::encode_partial_list(meta.tree(), trees.map(|tree| partial(&tree)))
            }
            Shape::Partial => {
                let items = trees.map(|tree| partial(&tree)).collect();
                let list = list_tree("meta.k8s.io/v1", "PartialObjectMetadataList", meta, items);
                codec::encode_plain(self.accept.encoding, &list)
            }
        }
    }

    /// The head of a list whose items are served bytes: everything up to `"items":[`.
    pub fn list_head(&self, meta: &ListMeta) -> Bytes {
        let mut head = list_tree(&self.kind.gvk.api_version(), &self.kind.list_kind, meta, Vec::new());
        if let Some(map) = head.as_object_mut() {
            map.remove("items");
        }
        let mut text = head.to_string();
        text.pop();
        text.push_str(",\"items\":[");
        text.into()
    }

    fn table(&self, meta: &ListMeta, revision: Option<&Tree>, objects: Vec<Tree>) -> Tree {
        let columns: Vec<Tree> = self.kind.columns.iter().map(column).collect();
        let rows: Vec<Tree> = objects.into_iter().map(|object| self.row(object)).collect();
        let mut metadata = meta.tree();
        if let Some(revision) = revision {
            metadata = json!({ "resourceVersion": revision });
        }
        json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
            "columnDefinitions": columns, "rows": rows,
        })
    }

    fn row(&self, object: Tree) -> Tree {
        let cells = columns::cells(&self.printed, &in_form(&object, &self.printed), self.now);
        let mut row = json!({ "cells": cells });
        match self.include {
            Include::Nothing => {}
            Include::Metadata => row["object"] = partial(&object),
            Include::Whole => row["object"] = object,
        }
        row
    }

    /// The object of a watch event. `first` events of a Table watch bring the columns.
    pub fn event_object(&self, object: &Object, first: bool) -> Result<Bytes, Status> {
        if self.accept.shape != Shape::Table {
            return self.document(object);
        }
        let tree = convert(object.tree(), &self.kind);
        let mut table =
            self.table(&ListMeta::default(), Some(&tree["metadata"]["resourceVersion"]), vec![tree.clone()]);
        if !first {
            table["columnDefinitions"] = Tree::Null;
        }
        codec::encode_plain(Encoding::Json, &table)
    }
}

impl ListMeta {
    pub fn tree(&self) -> Tree {
        let mut tree = json!({"resourceVersion": self.revision.to_string()});
        if !self.token.is_empty() {
            tree["continue"] = json!(self.token);
        }
        if let Some(remaining) = self.remaining {
            tree["remainingItemCount"] = json!(remaining);
        }
        tree
    }
}

fn list_tree(api_version: &str, kind: &str, meta: &ListMeta, items: Vec<Tree>) -> Tree {
    json!({"kind": kind, "apiVersion": api_version, "metadata": meta.tree(), "items": items})
}

/// `PartialObjectMetadata` of an object.
pub(super) fn partial(object: &Tree) -> Tree {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

fn column(column: &api::Column) -> Tree {
    json!({
        "name": column.name, "type": column.r#type, "format": column.format,
        "description": column.description, "priority": column.priority,
    })
}
