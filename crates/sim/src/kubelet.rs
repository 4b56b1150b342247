//! A node as the control plane sees one: it registers, renews its lease, and reports for every pod bound to it what a
//! kubelet would report. Its pods cost nothing, so there can be many.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::{Gvr, Key, PatchType};
use base::{Clock, Rng};
use serde_json::{Value, json};
use tokio::time::Instant;
use view::{Client, ClientError, Drain, PatchRequest, View, Watched};

use crate::world::seconds;

/// A pod with this annotation ends well after so many seconds.
pub const ENDS: &str = "sim.evenkeel/ends-after-seconds";
const LEASE_PERIOD: Duration = Duration::from_secs(10);
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// One life of a node, until its power goes.
pub struct Kubelet {
    pub name: String,
    pub number: u8,
    pub client: Client,
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
}

/// What a pod is due for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Start,
    End,
    Remove,
}

// === impl Kubelet ===

impl Kubelet {
    pub async fn run(self, drain: Drain) {
        let pods = Watched::all(pods(), &[]).with_fields(&format!("spec.nodeName={}", self.name));
        let view = View::start(&self.client, vec![pods], &drain);
        let (mut leased, mut due) = (None::<Instant>, BTreeMap::new());
        while !drain.is_cancelled() {
            if leased.is_none_or(|at| at.elapsed() >= LEASE_PERIOD) && self.report().await.is_ok() {
                leased = Some(Instant::now());
            }
            self.look(&view, &mut due).await;
            drain.run_until_cancelled(tokio::time::sleep(LOOK_PERIOD)).await;
        }
    }

    /// The Node object, ready, and its lease.
    async fn report(&self) -> Result<(), ClientError> {
        let key = Key::cluster(&self.name);
        let node = match self.client.get(&nodes(), &key).await {
            Err(error) if error.is_not_found() => {
                let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name}});
                self.client.create(&nodes(), "", &node).await?
            }
            other => other?,
        };
        if !is_ready(&node) {
            self.patch(&nodes(), &key, &json!({"status": self.status()})).await?;
        }
        let now = format!("{:.6}", self.clock.now());
        let spec = json!({"holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": now});
        let lease = Key::new("kube-node-lease", &self.name);
        match self.patch_plain(&leases(), &lease, &json!({"spec": spec})).await {
            Err(error) if error.is_not_found() => {
                let lease = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": self.name, "namespace": "kube-node-lease"}, "spec": spec,
                });
                self.client.create(&leases(), "kube-node-lease", &lease).await.map(drop)
            }
            other => other,
        }
    }

    fn status(&self) -> Value {
        let now = self.clock.now().to_string();
        let room = json!({"cpu": "64", "memory": "256Gi", "pods": "110"});
        json!({
            "capacity": room, "allocatable": room,
            "addresses": [{"type": "InternalIP", "address": format!("192.0.2.{}", self.number)}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
                "lastHeartbeatTime": now, "lastTransitionTime": now,
            }],
        })
    }

    /// Does for every pod what is due; what fails is due again at the next look.
    async fn look(&self, view: &View, due: &mut BTreeMap<(String, u8), Instant>) {
        let snapshot = view.snapshot();
        let stream = snapshot.stream(&pods());
        for object in stream.iter() {
            let Ok(pod) = serde_json::from_slice::<Value>(&object.bytes) else { continue };
            let Some(stage) = stage(&pod) else { continue };
            let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            let at = *due.entry((uid, stage as u8)).or_insert_with(|| Instant::now() + self.delay(&pod, stage));
            if at <= Instant::now() {
                // A conflict, a server that is gone: the pod is looked at again.
                let _ = self.perform(&object.key, &pod, stage).await;
            }
        }
    }

    fn delay(&self, pod: &Value, stage: Stage) -> Duration {
        match stage {
            Stage::Start => seconds(&*self.rng, 1, 4),
            Stage::Remove => seconds(&*self.rng, 1, 3),
            Stage::End => {
                let text = pod["metadata"]["annotations"][ENDS].as_str();
                Duration::from_secs(text.and_then(|text| text.parse().ok()).unwrap_or_default())
            }
        }
    }

    async fn perform(&self, key: &Key, pod: &Value, stage: Stage) -> Result<(), ClientError> {
        let uid = &pod["metadata"]["uid"];
        if stage == Stage::Remove {
            let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
            return self.client.delete(&pods(), key, &options).await.map(drop);
        }
        let now = self.clock.now().to_string();
        let (ready, phase, state) = match stage {
            Stage::Start => ("True", "Running", json!({"running": {"startedAt": now}})),
            _ => ("False", "Succeeded", json!({"terminated": {"exitCode": 0, "reason": "Completed"}})),
        };
        let condition = |name: &str| json!({"type": name, "status": ready, "lastTransitionTime": now});
        let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
        let status = json!({
            "phase": phase, "startTime": now, "hostIP": format!("192.0.2.{}", self.number),
            "podIPs": [{"ip": format!("10.42.{}.7", self.number)}], "podIP": format!("10.42.{}.7", self.number),
            "conditions": conditions,
            "containerStatuses": [{
                "name": "c", "image": pod["spec"]["containers"][0]["image"], "imageID": "", "restartCount": 0,
                "ready": ready == "True", "started": ready == "True", "state": state,
            }],
        });
        self.patch(&pods(), key, &json!({"metadata": {"uid": uid}, "status": status})).await
    }

    async fn patch(&self, gvr: &Gvr, key: &Key, body: &Value) -> Result<(), ClientError> {
        let request = PatchRequest { gvr, key, subresource: Some("status"), patch: PatchType::Merge, body };
        self.client.patch(&request).await.map(drop)
    }

    async fn patch_plain(&self, gvr: &Gvr, key: &Key, body: &Value) -> Result<(), ClientError> {
        let request = PatchRequest { gvr, key, subresource: None, patch: PatchType::Merge, body };
        self.client.patch(&request).await.map(drop)
    }
}

fn stage(pod: &Value) -> Option<Stage> {
    let (metadata, phase) = (&pod["metadata"], pod["status"]["phase"].as_str().unwrap_or_default());
    if !metadata["deletionTimestamp"].is_null() {
        return Some(Stage::Remove);
    }
    match phase {
        "Pending" => Some(Stage::Start),
        // While the node was not heard of, others said that it is not.
        "Running" if !is_ready(pod) => Some(Stage::Start),
        "Running" if !metadata["annotations"][ENDS].is_null() => Some(Stage::End),
        _ => None,
    }
}

fn is_ready(object: &Value) -> bool {
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

pub fn pods() -> Gvr {
    Gvr::new("", "v1", "pods")
}

fn nodes() -> Gvr {
    Gvr::new("", "v1", "nodes")
}

fn leases() -> Gvr {
    Gvr::new("coordination.k8s.io", "v1", "leases")
}
