//! An API server for tests: objects in memory, one line of revisions, and faults on request.
//!
//! It does what loops rely on (create, read, merge patches, deletion, lists, watches with bookmarks, 410) and nothing
//! of admission. Faults: replies that are lost after the write happened, refusals, streams held back, history dropped.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use api::{Gvr, Key, Reason, Status, Tree};
use async_trait::async_trait;
use base::{Revision, SmolStr};
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::json;
use tokio::sync::watch;

use crate::{Client, ClientError, ResponseBody, Transport, full_body};

/// A handle; clones share the same server.
#[derive(Clone)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
    moved: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    revision: u64,
    compacted: u64,
    objects: BTreeMap<(Gvr, Key), Tree>,
    history: Vec<Entry>,
    writes: Vec<String>,
    /// The resource of each write that was made in a term, and the term.
    terms: Vec<(String, String)>,
    faults: VecDeque<Fault>,
    held: BTreeSet<Gvr>,
    uids: u64,
}

struct Entry {
    revision: u64,
    gvr: Gvr,
    verb: &'static str,
    object: Tree,
}

/// What happens to the next write.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It takes effect, and the caller never hears of it.
    LoseReply,
    /// It is refused.
    Refuse(Status),
}

struct Target {
    gvr: Gvr,
    key: Key,
    subresource: Option<String>,
    query: String,
}

// === impl FakeApi ===

impl Default for FakeApi {
    fn default() -> Self {
        FakeApi { state: Arc::default(), moved: watch::Sender::new(0) }
    }
}

impl FakeApi {
    pub fn new() -> FakeApi {
        FakeApi::default()
    }

    pub fn client(&self) -> Client {
        Client::new(Arc::new(self.clone()), "test/0")
    }

    /// Puts an object as if somebody else had written it. `metadata.name` must be set.
    pub fn put(&self, gvr: &Gvr, object: Tree) -> Revision {
        let mut state = self.lock();
        let key = key_of(&object);
        let place = (gvr.clone(), key);
        let verb = if state.objects.contains_key(&place) { "MODIFIED" } else { "ADDED" };
        let revision = state.write(place, verb, object);
        drop(state);
        self.wake();
        Revision(revision)
    }

    pub fn remove(&self, gvr: &Gvr, key: &Key) {
        let mut state = self.lock();
        if let Some(object) = state.objects.get(&(gvr.clone(), key.clone())).cloned() {
            state.write((gvr.clone(), key.clone()), "DELETED", object);
        }
        drop(state);
        self.wake();
    }

    pub fn get(&self, gvr: &Gvr, key: &Key) -> Option<Tree> {
        self.lock().objects.get(&(gvr.clone(), key.clone())).cloned()
    }

    pub fn list(&self, gvr: &Gvr) -> Vec<Tree> {
        let state = self.lock();
        state.objects.iter().filter(|((have, _), _)| have == gvr).map(|(_, object)| object.clone()).collect()
    }

    /// Writes that came through the client, as `POST pods n/a`, in order.
    pub fn writes(&self) -> Vec<String> {
        self.lock().writes.clone()
    }

    /// The terms that writes to a resource were made in, in order.
    pub fn terms(&self, resource: &str) -> Vec<String> {
        let state = self.lock();
        state.terms.iter().filter(|(of, _)| of == resource).map(|(_, term)| term.clone()).collect()
    }

    /// Adds faults for the writes to come, one each.
    pub fn inject(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().faults.extend(faults);
    }

    /// Keeps the events of one kind back until [`FakeApi::release`]: streams at different revisions.
    pub fn hold(&self, gvr: &Gvr) {
        self.lock().held.insert(gvr.clone());
    }

    pub fn release(&self, gvr: &Gvr) {
        self.lock().held.remove(gvr);
        self.wake();
    }

