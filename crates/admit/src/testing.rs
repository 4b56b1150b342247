//! A world for tests: kinds over a hand-made table, objects in a map, a standing clock.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use api::{Key, Kind, Object, PatchType, Registry, Status, Tree};
use base::{ManualClock, Revision, SeededRng, SmolStr};
use bytes::Bytes;

use crate::{
    Body, Change, Config, Identified, NoWebhooks, Options, Outcome, Place, Ports, Reader, Request, User, Write,
    WriteVerb, admit,
};

/// Committed state, and the ports over it.
pub(crate) struct World {
    pub(crate) objects: Mutex<BTreeMap<Place, Arc<Object>>>,
    pub(crate) registry: Registry,
    pub(crate) clock: ManualClock,
    pub(crate) rng: SeededRng,
    pub(crate) config: Config,
    pub(crate) user: User,
    revision: Mutex<u64>,
}

impl Reader for World {
    fn get(&self, place: &Place) -> Option<Arc<Object>> {
        self.objects.lock().unwrap().get(place).cloned()
    }

    fn list(&self, storage: &str, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let objects = self.objects.lock().unwrap();
        let found = objects.iter().filter(|(place, _)| {
            place.storage == storage && namespace.is_none_or(|namespace| place.key.namespace == namespace)
        });
        found.map(|(_, object)| object.clone()).collect()
    }
}

impl World {
    pub(crate) fn new(registry: Registry) -> World {
        World {
            objects: Mutex::default(),
            registry,
            clock: ManualClock::at("2026-01-02T03:04:05Z".parse().unwrap()),
            rng: SeededRng::new(7),
            config: Config::default(),
            user: User { name: "ann".into(), groups: vec!["system:masters".into()], ..User::default() },
            revision: Mutex::new(10),
        }
    }

    pub(crate) fn kind(&self, api_version: &str, kind: &str) -> Arc<Kind> {
        let gvk = api::Gvk::parse(api_version, kind).unwrap();
        self.registry.kind(&gvk).unwrap_or_else(|| panic!("no kind {gvk}")).clone()
    }

    /// Puts an object as committed, without any stage.
    pub(crate) fn seed(&self, tree: &Tree) {
        let kind = self.kind(crate::doc::text(tree, "apiVersion"), crate::doc::text(tree, "kind"));
        let key = Key::new(crate::doc::text(tree, "metadata.namespace"), crate::doc::text(tree, "metadata.name"));
        self.store(Place { storage: kind.storage.clone(), key }, tree.clone());
    }

    fn store(&self, place: Place, mut tree: Tree) -> Tree {
        let mut revision = self.revision.lock().unwrap();
        *revision += 1;
        crate::doc::set(&mut tree, "metadata.resourceVersion", revision.to_string());
        let bytes = Bytes::from(tree.to_string());
        let object = Object::parse(bytes.clone()).unwrap();
        assert_eq!(object.revision, Revision(*revision));
        self.objects.lock().unwrap().insert(place, Arc::new(object));
        tree
    }

    /// One write through all stages, and its commit.
    pub(crate) fn run(&self, request: Request) -> Result<Outcome, Status> {
        let place = Place { storage: request.kind.storage.clone(), key: Key::new(&request.namespace, &request.name) };
        let current = if request.name.is_empty() { None } else { self.get(&place) };
        let ports = Ports {
            reader: self,
            registry: &self.registry,
            clock: &self.clock,
            rng: &self.rng,
            config: &self.config,
            hooks: &NoWebhooks,
        };
        let request = Identified { user: self.user.clone(), request };
        let mut outcome = block_on(admit(&request, current.as_ref(), &ports))?;
        if let Some(admitted) = outcome.admitted.take() {
            let at = crate::doc::text(&outcome.object, "metadata.name").to_owned();
            for change in admitted.into_batch().changes {
                self.commit(change, &at, &mut outcome.object);
            }
        }
        Ok(outcome)
    }

    fn commit(&self, change: Change, name: &str, answer: &mut Tree) {
        match change.write {
            Write::Keep => {}
            Write::Delete => drop(self.objects.lock().unwrap().remove(&change.place)),
            Write::Put(bytes) => {
                let stored = self.store(change.place.clone(), serde_json::from_slice(&bytes).unwrap());
                if change.place.key.name == name && crate::doc::get(&stored, "kind") == crate::doc::get(answer, "kind")
                {
                    *answer = stored;
                }
            }
        }
    }

    pub(crate) fn request(&self, tree: &Tree, name: &str, verb: WriteVerb) -> Request {
        let kind = self.kind(crate::doc::text(tree, "apiVersion"), crate::doc::text(tree, "kind"));
        let namespace = if kind.is_namespaced() { "default" } else { "" };
        let said = crate::doc::text(tree, "metadata.namespace");
        let namespace: SmolStr = if said.is_empty() { namespace.into() } else { said.into() };
        let options = Options { field_manager: "test".into(), ..Options::default() };
        Request { kind, subresource: None, namespace, name: name.into(), verb, options }
    }

    pub(crate) fn create(&self, tree: &Tree) -> Result<Outcome, Status> {
        self.run(self.request(tree, "", WriteVerb::Create(body(tree))))
    }

    pub(crate) fn update(&self, tree: &Tree) -> Result<Outcome, Status> {
        let name = crate::doc::text(tree, "metadata.name");
        self.run(self.request(tree, name, WriteVerb::Update(body(tree))))
    }

    /// `of` names the object (apiVersion, kind, metadata).
    pub(crate) fn patch(&self, of: &Tree, patch: PatchType, tree: &Tree) -> Result<Outcome, Status> {
        let name = crate::doc::text(of, "metadata.name");
        self.run(self.request(of, name, WriteVerb::Patch { patch, body: body(tree) }))
    }

    pub(crate) fn apply(&self, tree: &Tree, manager: &str, force: bool) -> Result<Outcome, Status> {
        let name = crate::doc::text(tree, "metadata.name");
        let verb = WriteVerb::Patch { patch: PatchType::Apply { force }, body: body(tree) };
        let mut request = self.request(tree, name, verb);
        request.options.field_manager = manager.into();
        self.run(request)
    }

    pub(crate) fn delete(&self, of: &Tree) -> Result<Outcome, Status> {
        let name = crate::doc::text(of, "metadata.name");
        let verb = WriteVerb::Delete { when: api::Preconditions::default(), propagation: None, grace_seconds: None };
        self.run(self.request(of, name, verb))
    }
}

pub(crate) fn body(tree: &Tree) -> Body {
    Body { tree: tree.clone(), duplicates: Vec::new() }
}

/// Nothing in a test waits for the world, so a future is ready when first asked.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a test future waits"),
    }
}
