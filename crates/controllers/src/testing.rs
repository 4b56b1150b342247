//! A world in memory for the controllers' tests: objects, streams, a queue per controller, and an agent that runs pods.
//!
//! Operations are applied as the API would; every change goes through `enqueue`, so a test that converges also proves
//! that the right keys were told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use api::{Gvr, Index, Key, Object, Op, PatchType, Plan, Preconditions, Propagation, Snapshot, Stream, Tree};
use base::{Revision, SmolStr};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, json};

use crate::{Config, Controller, Ctx, all, every_kind_indexes};

/// Plans after which a world that still moves is called unstable.
const PLANS_MAX: usize = 5_000;

pub struct World {
    pub now: Timestamp,
    pub ctx: Ctx,
    pub events: Vec<String>,
    /// Called after each round with the world: plays the node agent or a person.
    pub agent: fn(&mut World),
    /// Every third reply is lost: the operation happens, the driver thinks that it failed.
    pub lose_replies: bool,
    streams: BTreeMap<Gvr, Stream>,
    indexes: BTreeMap<Gvr, Vec<Index>>,
    controllers: Vec<Controller>,
    queue: VecDeque<(usize, Key)>,
    timers: BTreeSet<(Timestamp, usize, Key)>,
    revision: u64,
    counter: u64,
    performed: u64,
}

pub fn gvr(api_version: &str, kind: &str) -> Gvr {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let lower = kind.to_lowercase();
    let plural = match lower.as_str() {
        "endpoints" => lower,
        word if word.ends_with('y') => format!("{}ies", &word[..word.len() - 1]),
        word if word.ends_with('s') => format!("{word}es"),
        word => format!("{word}s"),
    };
    Gvr::new(group, version, &plural)
}

pub fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

impl World {
    pub fn new(names: &[&str]) -> World {
        World::with(Config { root_ca: "PEM".to_owned(), ..Config::default() }, names)
    }

    pub fn with(config: Config, names: &[&str]) -> World {
        let controllers: Vec<Controller> = all(&config).into_iter().filter(|c| names.contains(&c.name)).collect();
        assert_eq!(controllers.len(), names.len(), "unknown controller among {names:?}");
        let mut indexes: BTreeMap<Gvr, Vec<Index>> = BTreeMap::new();
        for watch in controllers.iter().flat_map(|controller| &controller.watches) {
            let known = indexes.entry(watch.gvr.clone()).or_default();
            for index in watch.indexes.iter().copied().chain(every_kind_indexes()) {
                if !known.iter().any(|other| other.name == index.name) {
                    known.push(index);
                }
            }
        }
        let ctx = Ctx {
            config: Arc::new(config),
            registry: Arc::new(api::builtin::registry()),
            started: Timestamp::MIN,
            missed: Arc::default(),
            usage: None,
            signer: None,
        };
        let mut world = World {
            now: start(),
            ctx,
            events: vec![],
            agent: |_| {},
            lose_replies: false,
            streams: BTreeMap::new(),
            indexes,
            controllers,
            queue: VecDeque::new(),
            timers: BTreeSet::new(),
            revision: 100,
            counter: 0,
            performed: 0,
        };
        let mut all: Vec<Gvr> = world.indexes.keys().cloned().collect();
        if world.controllers.iter().any(|controller| controller.every_kind) {
            all.extend(crate::every_kind(&world.ctx.registry).iter().map(|kind| kind.gvr()));
        }
        all.iter().for_each(|gvr| {
            world.stream(gvr);
        });
        world
    }

