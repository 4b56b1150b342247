//! The scheduler's picture of the cluster: rows brought up to date from a snapshot, and bindings in flight.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::fit::Labels;
use api::snapshot::gvr_of;
use api::{Gvr, Key, Object, Snapshot};
use base::{Revision, SmolStr};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::queue::News;
use crate::row::{NodeRow, PodRow};

/// How long a binding that nobody has seen counts.
const ASSUMED_MAX: SignedDuration = SignedDuration::from_secs(30);

#[derive(Debug, Default)]
pub struct Cache {
    pub nodes: BTreeMap<SmolStr, NodeRow>,
    pub pods: BTreeMap<Key, Arc<PodRow>>,
    pub namespaces: BTreeMap<SmolStr, Labels>,
    /// Uid -> node and when the binding no longer counts.
    assumed: BTreeMap<SmolStr, (SmolStr, Timestamp)>,
    seen: BTreeMap<Gvr, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    revision: Revision,
    objects: BTreeMap<Key, Revision>,
}

impl Cache {
    /// Takes in what differs from the last snapshot; says what kind of news it was, for pods that wait.
    pub fn sync(&mut self, snapshot: &Snapshot, now: Timestamp) -> News {
        let mut news = News::default();
        for (key, object) in self.changes(snapshot, &gvr_of::<Node>()) {
            news.node = true;
            self.node(&key, object.as_deref());
        }
        for (key, object) in self.changes(snapshot, &gvr_of::<Pod>()) {
            self.pod(&key, object.as_deref(), &mut news);
        }
        for (key, object) in self.changes(snapshot, &gvr_of::<Namespace>()) {
            match object {
                Some(object) => self.namespaces.insert(key.name, object.header.labels.clone()),
                None => self.namespaces.remove(&key.name),
            };
        }
        let volumes = [gvr_of::<PersistentVolume>(), gvr_of::<PersistentVolumeClaim>(), gvr_of::<StorageClass>()];
        for gvr in volumes {
            news.volume |= !self.changes(snapshot, &gvr).is_empty();
        }
        self.expire(now, &mut news);
        news
    }

    /// Objects of a stream whose revision is new, and keys that are gone.
    fn changes(&mut self, snapshot: &Snapshot, gvr: &Gvr) -> Vec<(Key, Option<Arc<Object>>)> {
        let stream = snapshot.stream(gvr);
        let seen = self.seen.entry(gvr.clone()).or_default();
        if stream.revision == seen.revision && stream.len() == seen.objects.len() && stream.revision != Revision::ZERO {
            return vec![];
        }
        seen.revision = stream.revision;
        let mut changes = vec![];
        for object in stream.iter() {
            if seen.objects.insert(object.key.clone(), object.revision) != Some(object.revision) {
                changes.push((object.key.clone(), Some(object.clone())));
            }
        }
        if seen.objects.len() != stream.len() {
            let gone: Vec<Key> = seen.objects.keys().filter(|key| stream.get(key).is_none()).cloned().collect();
            for key in gone {
                seen.objects.remove(&key);
                changes.push((key, None));
            }
        }
        changes
    }

    fn node(&mut self, key: &Key, object: Option<&Object>) {
        let old = self.nodes.remove(&key.name);
        let Some(mut row) = object.and_then(NodeRow::parse) else { return };
        let mut pods: Vec<Arc<PodRow>> = old.into_iter().flat_map(|old| old.pods.into_values()).collect();
        if pods.is_empty() {
            pods = self.pods.values().filter(|pod| pod.node == row.name && !pod.finished).cloned().collect();
        }
        pods.into_iter().for_each(|pod| row.add(pod));
        self.nodes.insert(key.name.clone(), row);
    }

    fn pod(&mut self, key: &Key, object: Option<&Object>, news: &mut News) {
        let row = object.and_then(PodRow::parse).map(Arc::new);
        let old = match &row {
            Some(row) => self.pods.insert(key.clone(), row.clone()),
            None => self.pods.remove(key),
        };
        if let Some(old) = &old {
            let gone = row.as_ref().is_none_or(|row| row.uid != old.uid || row.finished);
            if gone || row.as_ref().is_some_and(|row| !row.node.is_empty()) {
                let assumed = self.assumed.remove(&old.uid).map(|(node, _)| node);
                for node in assumed.iter().chain([&old.node]) {
                    self.nodes.get_mut(node).and_then(|node| node.remove(&old.uid));
                }
                news.pod_gone |= gone && (!old.node.is_empty() || assumed.is_some());
            }
        }
        let Some(row) = row.filter(|row| !row.finished && !row.node.is_empty()) else { return };
        // Changed labels of a bound pod may satisfy the affinity of one that waits.
        news.pod_bound = true;
        if let Some(node) = self.nodes.get_mut(&row.node) {
            node.add(row);
        }
    }

    fn expire(&mut self, now: Timestamp, news: &mut News) {
        let due: Vec<SmolStr> =
            self.assumed.iter().filter(|(_, (_, until))| *until <= now).map(|(uid, _)| uid.clone()).collect();
        for uid in due {
            news.pod_gone = true;
            self.forget(&uid);
        }
    }

    pub fn assume(&mut self, pod: &Arc<PodRow>, node: &SmolStr, now: Timestamp) {
        if let Some(row) = self.nodes.get_mut(node) {
            row.add(pod.clone());
        }
        self.assumed.insert(pod.uid.clone(), (node.clone(), now + ASSUMED_MAX));
    }

    pub fn forget(&mut self, uid: &SmolStr) {
        if let Some((node, _)) = self.assumed.remove(uid) {
            self.nodes.get_mut(&node).and_then(|node| node.remove(uid));
        }
    }

    pub fn is_assumed(&self, uid: &SmolStr) -> bool {
        self.assumed.contains_key(uid)
    }

    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.assumed.values().map(|(_, until)| *until).min()
    }
}
