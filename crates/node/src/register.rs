//! This node's own object: it registers, and keeps its status true. That the machine lives is the lease's to say, which
//! waits for nothing here.

use std::sync::Arc;
use std::time::Duration;

use api::{Gvr, Key, PatchType, Snapshot, Tree};
use base::{Chain, Revision};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;
use view::{ClientError, PatchRequest};

use crate::context::Context;
use crate::lease::Heartbeat;
use crate::limits;
use crate::machine::{self, Identity};
use crate::pod::slot::retry_delay;
use crate::pod::status::seconds;
use crate::pressure::Condition;
use crate::runtime::{Handler, Image, RuntimeStatus};

/// What a machine is where no cloud says more; `--node-label` overrides it.
const INSTANCE_TYPE: &str = "evenkeel";

pub struct Registrar {
    context: Arc<Context>,
    identity: Identity,
    written: Option<Written>,
    conditions: Vec<Tree>,
    /// The runtime and its version, as it last said.
    runtime: String,
    ready_before: bool,
}

/// What was last written.
struct Written {
    /// Times apart.
    report: Tree,
    at: Timestamp,
    revision: Revision,
}

pub fn nodes() -> Gvr {
    Gvr::new("", "v1", "nodes")
}

impl Registrar {
    pub fn new(context: Arc<Context>) -> Registrar {
        let identity = machine::identity();
        Registrar {
            context,
            identity,
            written: None,
            conditions: Vec::new(),
            runtime: String::new(),
            ready_before: false,
        }
    }

    /// Registers, then keeps lease and status fresh until drained. A runtime that hangs holds up the status alone: its node
    /// says so, and is not taken for a dead machine.
    pub async fn run(mut self, drain: CancellationToken) {
        let mut failures = 0;
        while let Err(error) = self.register().await {
            tracing::warn!(error = %Chain(&error), "node is not registered yet");
            if drain.run_until_cancelled(tokio::time::sleep(retry_delay(failures))).await.is_none() {
                return;
            }
            failures += 1;
        }
        let now = self.context.ports.clock.now();
        self.context.change_pressure(|history| history.restore(&self.conditions, now));
        self.context.events.node(&self.context.config.node_name, false, "Starting", "Starting kubelet.");
        tokio::join!(Heartbeat::new(self.context.clone()).run(drain.clone()), self.keep_status(drain));
    }

    async fn keep_status(mut self, drain: CancellationToken) {
        let mut pressure = self.context.pressure.subscribe();
        loop {
            let Some(told) = drain.run_until_cancelled(self.report()).await else { return };
            if let Err(error) = &told {
                tracing::warn!(error = %Chain(error), "node status was not written");
            }
            // Until it is ready a node looks more often: pods wait for it.
            let wait = if self.ready_before { limits::NODE_CHECK_EVERY } else { Duration::from_millis(500) };
            tokio::select! {
                () = drain.cancelled() => return,
                _ = pressure.changed() => {}
                () = self.contradicted(), if told.is_ok() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn key(&self) -> Key {
        Key::cluster(&self.context.config.node_name)
    }

    /// Creates the Node, or brings labels of ours on one that exists up to date.
    async fn register(&mut self) -> Result<(), ClientError> {
        let object = self.object();
        match self.context.client.create(&nodes(), "", &object).await {
            Err(error) if error.is_already_exists() => {}
            outcome => return outcome.map(|node| self.remember(&node)),
        }
        let labels = object["metadata"]["labels"].clone();
        let body = json!({"metadata": {"labels": labels, "annotations": object["metadata"]["annotations"]}});
        let (gvr, key) = (nodes(), self.key());
        let request =
            PatchRequest { gvr: &gvr, key: &key, subresource: None, patch: PatchType::Strategic, body: &body };
        let node = self.context.client.patch(&request).await?;
        self.remember(&node);
        Ok(())
    }

    fn remember(&mut self, node: &Tree) {
        self.conditions = ours(node);
    }

    fn object(&self) -> Tree {
        let config = &self.context.config;
        let mut labels = Map::new();
        for (name, value) in [
            ("kubernetes.io/hostname", config.node_name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", self.identity.arch),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", self.identity.arch),
            ("node.kubernetes.io/instance-type", INSTANCE_TYPE),
            ("beta.kubernetes.io/instance-type", INSTANCE_TYPE),
        ] {
            labels.insert(name.into(), json!(value));
        }
        labels.extend(config.labels.iter().map(|(name, value)| (name.clone(), json!(value))));
        let taints: Vec<Tree> = config
            .taints
            .iter()
            .map(|(key, value, effect)| json!({"key": key, "value": value, "effect": effect}))
            .collect();
        let mut spec = Map::new();
        if !taints.is_empty() {
            spec.insert("taints".into(), Tree::Array(taints));
        }
        if !config.provider_id.is_empty() {
            spec.insert("providerID".into(), json!(config.provider_id));
        }
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": config.node_name, "labels": labels,
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            },
            "spec": spec,
        })
    }

