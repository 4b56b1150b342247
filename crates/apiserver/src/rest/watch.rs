//! WATCH: a cursor into the store's history, turned into frames as the client takes them.
//!
//! There is no queue between store and client: a client that does not read holds a cursor and nothing else, and one that
//! falls behind the history is told 410.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use api::codec::protobuf;
use api::{FieldSelector, LabelSelector, Object, Reason, Status};
use base::{Revision, SmolStr};
use bytes::{Bytes, BytesMut};
use futures::stream;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use prometheus_client::metrics::gauge::Gauge;
use serde_json::json;
use store::{Event, Gone, WatchEvent};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::body::{self, Body, BoxError};
use crate::codec;
use crate::context::Routed;
use crate::limits::{WATCH_FRAME_BYTES_MAX, WATCH_SECONDS_MIN};
use crate::media::{Accept, Encoding, Shape};
use crate::metrics::WatchLabels;
use crate::query::ListOptions;
use crate::rest::read::fresh_enough;
use crate::rest::render::Renderer;
use crate::rest::{fields, list};

/// Annotation of the bookmark that ends the initial events of a streaming list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

pub(super) async fn watch(routed: Routed) -> Result<Response<Body>, Status> {
    let renderer = Renderer::new(&routed, Accept::of_stream(&routed.cx.headers)?)?;
    let options = ListOptions::parse(&routed.cx.query, true)?;
    fields::check(&options.fields, &routed.kind)?;
    let (initial, watch, bookmark) = match start(&routed, &options).await? {
        Some(started) => started,
        None => return Ok(respond(&renderer, gone_stream(&renderer))),
    };
    let store_revision = bookmark;
    let stream = State {
        filter: Filter::new(&routed, &options),
        deadline: Instant::now() + lifetime(&routed, &options),
        draining: routed.cx.shared.draining(),
        open: Open::enter(&routed),
        bookmarks: options.bookmarks,
        first: true,
        ended: false,
        initial: initial.into(),
        initial_end: (options.send_initial == Some(true) && options.bookmarks).then_some(store_revision),
        renderer: renderer.clone(),
        watch,
    };
    Ok(respond(&renderer, body::stream(stream::unfold(stream, State::next))))
}

type Started = (Vec<Arc<Object>>, store::Watch, Revision);

/// The initial objects, if the semantics of the resource version ask for them, and the cursor. `None`: 410.
async fn start(routed: &Routed, options: &ListOptions) -> Result<Option<Started>, Status> {
    let store = &routed.cx.shared.deps.store;
    let storage = &routed.kind.storage;
    let from_now = matches!(options.version, None | Some(Revision::ZERO));
    let initial = options.send_initial.unwrap_or(from_now);
    let listing = ListOptions {
        version: options.version.filter(|_| options.send_initial == Some(true)),
        exact: false,
        limit: None,
        token: String::new(),
        ..options.clone()
    };
    if initial || from_now {
        // Read again if a write between list and watch was already compacted: that needs a history of nothing.
        for _ in 0..base::limits::CONFLICT_RETRIES_MAX {
            let (meta, objects) = list::select(routed, &listing).await?;
            if let Ok(watch) = store.watch(storage, meta.revision) {
                let objects = if initial { objects } else { Vec::new() };
                return Ok(Some((objects, watch, meta.revision)));
            }
        }
        return Ok(None);
    }
    let after = options.version.unwrap_or_default();
    // A revision of the future is waited for like any read of it.
    fresh_enough(routed, Some(after)).await?;
    Ok(store.watch(storage, after).ok().map(|watch| (Vec::new(), watch, after)))
}

fn lifetime(routed: &Routed, options: &ListOptions) -> Duration {
    let chosen = options.timeout_seconds;
    Duration::from_secs(
        chosen.unwrap_or_else(|| WATCH_SECONDS_MIN + routed.cx.shared.deps.rng.next_u64() % WATCH_SECONDS_MIN),
    )
}

