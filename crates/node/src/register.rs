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
use crate::machine::{self, Identity, Load};
use crate::pod::slot::retry_delay;
use crate::pod::status::seconds;
use crate::runtime::{Image, RuntimeStatus};

/// Available memory, disk and pids below which a condition warns.
const MEMORY_AVAILABLE_MIN: i64 = 100 << 20;
const DISK_AVAILABLE_PERCENT_MIN: u64 = 5;
const PIDS_FREE_MIN: u64 = 1000;

pub struct Registrar {
    context: Arc<Context>,
    identity: Identity,
    /// What was last written, times apart, and when.
    written: Option<(Tree, Timestamp)>,
    conditions: Vec<Tree>,
    /// The lease as it was last seen.
    lease: Option<Tree>,
    ready_before: bool,
}

fn nodes() -> Gvr {
    Gvr::new("", "v1", "nodes")
}

fn leases() -> Gvr {
    Gvr::new("coordination.k8s.io", "v1", "leases")
}

impl Registrar {
    pub fn new(context: Arc<Context>) -> Registrar {
        let identity = machine::identity();
        Registrar { context, identity, written: None, conditions: Vec::new(), lease: None, ready_before: false }
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
        self.context.events.node(&self.context.config.node_name, false, "Starting", "Starting kubelet.");
        loop {
            let status = self.report().await;
            let lease = self.renew().await;
            for error in [status.err(), lease.err()].into_iter().flatten() {
                tracing::warn!(error = %Chain(&error), "node status or lease was not written");
            }
            // Until it is ready a node looks more often: pods wait for it.
            let wait = if self.ready_before { limits::LEASE_EVERY } else { Duration::from_millis(500) };
            if drain.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
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
        let load = machine::load(&self.context.config.data_dir);
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
        let images = self.context.runtime.list_images().await.unwrap_or_default();
        let facts = self.status(&load, &images, &format!("{}://{}", version.name, version.version));
        let conditions = conditions(&runtime, &load, &self.conditions, now);
        let ready = conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        let compared = json!({"facts": facts, "conditions": conditions.iter().map(without_times).collect::<Vec<_>>()});
        let fresh = self.written.as_ref().is_some_and(|(written, at)| {
            let age = Duration::try_from(now.duration_since(*at)).unwrap_or_default();
            *written == compared && age < limits::NODE_REPORT_EVERY
        });
        if fresh {
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
        self.conditions = conditions;
        self.written = Some((compared, now));
        self.ready_before = ready;
        Ok(())
    }

    fn status(&self, load: &Load, images: &[Image], runtime: &str) -> Tree {
        let config = &self.context.config;
        let machine = &self.context.machine;
        let mut addresses: Vec<Tree> =
            config.node_ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip.to_string()})).collect();
        addresses.push(json!({"type": "Hostname", "address": config.node_name}));
        let allocatable_disk = load.disk_total_bytes / 10 * 9;
        let quantities = |cpu: String, memory: i64, disk: u64| {
            json!({
                "cpu": cpu, "memory": format!("{}Ki", memory / 1024), "pods": config.max_pods.to_string(),
                "ephemeral-storage": format!("{}Ki", disk / 1024), "hugepages-1Gi": "0", "hugepages-2Mi": "0",
            })
        };
        let milli = machine.allocatable_cpu_milli;
        let cpu = if milli % 1000 == 0 { (milli / 1000).to_string() } else { format!("{milli}m") };
        let identity = &self.identity;
        json!({
            "capacity": quantities(machine.cpus.to_string(), machine.memory_bytes, load.disk_total_bytes),
            "allocatable": quantities(cpu, machine.allocatable_memory_bytes, allocatable_disk),
            "addresses": addresses,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": config.listen.port()}},
            "nodeInfo": {
                "machineID": identity.machine_id, "systemUUID": identity.system_uuid, "bootID": identity.boot_id,
                "kernelVersion": identity.kernel, "osImage": identity.os_image, "containerRuntimeVersion": runtime,
                "kubeletVersion": config.version, "kubeProxyVersion": config.version, "operatingSystem": "linux",
                "architecture": identity.arch, "swap": {"capacity": identity.swap_bytes},
            },
            "images": image_list(images),
            "features": {"supplementalGroupsPolicy": false},
        })
    }

    // === lease ===

    async fn renew(&mut self) -> Result<(), ClientError> {
        let name = &self.context.config.node_name;
        let now = self.context.ports.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
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

fn conditions(runtime: &RuntimeStatus, load: &Load, before: &[Tree], now: Timestamp) -> Vec<Tree> {
    let memory = load.memory_available_bytes < MEMORY_AVAILABLE_MIN;
    let percent = |part: u64, whole: u64| part.saturating_mul(100).checked_div(whole).unwrap_or(100);
    let disk = percent(load.disk_available_bytes, load.disk_total_bytes) < DISK_AVAILABLE_PERCENT_MIN
        || percent(load.inodes_free, load.inodes_total) < DISK_AVAILABLE_PERCENT_MIN;
    let pids = load.pids_max.saturating_sub(load.pids) < PIDS_FREE_MIN;
    let ready = runtime.runtime_ready && runtime.network_ready;
    let why = format!("container runtime network not ready: {}", runtime.message);
    let rows = [
        (
            "MemoryPressure",
            memory,
            if memory { "KubeletHasInsufficientMemory" } else { "KubeletHasSufficientMemory" },
            if memory {
                "kubelet has insufficient memory available"
            } else {
                "kubelet has sufficient memory available"
            },
        ),
        (
            "DiskPressure",
            disk,
            if disk { "KubeletHasDiskPressure" } else { "KubeletHasNoDiskPressure" },
            if disk { "kubelet has disk pressure" } else { "kubelet has no disk pressure" },
        ),
        (
            "PIDPressure",
            pids,
            if pids { "KubeletHasInsufficientPID" } else { "KubeletHasSufficientPID" },
            if pids { "kubelet has insufficient PID available" } else { "kubelet has sufficient PID available" },
        ),
        (
            "Ready",
            ready,
            if ready { "KubeletReady" } else { "KubeletNotReady" },
            if ready { "kubelet is posting ready status" } else { why.as_str() },
        ),
    ];
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
