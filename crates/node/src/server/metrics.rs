//! The metrics pages, under the names that monitoring of Kubernetes knows.

use std::collections::BTreeMap;
use std::fmt::Write;

use http::{Response, StatusCode};
use jiff::Timestamp;

use super::Server;
use super::reply::{self, Body, with_type};
use crate::machine;
use crate::pod::view::PodView;
use crate::runtime::{ContainerStats, labels};

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const NANOS: f64 = 1e9;

/// A page of metrics in the text format.
#[derive(Default)]
struct Page(String);

/// One number of a metric, with its labels as they are written, and when it was measured.
struct Sample {
    labels: String,
    value: f64,
    at: Option<Timestamp>,
}

impl Page {
    fn metric(&mut self, name: &str, kind: &str, help: &str, samples: impl IntoIterator<Item = Sample>) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for Sample { labels, value, at } in samples {
            let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
            let at = at.map(|at| format!(" {}", at.as_millisecond())).unwrap_or_default();
            let _ = writeln!(self.0, "{name}{labels} {value}{at}");
        }
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.metric(name, kind, help, [plain(String::new(), value)]);
    }

    fn answer(self) -> Response<Body> {
        with_type(StatusCode::OK, METRICS_TYPE, reply::full(self.0))
    }
}

fn plain(labels: String, value: f64) -> Sample {
    Sample { labels, value, at: None }
}

/// A number of each container.
type Of = fn(&ContainerStats) -> f64;

fn label<'a>(stats: &'a ContainerStats, name: &str) -> &'a str {
    stats.labels.get(name).map(String::as_str).unwrap_or_default()
}

fn when(stats: &ContainerStats) -> Option<Timestamp> {
    crate::pod::observe::time(stats.timestamp)
}

impl Server {
    /// `/metrics`: the agent itself.
    pub(super) fn metrics(&self) -> Response<Body> {
        let views = self.pods.all();
        let count = |of: fn(&PodView) -> usize| views.iter().map(|view| of(view)).sum::<usize>() as f64;
        let mut page = Page::default();
        let node = plain(format!("node={:?}", self.context.config.node_name), 1.0);
        page.metric("kubelet_node_name", "gauge", "The node's name. The count is always 1.", [node]);
        let pods = count(|view| usize::from(view.sandbox.is_some()));
        page.one("kubelet_running_pods", "gauge", "Number of pods that have a running pod sandbox", pods);
        let running = count(|view| view.containers.values().filter(|one| !one.id.is_empty()).count());
        let running = plain("container_state=\"running\"".to_owned(), running);
        page.metric("kubelet_running_containers", "gauge", "Number of containers currently running", [running]);
        let counts = self.context.counts.evictions();
        let evictions =
            counts.iter().map(|(signal, count)| plain(format!("eviction_signal={signal:?}"), *count as f64));
        page.metric("kubelet_evictions", "counter", "Cumulative number of pod evictions by eviction signal", evictions);
        let version = format!("git_version={:?},platform=\"linux/{}\"", self.context.config.version, machine::arch());
        page.metric("kubernetes_build_info", "gauge", "A metric with a constant '1' value", [plain(version, 1.0)]);
        process(&mut page);
        page.answer()
    }

    /// `/metrics/probes`.
    pub(super) fn metrics_probes(&self) -> Response<Body> {
        let mut page = Page::default();
        let counts = self.context.counts.probes();
        let samples = counts.into_iter().map(|(labels, count)| plain(labels, count as f64));
        let help = "Cumulative number of a liveness, readiness or startup probe for a container by result.";
        page.metric("prober_probe_total", "counter", help, samples);
        page.answer()
    }

    /// `/metrics/resource`: what the metrics server reads.
    pub(super) async fn metrics_resource(&self) -> Response<Body> {
        let load = machine::load(&self.context.config.data_dir);
        let now = Some(self.context.ports.clock.now());
        let node = |value: f64| [Sample { labels: String::new(), value, at: now }];
        let mut page = Page::default();
        let busy = load.cpu_busy_nanos as f64 / NANOS;
        let help = "Cumulative cpu time consumed by the node in core-seconds";
        page.metric("node_cpu_usage_seconds_total", "counter", help, node(busy));
        let memory = (load.memory_total_bytes - load.memory_available_bytes) as f64;
        page.metric("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes", node(memory));
        let stats = self.stats().await;
        let container =
            |of: Of| stats.iter().map(move |one| Sample { labels: names(one), value: of(one), at: when(one) });
        let help = "Cumulative cpu time consumed by the container in core-seconds";
        page.metric("container_cpu_usage_seconds_total", "counter", help, container(cpu));
        let help = "Current working set of the container in bytes";
        page.metric("container_memory_working_set_bytes", "gauge", help, container(working_set));
        let help = "Start time of the container since unix epoch in seconds";
        page.metric("container_start_time_seconds", "gauge", help, self.started());
        let help = "Cumulative cpu time consumed by the pod in core-seconds";
        page.metric("pod_cpu_usage_seconds_total", "counter", help, by_pod(&stats, cpu));
        let help = "Current working set of the pod in bytes";
        page.metric("pod_memory_working_set_bytes", "gauge", help, by_pod(&stats, working_set));
        page.one(
            "resource_scrape_error",
            "gauge",
            "1 if there was an error while getting container metrics, 0 otherwise",
            0.0,
        );
        page.answer()
    }

