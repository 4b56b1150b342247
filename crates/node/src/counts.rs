//! What has happened since the agent started, counted for `/metrics`.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::spec::names::PodName;

#[derive(Default)]
pub struct Counts {
    /// By eviction signal.
    evictions: Mutex<BTreeMap<&'static str, u64>>,
    /// Pod uid and labels as they are written.
    probes: Mutex<BTreeMap<(String, String), u64>>,
}

impl Counts {
    pub fn evicted(&self, signal: &'static str) {
        *self.evictions.lock().expect("no holder of this lock panics").entry(signal).or_default() += 1;
    }

    pub fn evictions(&self) -> BTreeMap<&'static str, u64> {
        self.evictions.lock().expect("no holder of this lock panics").clone()
    }

    pub fn probed(&self, pod: &PodName, container: &str, kind: &str, healthy: bool) {
        let result = if healthy { "successful" } else { "failed" };
        let labels = format!(
            "container={container:?},namespace={:?},pod={:?},pod_uid={:?},probe_type={kind:?},result={result:?}",
            pod.namespace, pod.name, pod.uid
        );
        let mut probes = self.probes.lock().expect("no holder of this lock panics");
        *probes.entry((pod.uid.clone(), labels)).or_default() += 1;
    }

    pub fn probes(&self) -> Vec<(String, u64)> {
        let probes = self.probes.lock().expect("no holder of this lock panics");
        probes.iter().map(|((_, labels), count)| (labels.clone(), *count)).collect()
    }

    /// The pod is gone: its series end.
    pub fn forget(&self, uid: &str) {
        self.probes.lock().expect("no holder of this lock panics").retain(|(of, _), _| of != uid);
    }
}