    fn stream(&mut self, gvr: &Gvr) -> &mut Stream {
        let indexes = self.indexes.get(gvr).cloned().unwrap_or_else(every_kind_indexes);
        self.streams.entry(gvr.clone()).or_insert_with(|| {
            let mut stream = Stream::with_indexes(&indexes);
            stream.synced = true;
            stream
        })
    }

    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (gvr, stream) in &self.streams {
            let mut stream = stream.clone();
            stream.revision = Revision(self.revision);
            snapshot.put_stream(gvr.clone(), stream);
        }
        snapshot
    }

    /// Writes a whole object, as a person would with apply; fills in what the API fills in.
    pub fn put(&mut self, mut object: Tree) {
        let gvr = gvr(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        let key = key_of(&object);
        let old = self.tree(&gvr, &key);
        self.counter += 1;
        let stamp = crate::kit::value::time(self.now);
        let meta = object["metadata"].as_object_mut().unwrap();
        let before = old.as_ref().map(|old| old["metadata"].clone());
        let kept = |name: &str, fresh: Tree| before.as_ref().and_then(|meta| meta.get(name).cloned()).unwrap_or(fresh);
        let uid = kept("uid", json!(format!("uid-{}", self.counter)));
        meta.entry("uid").or_insert(uid);
        meta.entry("creationTimestamp").or_insert(kept("creationTimestamp", json!(stamp)));
        let generation = old.as_ref().map_or(1, |old| {
            old["metadata"]["generation"].as_i64().unwrap_or(1) + i64::from(old["spec"] != object["spec"])
        });
        object["metadata"]["generation"] = json!(generation);
        self.store(&gvr, &key, Some(object));
    }

    pub fn tree(&self, gvr: &Gvr, key: &Key) -> Option<Tree> {
        self.streams.get(gvr)?.get(key).map(|object| object.tree())
    }

    pub fn list(&self, api_version: &str, kind: &str) -> Vec<Tree> {
        let stream = self.streams.get(&gvr(api_version, kind));
        stream.map(|stream| stream.iter().map(|object| object.tree()).collect()).unwrap_or_default()
    }

    pub fn get(&self, api_version: &str, kind: &str, key: &str) -> Tree {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        self.tree(&gvr(api_version, kind), &Key::new(namespace, name)).unwrap_or(Tree::Null)
    }

    /// Merges into an object, as a person would with patch.
    pub fn edit(&mut self, api_version: &str, kind: &str, key: &str, body: Tree) {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        let (gvr, key) = (gvr(api_version, kind), Key::new(namespace, name));
        let subresource = body.get("status").map(|_| "status".into());
        self.apply(&Op::Patch { gvr, key, subresource, patch: PatchType::Merge, body, when: Preconditions::default() });
    }

    pub fn delete(&mut self, api_version: &str, kind: &str, key: &str, propagation: Option<Propagation>) {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        let (gvr, key) = (gvr(api_version, kind), Key::new(namespace, name));
        self.apply(&Op::Delete { gvr, key, when: Preconditions::default(), propagation, grace_seconds: None });
    }

    fn store(&mut self, gvr: &Gvr, key: &Key, tree: Option<Tree>) {
        self.revision += 1;
        let new = tree.map(|mut tree| {
            tree["metadata"]["resourceVersion"] = json!(self.revision.to_string());
            Arc::new(Object::parse(serde_json::to_vec(&tree).unwrap().into()).unwrap())
        });
        let stream = self.stream(gvr);
        let old = stream.get(key).cloned();
        let gone = new.as_ref().is_some_and(|new| new.header.deletion.is_some() && new.header.finalizers.is_empty());
        let running_pod = gvr.resource == "pods"
            && new.as_ref().is_some_and(|new| {
                !crate::kit::pod::node_name(new).is_empty()
                    && !matches!(new.tree()["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
            });
        let new = new.filter(|_| !gone || running_pod);
        match &new {
            Some(new) => self.stream(gvr).put(new.clone()),
            None => drop(self.stream(gvr).remove(key)),
        }
        let snapshot = self.snapshot();
        for at in 0..self.controllers.len() {
            let controller = &self.controllers[at];
            if controller.every_kind || controller.watches.iter().any(|watch| watch.gvr == *gvr) {
                for key in (controller.enqueue)(gvr, old.as_deref(), new.as_deref(), &snapshot) {
                    if !self.queue.contains(&(at, key.clone())) {
                        self.queue.push_back((at, key));
                    }
                }
            }
        }
    }

    /// Performs one operation. False where its preconditions fail.
    pub fn apply(&mut self, op: &Op) -> bool {
        match op {
            Op::Event { warning, reason, message, .. } => {
                let kind = if *warning { "Warning" } else { "Normal" };
                self.events.push(format!("{kind} {reason}: {message}"));
                true
            }
            Op::Create { gvr, namespace, object } => {
                let mut object = object.clone();
                object["metadata"]["namespace"] = json!(namespace);
                if namespace.is_empty() {
                    object["metadata"].as_object_mut().unwrap().remove("namespace");
                }
                assert_eq!(*gvr, self::gvr(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap()));
                if self.tree(gvr, &key_of(&object)).is_none() {
                    self.put(object);
                }
                true
            }
            Op::Patch { gvr, key, subresource, patch, body, when } => {
                let Some(old) = self.tree(gvr, key) else { return false };
                if !holds(&old, when) {
                    return false;
                }
                let mut new = old.clone();
                merge(&mut new, body, *patch == PatchType::Strategic);
                if !matches!(subresource.as_deref(), Some("status" | "approval")) {
                    new["status"] = old["status"].clone();
                }
                if new["status"].is_null() {
                    new.as_object_mut().unwrap().remove("status");
                }
                let generation = old["metadata"]["generation"].as_i64().unwrap_or(1);
                new["metadata"]["generation"] = json!(generation + i64::from(old["spec"] != new["spec"]));
                if new != old {
                    self.store(gvr, key, Some(new));
                }
                true
            }
            Op::Delete { gvr, key, when, propagation, .. } => {
                let Some(mut old) = self.tree(gvr, key) else { return true };
                if !holds(&old, when) {
                    return false;
                }
                if old["metadata"].get("deletionTimestamp").is_none() {
                    old["metadata"]["deletionTimestamp"] = json!(crate::kit::value::time(self.now));
                    let extra = match propagation {
                        Some(Propagation::Foreground) => Some("foregroundDeletion"),
                        Some(Propagation::Orphan) => Some("orphan"),
                        _ => None,
                    };
                    if let Some(name) = extra {
                        let mut all = old["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
                        all.push(json!(name));
                        old["metadata"]["finalizers"] = json!(all);
                    }
                    self.store(gvr, key, Some(old));
                }
                true
            }
            Op::Post { gvr, key, subresource, body } | Op::Put { gvr, key, subresource, body } => {
                self.post(gvr, key, subresource, body)
            }
        }
    }

    fn post(&mut self, gvr: &Gvr, key: &Key, subresource: &str, body: &Tree) -> bool {
        match subresource {
            "binding" => {
                let node = body["target"]["name"].clone();
                let Some(mut pod) = self.tree(gvr, key) else { return false };
                pod["spec"]["nodeName"] = node;
                self.store(gvr, key, Some(pod));
            }
            "finalize" => {
                let Some(mut object) = self.tree(gvr, key) else { return false };
                object["spec"]["finalizers"] = body["spec"]["finalizers"].clone();
                let empty = object["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty);
                self.store(gvr, key, (!empty).then_some(object));
            }
            other => panic!("POST {other}"),
        }
        true
    }

    /// Runs plans until no key is queued and the agent has nothing to say; proves stability at the goal.
    pub fn converge(&mut self) {
        for _ in 0..PLANS_MAX {
            let Some((at, key)) = self.queue.pop_front() else {
                let before = self.revision;
                (self.agent)(self);
                if before == self.revision && self.queue.is_empty() {
                    return;
                }
                continue;
            };
            self.run(at, &key);
        }
        panic!("does not converge; events: {:#?}", self.events.iter().rev().take(10).collect::<Vec<_>>());
    }

    fn run(&mut self, at: usize, key: &Key) {
        let plan = self.plan(at, key);
        if let Some(again) = plan.look_again_at {
            assert!(again > self.now, "{} looks again at once for {key}", self.controllers[at].name);
            self.timers.insert((again, at, key.clone()));
        }
        'steps: for step in &plan.steps {
            for op in step {
                let held = self.apply(op);
                self.performed += 1;
                // A lost reply: the operation has happened, the driver must think that it has not.
                let lost = self.lose_replies && self.performed.is_multiple_of(3);
                if !held || lost {
                    self.queue.push_back((at, key.clone()));
                    break 'steps;
                }
            }
        }
    }

    pub fn plan(&self, at: usize, key: &Key) -> Plan {
        (self.controllers[at].plan)(&self.ctx, &self.snapshot(), key, self.now)
    }

    /// Lets time pass, in which due keys are looked at.
    pub fn pass(&mut self, seconds: i64) {
        let end = self.now + SignedDuration::from_secs(seconds);
        self.converge();
        while let Some((due, at, key)) = self.timers.first().filter(|(due, ..)| *due <= end).cloned() {
            self.timers.pop_first();
            self.now = self.now.max(due);
            self.queue.push_back((at, key));
            self.converge();
        }
        self.now = end;
    }

    /// `name replicas` lines of a kind by JSON pointers: the transcript of a test.
    pub fn table(&self, api_version: &str, kind: &str, pointers: &[&str]) -> String {
        let mut out = String::new();
        for tree in self.list(api_version, kind) {
            out.push_str(tree["metadata"]["name"].as_str().unwrap());
            for pointer in pointers {
                let value = tree.pointer(pointer).cloned().unwrap_or(Tree::Null);
                out.push_str(&format!(" {}", value.as_str().map_or(value.to_string(), str::to_owned)));
            }
            out.push('\n');
        }
        out
    }
}

/// An agent: binds and runs every pod, ends those that are deleted.
pub fn run_pods(world: &mut World) {
    for pod in world.list("v1", "Pod") {
        let name = key_of(&pod);
        let gvr = gvr("v1", "Pod");
        let finalizers = pod["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
        if pod["metadata"].get("deletionTimestamp").is_some() {
            if !finalizers {
                world.store(&gvr, &name, None);
            }
        } else if pod["status"]["phase"].as_str().unwrap_or("Pending") == "Pending" {
            let mut pod = pod.clone();
            if pod["spec"]["nodeName"].is_null() {
                pod["spec"]["nodeName"] = json!("n1");
            }
            let stamp = crate::kit::value::time(world.now);
            pod["status"] = json!({
                "phase": "Running", "podIP": "10.42.0.9", "podIPs": [{"ip": "10.42.0.9"}], "startTime": stamp,
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": stamp}],
            });
            world.store(&gvr, &name, Some(pod));
        }
    }
}

pub fn key_of(tree: &Tree) -> Key {
    let part = |name: &str| tree["metadata"][name].as_str().unwrap_or_default().to_owned();
    Key::new(&part("namespace"), &part("name"))
}

fn holds(tree: &Tree, when: &Preconditions) -> bool {
    let meta = |name: &str| SmolStr::from(tree["metadata"][name].as_str().unwrap_or_default());
    when.uid.as_ref().is_none_or(|uid| *uid == meta("uid"))
        && when.revision.is_none_or(|revision| revision.to_string() == meta("resourceVersion").as_str())
}

fn merge(target: &mut Tree, patch: &Tree, strategic: bool) {
    let Tree::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Tree::Object(Map::new());
    }
    for (name, value) in fields {
        let slot = &mut target[name.as_str()];
        match value {
            Tree::Null => {
                target.as_object_mut().unwrap().remove(name);
            }
            Tree::Array(items) if strategic && items.iter().all(Tree::is_object) => {
                let key = match name.as_str() {
                    "conditions" => "type",
                    "ownerReferences" => "uid",
                    other => panic!("no merge key for {other} in the test world"),
                };
                let mut all = slot.as_array().cloned().unwrap_or_default();
                for item in items {
                    let at = all.iter().position(|other| other[key] == item[key]);
                    match (at, item.get("$patch").is_some()) {
                        (Some(at), true) => {
                            all.remove(at);
                        }
                        (Some(at), false) => merge(&mut all[at], item, true),
                        (None, true) => {}
                        (None, false) => all.push(item.clone()),
                    }
                }
                *slot = json!(all);
            }
            value => merge(slot, value, strategic),
        }
    }
}