    // === status ===

    async fn report(&mut self) -> Result<(), ClientError> {
        let now = self.context.ports.clock.now();
        let (runtime, images) = self.ask_runtime().await;
        let facts = self.status(&runtime, images.as_deref());
        let pressure = self.context.pressure.borrow().conditions();
        let snapshot = self.context.view.snapshot();
        let contradicted = self.is_contradicted(&snapshot);
        let shown = snapshot.stream(&nodes()).get(&self.key()).filter(|_| contradicted).map(|node| ours(&node.tree()));
        let conditions = conditions(&runtime, &pressure, shown.as_ref().unwrap_or(&self.conditions), now);
        let ready = conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        let report = json!({"facts": facts, "conditions": conditions.iter().map(without_times).collect::<Vec<_>>()});
        let fresh = self.written.as_ref().is_some_and(|written| {
            let age = Duration::try_from(now.duration_since(written.at)).unwrap_or_default();
            written.report == report && age < limits::NODE_REPORT_EVERY
        });
        if fresh && !contradicted && !self.is_deleted(&snapshot) {
            self.ready_before = ready;
            return Ok(());
        }
        let mut status = facts;
        status["conditions"] = Tree::Array(conditions.clone());
        // The list's merge key is the type: merged, a second address of a type would take the place of the first.
        if let Some(addresses) = status["addresses"].as_array_mut() {
            addresses.push(json!({"$patch": "replace"}));
        }
        let body = json!({"status": status});
        let (gvr, key) = (nodes(), self.key());
        let request = PatchRequest {
            gvr: &gvr,
            key: &key,
            subresource: Some("status"),
            patch: PatchType::Strategic,
            body: &body,
        };
        let node = match self.context.client.patch(&request).await {
            Ok(node) => node,
            Err(error) if error.is_not_found() => {
                // Somebody deleted the Node; we are still here.
                self.register().await?;
                self.written = None;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if ready != self.ready_before {
            let (warning, reason) = if ready { (false, "NodeReady") } else { (true, "NodeNotReady") };
            let name = &self.context.config.node_name;
            self.context.events.node(name, warning, reason, &format!("Node {name} status is now: {reason}"));
        }
        self.tell_pressure(&conditions);
        self.conditions = conditions;
        self.written = Some(Written { report, at: now, revision: revision_of(&node) });
        self.ready_before = ready;
        Ok(())
    }

    /// What the runtime says of itself. Where it does not answer it is asked nothing more: each question may hang.
    async fn ask_runtime(&mut self) -> (RuntimeStatus, Option<Vec<Image>>) {
        let runtime = &self.context.runtime;
        let (status, images) = match runtime.status().await {
            Ok(status) => {
                if let Ok(version) = runtime.version().await
                    && !version.name.is_empty()
                {
                    self.runtime = format!("{}://{}", version.name, version.version);
                    *self.context.runtime_name.write().expect("no holder of this lock panics") = version.name;
                }
                (status, runtime.list_images().await.ok())
            }
            Err(error) => (RuntimeStatus { message: error.to_string(), ..RuntimeStatus::default() }, None),
        };
        self.context.handlers.write().expect("no holder of this lock panics").clone_from(&status.handlers);
        (status, images)
    }

    /// Resolves once [`Self::is_contradicted`].
    async fn contradicted(&self) {
        self.context.view.wait_for(|snapshot| self.is_contradicted(snapshot)).await;
    }

    /// Since this node last reported somebody wrote otherwise: the control plane heard nothing of it and gave it up, or an
    /// older state was restored.
    fn is_contradicted(&self, snapshot: &Snapshot) -> bool {
        let (stream, key) = (snapshot.stream(&nodes()), self.key());
        let Some((written, node)) = self.written.as_ref().zip(stream.get(&key)) else { return false };
        written.revision < node.revision && node.typed().is_ok_and(|node| contradicts(&node, &self.conditions))
    }

    /// Somebody deleted the Node. That is no hurry: where the machine was removed it is about to learn so.
    fn is_deleted(&self, snapshot: &Snapshot) -> bool {
        let stream = snapshot.stream(&nodes());
        let shown = self.written.as_ref().is_some_and(|written| written.revision <= stream.revision);
        shown && stream.get(&self.key()).is_none()
    }

    /// Events for what a person would ask about; readiness has its own.
    fn tell_pressure(&self, conditions: &[Tree]) {
        let name = &self.context.config.node_name;
        for condition in conditions.iter().filter(|condition| condition["type"] != "Ready") {
            let before = self.conditions.iter().find(|before| before["type"] == condition["type"]);
            let was = before.is_some_and(|before| before["status"] == "True");
            if was != (condition["status"] == "True") {
                let reason = condition["reason"].as_str().expect("a reason of ours");
                self.context.events.node(name, false, reason, &format!("Node {name} status is now: {reason}"));
            }
        }
    }

    /// Without an answer of the runtime the Node keeps the images that it names.
    fn status(&self, status: &RuntimeStatus, images: Option<&[Image]>) -> Tree {
        let config = &self.context.config;
        let machine = &self.context.machine;
        let mut addresses: Vec<Tree> =
            config.node_ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip.to_string()})).collect();
        addresses.push(json!({"type": "Hostname", "address": config.node_name}));
        let quantities = |cpu: String, memory: i64, disk: i64| {
            json!({
                "cpu": cpu, "memory": format!("{}Ki", memory / 1024), "pods": config.max_pods.to_string(),
                "ephemeral-storage": format!("{}Ki", disk / 1024), "hugepages-1Gi": "0", "hugepages-2Mi": "0",
            })
        };
        let milli = machine.allocatable_cpu_milli;
        let cpu = if milli % 1000 == 0 { (milli / 1000).to_string() } else { format!("{milli}m") };
        let identity = &self.identity;
        let mut facts = json!({
            "capacity": quantities(machine.cpus.to_string(), machine.memory_bytes, machine.storage_bytes),
            "allocatable": quantities(cpu, machine.allocatable_memory_bytes, machine.allocatable_storage_bytes),
            "addresses": addresses,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": config.listen.port()}},
            "nodeInfo": {
                "machineID": identity.machine_id, "systemUUID": identity.system_uuid, "bootID": identity.boot_id,
                "kernelVersion": identity.kernel, "osImage": identity.os_image, "containerRuntimeVersion": self.runtime,
                "kubeletVersion": config.version, "kubeProxyVersion": config.version, "operatingSystem": "linux",
                "architecture": identity.arch, "swap": {"capacity": identity.swap_bytes},
            },
            "runtimeHandlers": status.handlers.iter().map(handler).collect::<Vec<_>>(),
            "features": {"supplementalGroupsPolicy": status.strict_groups},
        });
        if let Some(images) = images {
            facts["images"] = image_list(images);
        }
        facts
    }
}