fn respond(renderer: &Renderer, body: Body) -> Response<Body> {
    let media_type = match (renderer.accept.encoding, renderer.accept.stream) {
        (Encoding::Protobuf, _) => "application/vnd.kubernetes.protobuf;stream=watch",
        (_, true) => "application/json;stream=watch",
        (_, false) => "application/json",
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

fn gone_stream(renderer: &Renderer) -> Body {
    let mut frame = BytesMut::new();
    put_gone(renderer, &mut frame);
    body::full(frame.freeze())
}

fn put_gone(renderer: &Renderer, frame: &mut BytesMut) {
    let status = Status::new(Reason::Expired, "The resourceVersion for the provided watch is too old.");
    if renderer.accept.encoding == Encoding::Protobuf {
        if let Some(object) = codec::encode_status(Encoding::Protobuf, &status.to_tree()) {
            put_frame(renderer, "ERROR", &object, frame);
        }
        return;
    }
    put_frame(renderer, "ERROR", status.to_tree().to_string().as_bytes(), frame);
}

/// One event around an encoded object.
fn put_frame(renderer: &Renderer, verb: &str, object: &[u8], frame: &mut BytesMut) {
    if renderer.accept.encoding == Encoding::Protobuf {
        frame.extend_from_slice(&protobuf::watch_frame(verb, object));
        return;
    }
    frame.reserve(object.len() + verb.len() + 24);
    frame.extend_from_slice(b"{\"type\":\"");
    frame.extend_from_slice(verb.as_bytes());
    frame.extend_from_slice(b"\",\"object\":");
    frame.extend_from_slice(object.strip_suffix(b"\n").unwrap_or(object));
    frame.extend_from_slice(b"}\n");
}

/// Which objects a watch is about.
struct Filter {
    namespace: SmolStr,
    name: SmolStr,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Filter {
    fn new(routed: &Routed, options: &ListOptions) -> Filter {
        Filter {
            namespace: routed.target.object_namespace().into(),
            name: routed.target.name.clone(),
            labels: options.labels.clone(),
            fields: options.fields.clone(),
        }
    }

    /// What keys alone decide: an object never changes its key.
    fn covers(&self, key: &api::Key) -> bool {
        (self.namespace.is_empty() || key.namespace == self.namespace)
            && (self.name.is_empty() || key.name == self.name)
    }

    fn selects_all(&self) -> bool {
        self.labels.is_empty() && self.fields.terms.is_empty()
    }

    fn accepts(&self, object: &Object) -> bool {
        self.labels.matches(&object.header.labels) && fields::matches(&self.fields, object)
    }

    /// The event as a watcher with this selector sees it: an object that begins or ceases to match is added or deleted.
    fn seen<'a>(&self, event: &'a Event) -> Option<(&'static str, &'a Arc<Object>)> {
        let all = self.selects_all();
        let before = event.prev.as_ref().is_some_and(|prev| all || self.accepts(prev));
        let after = event.next.as_ref().is_some_and(|next| all || self.accepts(next));
        match (before, after) {
            (false, true) => Some(("ADDED", event.next.as_ref()?)),
            (true, true) => Some(("MODIFIED", event.next.as_ref()?)),
            (true, false) => Some(("DELETED", event.former()?)),
            (false, false) => None,
        }
    }
}

/// An open watch.
struct State {
    watch: store::Watch,
    filter: Filter,
    renderer: Renderer,
    initial: VecDeque<Arc<Object>>,
    /// The revision of the bookmark owed after the initial events.
    initial_end: Option<Revision>,
    bookmarks: bool,
    deadline: Instant,
    draining: watch::Receiver<bool>,
    /// Before the first Table: it brings the columns.
    first: bool,
    ended: bool,
    open: Open,
}

impl State {
    /// The next chunk of the body.
    async fn next(mut self) -> Option<(Result<Bytes, BoxError>, State)> {
        if self.ended {
            return None;
        }
        let mut frame = BytesMut::new();
        if let Err(status) = self.put_initial(&mut frame) {
            return self.fail(&status, frame);
        }
        while frame.is_empty() {
            let event = tokio::select! { biased;
                event = self.watch.next() => event,
                () = tokio::time::sleep_until(self.deadline) => return None,
                _ = self.draining.wait_for(|draining| *draining) => return None,
            };
            if let Err(status) = self.put(event, &mut frame) {
                return self.fail(&status, frame);
            }
            self.put_ready(&mut frame);
            if Instant::now() >= self.deadline {
                self.ended = true;
                break;
            }
        }
        Some((Ok(frame.freeze()), self))
    }

    fn fail(mut self, status: &Status, mut frame: BytesMut) -> Option<(Result<Bytes, BoxError>, State)> {
        put_frame(&self.renderer, "ERROR", status.to_tree().to_string().as_bytes(), &mut frame);
        self.ended = true;
        Some((Ok(frame.freeze()), self))
    }

    fn put_initial(&mut self, frame: &mut BytesMut) -> Result<(), Status> {
        while frame.len() < WATCH_FRAME_BYTES_MAX {
            let Some(object) = self.initial.pop_front() else {
                if let Some(revision) = self.initial_end.take() {
                    self.put_bookmark(revision, true, frame)?;
                }
                break;
            };
            self.put_object("ADDED", &object, frame)?;
        }
        Ok(())
    }

    /// Whatever else is there already goes into the same frame.
    fn put_ready(&mut self, frame: &mut BytesMut) {
        while frame.len() < WATCH_FRAME_BYTES_MAX && !self.ended {
            let ready = match self.watch.try_next() {
                Ok(Some(event)) => Ok(WatchEvent::Change(event)),
                Ok(None) => return,
                Err(gone) => Err(gone),
            };
            if self.put(ready, frame).is_err() {
                self.ended = true;
            }
        }
    }

    fn put(&mut self, event: Result<WatchEvent, Gone>, frame: &mut BytesMut) -> Result<(), Status> {
        match event {
            Ok(WatchEvent::Change(event)) => self.put_change(&event, frame),
            Ok(WatchEvent::Bookmark(revision)) if self.bookmarks => self.put_bookmark(revision, false, frame),
            Ok(WatchEvent::Bookmark(_)) => Ok(()),
            Err(_) => {
                put_gone(&self.renderer, frame);
                self.ended = true;
                Ok(())
            }
        }
    }

    fn put_change(&mut self, event: &Event, frame: &mut BytesMut) -> Result<(), Status> {
        if !self.filter.covers(&event.place.key) {
            return Ok(());
        }
        if self.renderer.is_plain() && self.filter.selects_all() {
            frame.extend_from_slice(&event.frame_json());
            return Ok(());
        }
        match self.filter.seen(event) {
            Some((verb, object)) => {
                let object = object.clone();
                self.put_object(verb, &object, frame)
            }
            None => Ok(()),
        }
    }

    fn put_object(&mut self, verb: &str, object: &Object, frame: &mut BytesMut) -> Result<(), Status> {
        let bytes = self.renderer.event_object(object, self.first)?;
        self.first = false;
        put_frame(&self.renderer, verb, &bytes, frame);
        Ok(())
    }

    fn put_bookmark(&mut self, revision: Revision, initial_end: bool, frame: &mut BytesMut) -> Result<(), Status> {
        let kind = &self.renderer.kind;
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({ INITIAL_EVENTS_END: "true" });
        }
        let object = json!({"kind": kind.gvk.kind, "apiVersion": kind.gvk.api_version(), "metadata": metadata});
        let bytes = match self.renderer.accept.shape {
            Shape::Table => {
                let table = json!({
                    "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                    "columnDefinitions": null, "rows": [],
                });
                codec::encode_plain(Encoding::Json, &table)?
            }
            Shape::Whole | Shape::Partial => self.renderer.tree(object)?,
        };
        put_frame(&self.renderer, "BOOKMARK", &bytes, frame);
        let _ = &self.open;
        Ok(())
    }
}

/// Counts one open watch for as long as it lives.
struct Open(Gauge);

impl Open {
    fn enter(routed: &Routed) -> Open {
        let group = routed.kind.gvk.group.to_string();
        let labels = WatchLabels { group, resource: routed.kind.resource.to_string() };
        let gauge = routed.cx.shared.metrics.watches.get_or_create_owned(&labels);
        gauge.inc();
        Open(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
