//! This node's own objects: the Node, its status, its Lease. One task writes them all.

use std::sync::Arc;
use std::time::Duration;

use api::{Gvr, Key, PatchType, Tree};
use base::Chain;
use jiff::Timestamp;
use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;
use view::{ClientError, PatchRequest};

use crate::context::Context;
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
    /// What was last written, times apart, and when.
    written: Option<(Tree, Timestamp)>,
    conditions: Vec<Tree>,
    /// The lease as it was last seen.
    lease: Option<Tree>,
    /// When it was last renewed.
    renewed: Option<Timestamp>,
    ready_before: bool,
}

pub fn nodes() -> Gvr {
    Gvr::new("", "v1", "nodes")
}

fn leases() -> Gvr {
    Gvr::new("coordination.k8s.io", "v1", "leases")
}

impl Registrar {
    pub fn new(context: Arc<Context>) -> Registrar {
        let identity = machine::identity();
        Registrar {
            context,
            identity,
            written: None,
            conditions: Vec::new(),
            lease: None,
            renewed: None,
            ready_before: false,
        }
    }

    /// Registers, then keeps lease and status fresh until drained.
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
        let mut pressure = self.context.pressure.subscribe();
        loop {
            let status = self.report().await;
            let lease = self.renew().await;
            for error in [status.err(), lease.err()].into_iter().flatten() {
                tracing::warn!(error = %Chain(&error), "node status or lease was not written");
            }
            // Until it is ready a node looks more often: pods wait for it.
            let wait = if self.ready_before { limits::LEASE_EVERY } else { Duration::from_millis(500) };
            tokio::select! {
                () = drain.cancelled() => return,
                _ = pressure.changed() => {}
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
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        self.conditions = conditions
            .into_iter()
            .filter(|condition| OURS.contains(&condition["type"].as_str().unwrap_or_default()))
            .collect();
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
        let runtime = self.context.runtime.status().await;
        let version = self.context.runtime.version().await.unwrap_or_default();
        if !version.name.is_empty() {
            let mut name = self.context.runtime_name.write().expect("no holder of this lock panics");
            if *name != version.name {
                name.clone_from(&version.name);
            }
        }
        let runtime =
            runtime.unwrap_or_else(|error| RuntimeStatus { message: error.to_string(), ..RuntimeStatus::default() });
        self.context.handlers.write().expect("no holder of this lock panics").clone_from(&runtime.handlers);
        let images = self.context.runtime.list_images().await.ok();
        let facts = self.status(&runtime, images.as_deref(), &format!("{}://{}", version.name, version.version));
        let pressure = self.context.pressure.borrow().conditions();
        let conditions = conditions(&runtime, &pressure, &self.conditions, now);
        let ready = conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        let compared = json!({"facts": facts, "conditions": conditions.iter().map(without_times).collect::<Vec<_>>()});
        let fresh = self.written.as_ref().is_some_and(|(written, at)| {
            let age = Duration::try_from(now.duration_since(*at)).unwrap_or_default();
            *written == compared && age < limits::NODE_REPORT_EVERY
        });
        if fresh && !self.was_silent(now) {
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
        match self.context.client.patch(&request).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {
                // Somebody deleted the Node; we are still here.
                self.register().await?;
                self.written = None;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        if ready != self.ready_before {
            let (warning, reason) = if ready { (false, "NodeReady") } else { (true, "NodeNotReady") };
            let name = &self.context.config.node_name;
            self.context.events.node(name, warning, reason, &format!("Node {name} status is now: {reason}"));
        }
        self.tell_pressure(&conditions);
        self.conditions = conditions;
        self.written = Some((compared, now));
        self.ready_before = ready;
        Ok(())
    }

    /// Nobody heard of this node for so long that the control plane may have called its conditions unknown.
    fn was_silent(&self, now: Timestamp) -> bool {
        self.renewed.is_some_and(|renewed| limits::SILENT_AFTER <= now.duration_since(renewed))
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
    fn status(&self, status: &RuntimeStatus, images: Option<&[Image]>, runtime: &str) -> Tree {
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
                "kernelVersion": identity.kernel, "osImage": identity.os_image, "containerRuntimeVersion": runtime,
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

    // === lease ===

    async fn renew(&mut self) -> Result<(), ClientError> {
        let now = self.context.ports.clock.now();
        self.renew_at(now).await?;
        self.renewed = Some(now);
        Ok(())
    }

    async fn renew_at(&mut self, now: Timestamp) -> Result<(), ClientError> {
        let name = &self.context.config.node_name;
        let now = now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let key = Key::new("kube-node-lease", name);
        if let Some(mut lease) = self.lease.take() {
            lease["spec"]["renewTime"] = json!(now);
            match self.context.client.update(&leases(), &key, None, &lease).await {
                Ok(lease) => {
                    self.lease = Some(lease);
                    return Ok(());
                }
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                Err(error) => {
                    self.lease = Some(lease);
                    return Err(error);
                }
            }
        }
        let spec = json!({"holderIdentity": name, "leaseDurationSeconds": limits::LEASE_SECONDS, "renewTime": now});
        match self.context.client.get(&leases(), &key).await {
            Ok(mut lease) => {
                lease["spec"] = spec;
                self.lease = Some(self.context.client.update(&leases(), &key, None, &lease).await?);
            }
            Err(error) if error.is_not_found() => {
                let node = self.context.client.get(&nodes(), &self.key()).await?;
                let lease = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": name, "namespace": "kube-node-lease", "ownerReferences": [{
                        "apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"],
                    }]},
                    "spec": spec,
                });
                self.lease = Some(self.context.client.create(&leases(), "kube-node-lease", &lease).await?);
            }
            Err(error) => return Err(error),
        }
        Ok(())
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
}