/// User namespaces are the node's work too, which it does not do yet, whatever the runtime could.
fn handler(handler: &Handler) -> Tree {
    let features = json!({"recursiveReadOnlyMounts": handler.recursive_read_only, "userNamespaces": false});
    json!({"name": handler.name, "features": features})
}

/// The largest images with their names; upstream lists fifty.
fn image_list(images: &[Image]) -> Tree {
    let mut images: Vec<&Image> = images.iter().collect();
    images.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.id.cmp(&b.id)));
    let entry = |image: &&Image| {
        let mut names: Vec<&String> = image.digests.iter().chain(&image.tags).collect();
        names.truncate(5);
        json!({"names": names, "sizeBytes": image.size_bytes})
    };
    images.iter().take(limits::NODE_IMAGES_MAX).map(entry).collect()
}

const OURS: [&str; 4] = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];

fn conditions(runtime: &RuntimeStatus, pressure: &[Condition], before: &[Tree], now: Timestamp) -> Vec<Tree> {
    let ready = runtime.runtime_ready && runtime.network_ready;
    let why = format!("container runtime network not ready: {}", runtime.message);
    let mut rows: Vec<(&str, bool, &str, &str)> = Condition::ALL
        .into_iter()
        .map(|condition| {
            let on = pressure.contains(&condition);
            let (reason, message) = condition.words(on);
            (condition.name(), on, reason, message)
        })
        .collect();
    rows.push(if ready {
        ("Ready", true, "KubeletReady", "kubelet is posting ready status")
    } else {
        ("Ready", false, "KubeletNotReady", why.as_str())
    });
    let make = |(kind, on, reason, message): (&str, bool, &str, &str)| {
        let status = if on { "True" } else { "False" };
        let same = before.iter().find(|condition| condition["type"] == kind && condition["status"] == status);
        let since = same.and_then(|condition| condition["lastTransitionTime"].as_str()).map(str::to_owned);
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": seconds(now), "lastTransitionTime": since.unwrap_or_else(|| seconds(now)),
        })
    };
    rows.into_iter().map(make).collect()
}