    /// Forgets all history: watches from before are answered 410 Gone.
    pub fn compact(&self) {
        let mut state = self.lock();
        state.compacted = state.revision;
        state.history.clear();
        drop(state);
        self.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn wake(&self) {
        self.moved.send_modify(|count| *count += 1);
    }

    fn watch(&self, target: &Target) -> Response<ResponseBody> {
        let from = parameter(&target.query, "resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
        if from < self.lock().compacted {
            return answer(Err(Status::new(Reason::Expired, "too old resource version")));
        }
        let (server, gvr, namespace) = (self.clone(), target.gvr.clone(), target.key.namespace.clone());
        let stream = futures::stream::unfold((from, self.moved.subscribe()), move |(after, mut moved)| {
            let (server, gvr, namespace) = (server.clone(), gvr.clone(), namespace.clone());
            async move {
                loop {
                    moved.mark_unchanged();
                    if let Some((line, after)) = server.lines(&gvr, &namespace, after) {
                        return Some((line, (after, moved)));
                    }
                    moved.changed().await.ok()?;
                }
            }
        });
        let frames = stream.map(|line| Ok(Frame::data(Bytes::from(line))));
        Response::new(StreamBody::new(frames).boxed_unsync())
    }

    /// What a watcher that has seen `after` is told next; None when there is no news.
    fn lines(&self, gvr: &Gvr, namespace: &str, after: u64) -> Option<(String, u64)> {
        let state = self.lock();
        if state.held.contains(gvr) || state.revision <= after {
            return None;
        }
        if after < state.compacted {
            let gone = Status::new(Reason::Expired, "too old resource version").to_tree();
            return Some((format!("{}\n", json!({"type": "ERROR", "object": gone})), u64::MAX));
        }
        let mut lines = String::new();
        for entry in state.history.iter().filter(|entry| after < entry.revision && entry.gvr == *gvr) {
            if namespace.is_empty() || key_of(&entry.object).namespace == namespace {
                lines += &format!("{}\n", json!({"type": entry.verb, "object": entry.object}));
            }
        }
        let bookmark = json!({"metadata": {"resourceVersion": state.revision.to_string()}});
        lines += &format!("{}\n", json!({"type": "BOOKMARK", "object": bookmark}));
        Some((lines, state.revision))
    }
}

#[async_trait]
impl Transport for FakeApi {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<ResponseBody>, ClientError> {
        let target = Target::parse(request.uri()).ok_or_else(|| ClientError::decode("unknown path"))?;
        if parameter(&target.query, "watch").is_some() {
            return Ok(self.watch(&target));
        }
        if request.method() == Method::GET {
            return Ok(answer(self.lock().read(&target)));
        }
        let body: Tree = serde_json::from_slice(request.body()).unwrap_or_default();
        let mut state = self.lock();
        let what = target.subresource.as_ref().map(|sub| format!("/{sub}")).unwrap_or_default();
        let key = if target.key.name.is_empty() { key_of(&body).to_string() } else { target.key.to_string() };
        let line = format!("{} {}{what} {key}", request.method(), target.gvr.resource);
        state.writes.push(line);
        if let Some(term) = request.headers().get(api::term::TERM_HEADER) {
            let term = term.to_str().expect("clients write text").to_owned();
            state.terms.push((target.gvr.resource.to_string(), term));
        }
        let fault = state.faults.pop_front();
        if let Some(Fault::Refuse(status)) = fault {
            return Ok(answer(Err(status)));
        }
        let outcome = state.perform(request.method(), &target, body);
        drop(state);
        self.wake();
        if matches!(fault, Some(Fault::LoseReply)) {
            return Err(ClientError::transport("connection lost"));
        }
        Ok(answer(outcome))
    }
}

// === impl State ===

impl State {
    fn write(&mut self, place: (Gvr, Key), verb: &'static str, mut object: Tree) -> u64 {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        if object["metadata"]["uid"].is_null() {
            self.uids += 1;
            object["metadata"]["uid"] = json!(format!("uid-{}", self.uids));
        }
        self.history.push(Entry { revision: self.revision, gvr: place.0.clone(), verb, object: object.clone() });
        if verb == "DELETED" {
            self.objects.remove(&place);
        } else {
            self.objects.insert(place, object);
        }
        self.revision
    }

    fn read(&self, target: &Target) -> Result<Tree, Status> {
        let key = &target.key;
        if !key.name.is_empty() {
            let found = self.objects.get(&(target.gvr.clone(), key.clone())).cloned();
            return found.ok_or_else(|| missing(target));
        }
        let items = self.objects.iter().filter(|((gvr, have), _)| {
            *gvr == target.gvr && (key.namespace.is_empty() || have.namespace == key.namespace)
        });
        let selector = parameter(&target.query, "labelSelector").unwrap_or_default();
        let selector = percent_encoding::percent_decode_str(selector).decode_utf8_lossy().into_owned();
        let selector = api::LabelSelector::parse(&selector).expect("tests select well");
        let items: Vec<&Tree> =
            items.map(|(_, object)| object).filter(|item| selector.matches(&labels_of(item))).collect();
        Ok(json!({"metadata": {"resourceVersion": self.revision.to_string()}, "items": items}))
    }

    fn perform(&mut self, method: &Method, target: &Target, body: Tree) -> Result<Tree, Status> {
        let mut key = target.key.clone();
        let creates = *method == Method::POST && target.subresource.is_none();
        if creates {
            key.name = key_of(&body).name;
        }
        let place = (target.gvr.clone(), key.clone());
        let current = self.objects.get(&place).cloned();
        if creates {
            if current.is_some() {
                return Err(Status::already_exists(&target.gvr.group, &target.gvr.resource, &key.name));
            }
            let mut object = body;
            if !key.namespace.is_empty() {
                object["metadata"]["namespace"] = json!(key.namespace);
            }
            self.write(place.clone(), "ADDED", object);
            return Ok(self.objects[&place].clone());
        }
        let mut object = match current {
            Some(object) => object,
            None if *method == Method::PATCH && body.get("apiVersion").is_some() => json!({}),
            None => return Err(missing(target)),
        };
        if *method == Method::DELETE {
            let wanted = body["preconditions"]["uid"].as_str();
            if wanted.is_some_and(|uid| Some(uid) != object["metadata"]["uid"].as_str()) {
                return Err(Status::conflict(&target.gvr.group, &target.gvr.resource, &key.name, "uid differs"));
            }
            object["metadata"]["resourceVersion"] = json!((self.revision + 1).to_string());
            self.write(place, "DELETED", object.clone());
            return Ok(object);
        }
        if *method == Method::POST {
            if target.subresource.as_deref() == Some("binding") {
                object["spec"]["nodeName"] = body["target"]["name"].clone();
            }
        } else {
            let wanted = body["metadata"]["resourceVersion"].as_str();
            if wanted.is_some_and(|at| Some(at) != object["metadata"]["resourceVersion"].as_str()) {
                return Err(Status::conflict(&target.gvr.group, &target.gvr.resource, &key.name, "it was modified"));
            }
            if *method == Method::PUT { object = body } else { merge(&mut object, &body) }
        }
        if self.objects.get(&place) != Some(&object) {
            self.write(place.clone(), if self.objects.contains_key(&place) { "MODIFIED" } else { "ADDED" }, object);
        }
        Ok(self.objects[&place].clone())
    }
}

// === impl Target ===

impl Target {
    fn parse(uri: &http::Uri) -> Option<Target> {
        let mut words = uri.path().trim_matches('/').split('/').collect::<VecDeque<_>>();
        let group = if words.pop_front()? == "api" { "" } else { words.pop_front()? };
        let version = words.pop_front()?;
        let mut key = Key::default();
        if words.front() == Some(&"namespaces") && words.len() > 2 {
            words.pop_front();
            key.namespace = words.pop_front()?.into();
        }
        let gvr = Gvr::new(group, version, words.pop_front()?);
        key.name = words.pop_front().unwrap_or_default().into();
        let subresource = words.pop_front().map(str::to_owned);
        Some(Target { gvr, key, subresource, query: uri.query().unwrap_or_default().to_owned() })
    }
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn key_of(object: &Tree) -> Key {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    Key::new(text("namespace"), text("name"))
}

fn labels_of(object: &Tree) -> BTreeMap<SmolStr, SmolStr> {
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    labels.map(|(key, value)| (key.into(), value.as_str().unwrap_or_default().into())).collect()
}

fn missing(target: &Target) -> Status {
    Status::not_found(&target.gvr.group, &target.gvr.resource, &target.key.name)
}

fn merge(into: &mut Tree, patch: &Tree) {
    let Some(fields) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            if let Some(into) = into.as_object_mut() {
                into.remove(name);
            }
        } else {
            merge(&mut into[name.as_str()], value);
        }
    }
}

fn answer(outcome: Result<Tree, Status>) -> Response<ResponseBody> {
    let (code, tree) = match outcome {
        Ok(tree) => (200, tree),
        Err(status) => (status.code, status.to_tree()),
    };
    let mut response = Response::new(full_body(tree.to_string()));
    *response.status_mut() = http::StatusCode::from_u16(code).expect("codes of statuses are HTTP codes");
    response
}