    /// `/metrics/cadvisor`: what dashboards read.
    pub(super) async fn metrics_cadvisor(&self) -> Response<Body> {
        let mut page = Page::default();
        let machine = &self.context.machine;
        page.one("machine_cpu_cores", "gauge", "Number of logical CPU cores.", machine.cpus as f64);
        page.one(
            "machine_memory_bytes",
            "gauge",
            "Amount of memory installed on the machine.",
            machine.memory_bytes as f64,
        );
        let images = self.images();
        let stats = self.stats().await;
        let rows: [(&str, &str, &str, &str, Of); 6] = [
            (
                "container_cpu_usage_seconds_total",
                "counter",
                "Cumulative cpu time consumed in seconds.",
                "cpu=\"total\",",
                cpu,
            ),
            ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", "", working_set),
            ("container_memory_usage_bytes", "gauge", "Current memory usage in bytes.", "", |one| {
                one.memory_usage_bytes as f64
            }),
            ("container_memory_rss", "gauge", "Size of RSS in bytes.", "", |one| one.memory_rss_bytes as f64),
            ("container_fs_usage_bytes", "gauge", "Number of bytes consumed on this filesystem.", "", |one| {
                one.layer_used_bytes as f64
            }),
            ("container_last_seen", "gauge", "Last time a container was seen by the exporter", "", |one| {
                one.timestamp as f64 / NANOS
            }),
        ];
        for (name, kind, help, extra, of) in rows {
            let sample = |one: &ContainerStats| {
                let image = images.get(&one.id).map(String::as_str).unwrap_or_default();
                Sample { labels: wide(one, image, extra), value: of(one), at: when(one) }
            };
            page.metric(name, kind, help, stats.iter().map(sample));
        }
        page.answer()
    }

    fn started(&self) -> Vec<Sample> {
        let views = self.pods.all();
        let of = |view: &PodView| {
            let meta = &view.pod.metadata;
            let (namespace, pod) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
            let running = view.containers.iter().filter_map(|(name, one)| Some((name.clone(), one.since?)));
            let sample = move |(container, since): (String, Timestamp)| {
                let labels = format!("container={container:?},namespace={namespace:?},pod={pod:?}");
                plain(labels, since.as_millisecond() as f64 / 1000.0)
            };
            running.map(sample).collect::<Vec<_>>()
        };
        views.iter().flat_map(|view| of(view)).collect()
    }

    /// Images by container id.
    fn images(&self) -> BTreeMap<String, String> {
        let views = self.pods.all();
        let of = |view: &PodView| {
            let containers = view.containers.iter().filter(|(_, one)| !one.id.is_empty());
            let image = |name: &str| crate::pod::order::container(&view.pod, name)?.image.clone();
            containers.filter_map(|(name, one)| Some((one.id.clone(), image(name)?))).collect::<Vec<_>>()
        };
        views.iter().flat_map(|view| of(view)).collect()
    }
}

fn cpu(one: &ContainerStats) -> f64 {
    one.cpu_usage_nanos as f64 / NANOS
}

fn working_set(one: &ContainerStats) -> f64 {
    one.memory_working_set_bytes as f64
}

fn names(one: &ContainerStats) -> String {
    let (container, namespace, pod) =
        (label(one, labels::CONTAINER_NAME), label(one, labels::POD_NAMESPACE), label(one, labels::POD_NAME));
    format!("container={container:?},namespace={namespace:?},pod={pod:?}")
}

fn wide(one: &ContainerStats, image: &str, extra: &str) -> String {
    let (container, namespace, pod) =
        (label(one, labels::CONTAINER_NAME), label(one, labels::POD_NAMESPACE), label(one, labels::POD_NAME));
    let id = format!("/kubepods/pod{}/{}", label(one, labels::POD_UID), one.id);
    format!(
        "container={container:?},{extra}id={id:?},image={image:?},name={:?},namespace={namespace:?},pod={pod:?}",
        one.id
    )
}

fn by_pod(stats: &[ContainerStats], of: Of) -> Vec<Sample> {
    let mut sums: BTreeMap<String, Sample> = BTreeMap::new();
    for one in stats {
        let labels =
            format!("namespace={:?},pod={:?}", label(one, labels::POD_NAMESPACE), label(one, labels::POD_NAME));
        let sum = sums.entry(labels.clone()).or_insert(Sample { labels, value: 0.0, at: None });
        sum.value += of(one);
        sum.at = sum.at.max(when(one));
    }
    sums.into_values().collect()
}

/// What every exporter tells of its process.
fn process(page: &mut Page) {
    let own = machine::process();
    let help = "Total user and system CPU time spent in seconds.";
    page.one("process_cpu_seconds_total", "counter", help, own.cpu_seconds);
    page.one("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", own.resident_bytes as f64);
    page.one("process_open_fds", "gauge", "Number of open file descriptors.", own.open_files as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_the_sum_of_their_containers() {
        let stats = |pod: &str, nanos: u64, at: i64| ContainerStats {
            labels: [(labels::POD_NAMESPACE.to_owned(), "n".to_owned()), (labels::POD_NAME.to_owned(), pod.to_owned())]
                .into(),
            cpu_usage_nanos: nanos,
            timestamp: at,
            ..ContainerStats::default()
        };
        let mut page = Page::default();
        let all = [stats("a", 1_500_000_000, 1_000_000_000), stats("a", 500_000_000, 2_000_000_000), stats("b", 0, 0)];
        page.metric("pod_cpu_usage_seconds_total", "counter", "h", by_pod(&all, cpu));
        assert_eq!(
            page.0,
            "# HELP pod_cpu_usage_seconds_total h\n# TYPE pod_cpu_usage_seconds_total counter\n\
             pod_cpu_usage_seconds_total{namespace=\"n\",pod=\"a\"} 2 2000\n\
             pod_cpu_usage_seconds_total{namespace=\"n\",pod=\"b\"} 0\n"
        );
    }
}