fn ours(node: &Tree) -> Vec<Tree> {
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter(|condition| OURS.contains(&condition["type"].as_str().unwrap_or_default())).cloned().collect()
}

/// Whether a Node shows conditions of ours other than as they were last reported.
fn contradicts(node: &core::Node, reported: &[Tree]) -> bool {
    let shown = || node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let same = |one: &core::NodeCondition, own: &Tree| {
        let heard = one.last_heartbeat_time.as_ref().map(|time| seconds(time.0));
        own["type"] == one.type_ && own["status"] == one.status && own["lastHeartbeatTime"].as_str() == heard.as_deref()
    };
    !reported.iter().all(|own| shown().any(|one| same(one, own)))
}

fn revision_of(object: &Tree) -> Revision {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn without_times(condition: &Tree) -> Tree {
    json!([condition["type"], condition["status"], condition["reason"], condition["message"]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_transition_stays_while_the_status_does() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let before =
            |kind: &str, status: &str| json!({"type": kind, "status": status, "lastTransitionTime": seconds(at(5))});
        let shown = [
            before("MemoryPressure", "False"),
            before("DiskPressure", "True"),
            before("PIDPressure", "True"),
            before("Ready", "Unknown"),
        ];
        let made = conditions(&RuntimeStatus::default(), &[Condition::Disk], &shown, at(60));
        let said =
            |one: &Tree| format!("{} {} {}", one["type"], one["status"], one["lastTransitionTime"]).replace('"', "");
        let (kept, new) = (seconds(at(5)), seconds(at(60)));
        let wanted = [
            format!("MemoryPressure False {kept}"),
            format!("DiskPressure True {kept}"),
            format!("PIDPressure False {new}"),
            format!("Ready False {new}"),
        ];
        assert_eq!(made.iter().map(said).collect::<Vec<_>>(), wanted);
        assert!(made.iter().all(|one| one["lastHeartbeatTime"] == new.as_str()));
    }

    #[test]
    fn a_node_that_was_given_up_or_restored_is_told_anew() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let reported = |second| conditions(&RuntimeStatus::default(), &[], &[], at(second));
        let node = |conditions: Vec<Tree>| -> core::Node {
            serde_json::from_value(json!({"metadata": {}, "status": {"conditions": conditions}})).unwrap()
        };
        let with = |change: fn(&mut Tree)| {
            let mut shown = reported(60);
            shown.insert(0, json!({"type": "evenkeel.io/Lost", "status": "False"}));
            change(&mut shown[4]);
            node(shown)
        };
        assert!(!contradicts(&with(|_| {}), &reported(60)));
        assert!(contradicts(&with(|ready| ready["status"] = json!("Unknown")), &reported(60)));
        assert!(contradicts(&node(reported(50)), &reported(60)));
        assert!(contradicts(&core::Node::default(), &reported(60)));
    }
}
