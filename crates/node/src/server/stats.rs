//! `/stats/summary`: what containers, pods and the machine use.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Response;
use k8s_openapi::api::core::v1 as core;
use serde_json::{Value, json};

use super::Server;
use super::reply::{self, Body};
use crate::limits;
use crate::machine;
use crate::pod::observe;
use crate::pod::status::seconds;
use crate::pressure::usage::{self, PodUsage};
use crate::runtime::{ContainerStats, labels};

impl Server {
    pub(super) async fn stats(&self) -> Arc<Vec<ContainerStats>> {
        self.context.meter.stats().await.unwrap_or_default()
    }

    pub(super) async fn summary(&self) -> Response<Body> {
        let now = seconds(self.context.ports.clock.now());
        let stats = self.stats().await;
        let mut pods: BTreeMap<String, (Value, Vec<&ContainerStats>)> = BTreeMap::new();
        for one in &*stats {
            let label = |name: &str| one.labels.get(name).cloned().unwrap_or_default();
            let uid = label(labels::POD_UID);
            if uid.is_empty() {
                continue;
            }
            let reference =
                json!({"name": label(labels::POD_NAME), "namespace": label(labels::POD_NAMESPACE), "uid": uid});
            pods.entry(uid).or_insert((reference, Vec::new())).1.push(one);
        }
        let views = self.pods.all();
        let known: Vec<Arc<core::Pod>> = views.iter().map(|view| view.pod.clone()).collect();
        let measured = usage::measure(&self.context, &known, &stats, limits::FOLDERS_KEPT_FOR).await;
        let uids = known.iter().map(|pod| pod.metadata.uid.clone().unwrap_or_default());
        let files: BTreeMap<String, PodUsage> = uids.zip(measured).collect();
        let none = PodUsage::default();
        let pods: Vec<Value> = pods
            .into_iter()
            .map(|(uid, (reference, stats))| pod_summary(&reference, &stats, files.get(&uid).unwrap_or(&none), &now))
            .collect();
        let load = machine::load(&self.context.config.data_dir);
        let disk = load.disk.unwrap_or_default();
        let used = disk.total_bytes.saturating_sub(disk.available_bytes);
        let disk = json!({
            "time": now, "availableBytes": disk.available_bytes, "capacityBytes": disk.total_bytes,
            "usedBytes": used, "inodesFree": disk.inodes_free, "inodes": disk.inodes_total,
            "inodesUsed": disk.inodes_total.saturating_sub(disk.inodes_free),
        });
        let images = self.context.runtime.image_filesystem().await.unwrap_or_default();
        let mut image_disk = disk.clone();
        image_disk["usedBytes"] = json!(images.used_bytes);
        let memory = load.memory_total_bytes - load.memory_available_bytes;
        reply::json(&json!({
            "node": {
                "nodeName": self.context.config.node_name,
                "cpu": {"time": now, "usageCoreNanoSeconds": load.cpu_busy_nanos},
                "memory": {
                    "time": now, "availableBytes": load.memory_available_bytes, "usageBytes": memory,
                    "workingSetBytes": memory,
                },
                "fs": disk, "runtime": {"imageFs": image_disk},
                "rlimit": {"time": now, "maxpid": load.pids_max, "curproc": load.pids},
            },
            "pods": pods,
        }))
    }
}

fn pod_summary(reference: &Value, stats: &[&ContainerStats], files: &PodUsage, now: &str) -> Value {
    let sum = |of: fn(&ContainerStats) -> u64| stats.iter().map(|one| of(one)).sum::<u64>();
    let walked = files.walked.map_or_else(|| now.to_owned(), seconds);
    let container = |one: &&ContainerStats| {
        let time = observe::time(one.timestamp).map_or_else(|| now.to_owned(), seconds);
        let name = one.labels.get(labels::CONTAINER_NAME).unwrap_or(&one.name);
        let logs = files.containers.get(name).map(|usage| usage.logs).unwrap_or_default();
        json!({
            "name": name, "startTime": now,
            "cpu": {"time": time, "usageCoreNanoSeconds": one.cpu_usage_nanos},
            "memory": {
                "time": time, "usageBytes": one.memory_usage_bytes, "workingSetBytes": one.memory_working_set_bytes,
                "rssBytes": one.memory_rss_bytes, "pageFaults": one.memory_page_faults,
                "majorPageFaults": one.memory_major_page_faults,
            },
            "rootfs": {"time": time, "usedBytes": one.layer_used_bytes, "inodesUsed": one.layer_inodes_used},
            "logs": {"time": walked, "usedBytes": logs.bytes, "inodesUsed": logs.inodes},
        })
    };
    let volumes = files
        .empty_dirs
        .iter()
        .map(|(name, du)| json!({"name": name, "time": walked, "usedBytes": du.bytes, "inodesUsed": du.inodes}));
    let storage = files.storage();
    json!({
        "podRef": reference, "startTime": now, "containers": stats.iter().map(container).collect::<Vec<_>>(),
        "cpu": {"time": now, "usageCoreNanoSeconds": sum(|one| one.cpu_usage_nanos)},
        "memory": {"time": now, "usageBytes": sum(|one| one.memory_usage_bytes),
            "workingSetBytes": sum(|one| one.memory_working_set_bytes)},
        "volume": volumes.collect::<Vec<_>>(),
        "ephemeral-storage": {"time": walked, "usedBytes": storage.bytes, "inodesUsed": storage.inodes},
        "process_stats": {"process_count": files.processes},
    })
}
