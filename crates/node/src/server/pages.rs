//! Small pages of the agent's own state: pods as they are held, pods that run, the configuration in force.

use http::Response;
use serde_json::{Map, Value, json};

use super::Server;
use super::reply::{self, Body};
use crate::limits;
use crate::pressure::threshold::Least;

impl Server {
    pub(super) fn pod_list(&self) -> Response<Body> {
        let items = self.pods.all().into_iter().map(|view| {
            let mut pod = serde_json::to_value(&*view.pod).unwrap_or_default();
            pod["status"] = view.status.clone();
            pod
        });
        list(items.collect())
    }

    /// Pods with what runs of them, and no more than a runtime knows.
    pub(super) fn running_pods(&self) -> Response<Body> {
        let views = self.pods.all().into_iter().filter(|view| view.sandbox.is_some());
        let items = views.map(|view| {
            let meta = &view.pod.metadata;
            let running = view.containers.iter().filter(|(_, one)| !one.id.is_empty());
            let containers = running.map(|(name, _)| {
                let image = crate::pod::order::container(&view.pod, name).and_then(|one| one.image.clone());
                json!({"name": name, "image": image.unwrap_or_default(), "resources": {}})
            });
            json!({
                "metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
                "spec": {"containers": containers.collect::<Vec<_>>()}, "status": {},
            })
        });
        list(items.collect())
    }

    /// `KubeletConfiguration` as far as this agent has the settings.
    pub(super) fn configz(&self) -> Response<Body> {
        let config = &self.context.config;
        let least = |least: &Least| match least {
            Least::Amount(amount) => api::Quantity::from_bytes(*amount).to_string(),
            Least::Share(share) => format!("{}%", f64::from(*share) / 100.0),
        };
        let thresholds = config.eviction_hard.iter();
        let eviction: Map<String, Value> =
            thresholds.map(|one| (one.signal.name().to_owned(), json!(least(&one.least)))).collect();
        reply::json(&json!({"kubeletconfig": {
            "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "address": config.listen.ip().to_string(), "port": config.listen.port(),
            "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}},
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs", "cgroupRoot": config.cgroup_root, "cgroupsPerQOS": true,
            "clusterDNS": config.cluster_dns, "clusterDomain": config.cluster_domain,
            "containerLogMaxFiles": limits::LOG_FILES_MAX, "containerLogMaxSize": format!("{}Mi", limits::LOG_BYTES_MAX >> 20),
            "evictionHard": eviction, "evictionPressureTransitionPeriod": "5m0s",
            "imageGCHighThresholdPercent": config.image_gc_high, "imageGCLowThresholdPercent": config.image_gc_low,
            "imageMinimumGCAge": format!("{}s", limits::IMAGE_AGE_MIN.as_secs()),
            "maxPods": config.max_pods, "resolvConf": config.resolv_conf, "readOnlyPort": 0, "staticPodPath": "",
            "nodeLeaseDurationSeconds": limits::LEASE_SECONDS,
            "nodeStatusReportFrequency": format!("{}s", limits::NODE_REPORT_EVERY.as_secs()),
            "nodeStatusUpdateFrequency": format!("{}s", limits::NODE_CHECK_EVERY.as_secs()),
            "enableSystemLogHandler": true, "failSwapOn": false,
        }}))
    }
}

fn list(items: Vec<Value>) -> Response<Body> {
    reply::json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}
