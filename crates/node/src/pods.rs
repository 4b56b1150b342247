//! The workers of this node by pod uid. Others look at pods, and speak to them, only through it.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use base::SmolStr;
use tokio::sync::{mpsc, watch};

use crate::pod::Outcome;
use crate::pod::view::PodView;
use crate::pod::worker::Command;

/// The workers by pod uid; others look at pods only through it.
#[derive(Clone, Default)]
pub struct Pods {
    workers: Arc<RwLock<BTreeMap<SmolStr, Handle>>>,
}

#[derive(Clone)]
pub struct Handle {
    pub commands: mpsc::Sender<Command>,
    pub view: watch::Receiver<Arc<PodView>>,
}

impl Pods {
    pub fn all(&self) -> Vec<Arc<PodView>> {
        let workers = self.workers.read().expect("no holder of this lock panics");
        workers.values().map(|handle| handle.view.borrow().clone()).collect()
    }

    /// By name; of two with one name (an old one is stopping) the newer record.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<PodView>> {
        let named = self.all().into_iter().filter(|view| {
            let meta = &view.pod.metadata;
            meta.namespace.as_deref() == Some(namespace) && meta.name.as_deref() == Some(name)
        });
        named.max_by_key(|view| view.pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
    }

    /// Follows one pod's view.
    pub fn watch(&self, uid: &str) -> Option<watch::Receiver<Arc<PodView>>> {
        self.workers.read().expect("no holder of this lock panics").get(uid).map(|handle| handle.view.clone())
    }

    /// Makes a pod leave; false where it is busy or gone.
    pub fn evict(&self, uid: &str, outcome: Outcome) -> bool {
        self.get(uid).is_some_and(|handle| handle.commands.try_send(Command::Evict(outcome)).is_ok())
    }

    pub fn get(&self, uid: &str) -> Option<Handle> {
        self.workers.read().expect("no holder of this lock panics").get(uid).cloned()
    }

    pub fn handles(&self) -> Vec<Handle> {
        self.workers.read().expect("no holder of this lock panics").values().cloned().collect()
    }

    pub fn add(&self, uid: SmolStr, handle: Handle) {
        self.workers.write().expect("no holder of this lock panics").insert(uid, handle);
    }

    pub fn remove(&self, uid: &str) {
        self.workers.write().expect("no holder of this lock panics").remove(uid);
    }
}
