//! `/stats/summary` and the metrics pages: what containers and the machine use.

use std::collections::BTreeMap;
use std::fmt::Write;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::Server;
use super::reply::{self, Body, with_type};
use crate::machine;
use crate::pod::observe;
use crate::pod::status::seconds;
use crate::runtime::{ContainerStats, labels};

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Server {
    async fn stats(&self) -> Vec<ContainerStats> {
        self.context.runtime.container_stats(&BTreeMap::new()).await.unwrap_or_default()
    }

    pub(super) async fn summary(&self) -> Response<Body> {
        let now = seconds(self.context.ports.clock.now());
        let stats = self.stats().await;
        let mut pods: BTreeMap<String, (Value, Vec<&ContainerStats>)> = BTreeMap::new();
        for one in &stats {
            let label = |name: &str| one.labels.get(name).cloned().unwrap_or_default();
            let uid = label(labels::POD_UID);
            if uid.is_empty() {
                continue;
            }
            let reference =
                json!({"name": label(labels::POD_NAME), "namespace": label(labels::POD_NAMESPACE), "uid": uid});
            pods.entry(uid).or_insert((reference, Vec::new())).1.push(one);
        }
        let pods: Vec<Value> =
            pods.into_values().map(|(reference, stats)| pod_summary(&reference, &stats, &now)).collect();
        let load = machine::load(&self.context.config.data_dir);
        let used = load.disk_total_bytes.saturating_sub(load.disk_available_bytes);
        let disk = json!({
            "time": now, "availableBytes": load.disk_available_bytes, "capacityBytes": load.disk_total_bytes,
            "usedBytes": used, "inodesFree": load.inodes_free, "inodes": load.inodes_total,
            "inodesUsed": load.inodes_total.saturating_sub(load.inodes_free),
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

    pub(super) fn metrics(&self) -> Response<Body> {
        let views = self.pods.all();
        let running: usize =
            views.iter().map(|view| view.containers.values().filter(|c| !c.id.is_empty()).count()).sum();
        let mut text = String::new();
        gauge(
            &mut text,
            "kubelet_running_pods",
            "Pods that have a running sandbox.",
            "",
            views.iter().filter(|view| view.sandbox.is_some()).count(),
        );
        gauge(&mut text, "kubelet_running_containers", "Containers that run.", "container_state=\"running\"", running);
        gauge(
            &mut text,
            "kubelet_node_name",
            "The node's name.",
            &format!("node={:?}", self.context.config.node_name),
            1,
        );
        with_type(StatusCode::OK, METRICS_TYPE, reply::full(text))
    }

    pub(super) async fn metrics_resource(&self) -> Response<Body> {
        let load = machine::load(&self.context.config.data_dir);
        let mut text = String::new();
        let busy = load.cpu_busy_nanos as f64 / 1e9;
        let _ = writeln!(text, "# TYPE node_cpu_usage_seconds_total counter\nnode_cpu_usage_seconds_total {busy}");
        let memory = load.memory_total_bytes - load.memory_available_bytes;
        let _ = writeln!(text, "# TYPE node_memory_working_set_bytes gauge\nnode_memory_working_set_bytes {memory}");
        let stats = self.stats().await;
        rows(&mut text, "container_cpu_usage_seconds_total", "counter", &stats, |one| one.cpu_usage_nanos as f64 / 1e9);
        rows(&mut text, "container_memory_working_set_bytes", "gauge", &stats, |one| {
            one.memory_working_set_bytes as f64
        });
        let _ = writeln!(text, "# TYPE resource_scrape_error gauge\nresource_scrape_error 0");
        with_type(StatusCode::OK, METRICS_TYPE, reply::full(text))
    }

    pub(super) async fn metrics_cadvisor(&self) -> Response<Body> {
        let stats = self.stats().await;
        let mut text = String::new();
        rows(&mut text, "container_cpu_usage_seconds_total", "counter", &stats, |one| one.cpu_usage_nanos as f64 / 1e9);
        rows(&mut text, "container_memory_working_set_bytes", "gauge", &stats, |one| {
            one.memory_working_set_bytes as f64
        });
        rows(&mut text, "container_memory_usage_bytes", "gauge", &stats, |one| one.memory_usage_bytes as f64);
        rows(&mut text, "container_memory_rss", "gauge", &stats, |one| one.memory_rss_bytes as f64);
        rows(&mut text, "container_fs_usage_bytes", "gauge", &stats, |one| one.layer_used_bytes as f64);
        with_type(StatusCode::OK, METRICS_TYPE, reply::full(text))
    }
}

fn pod_summary(reference: &Value, stats: &[&ContainerStats], now: &str) -> Value {
    let sum = |of: fn(&ContainerStats) -> u64| stats.iter().map(|one| of(one)).sum::<u64>();
    let container = |one: &&ContainerStats| {
        let time = observe::time(one.timestamp).map_or_else(|| now.to_owned(), seconds);
        json!({
            "name": one.labels.get(labels::CONTAINER_NAME).unwrap_or(&one.name), "startTime": now,
            "cpu": {"time": time, "usageCoreNanoSeconds": one.cpu_usage_nanos},
            "memory": {
                "time": time, "usageBytes": one.memory_usage_bytes, "workingSetBytes": one.memory_working_set_bytes,
                "rssBytes": one.memory_rss_bytes, "pageFaults": one.memory_page_faults,
                "majorPageFaults": one.memory_major_page_faults,
            },
            "rootfs": {"time": time, "usedBytes": one.layer_used_bytes, "inodesUsed": one.layer_inodes_used},
        })
    };
    json!({
        "podRef": reference, "startTime": now, "containers": stats.iter().map(container).collect::<Vec<_>>(),
        "cpu": {"time": now, "usageCoreNanoSeconds": sum(|one| one.cpu_usage_nanos)},
        "memory": {"time": now, "usageBytes": sum(|one| one.memory_usage_bytes),
            "workingSetBytes": sum(|one| one.memory_working_set_bytes)},
        "ephemeral-storage": {"time": now, "usedBytes": sum(|one| one.layer_used_bytes)},
    })
}

fn gauge(text: &mut String, name: &str, help: &str, labels: &str, value: usize) {
    let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{labels} {value}");
}

fn rows(text: &mut String, name: &str, kind: &str, stats: &[ContainerStats], value: impl Fn(&ContainerStats) -> f64) {
    let _ = writeln!(text, "# TYPE {name} {kind}");
    for one in stats {
        let label = |name: &str| one.labels.get(name).map(String::as_str).unwrap_or_default();
        let (container, namespace, pod) =
            (label(labels::CONTAINER_NAME), label(labels::POD_NAMESPACE), label(labels::POD_NAME));
        let _ = writeln!(text, "{name}{{container={container:?},namespace={namespace:?},pod={pod:?}}} {}", value(one));
    }
}
