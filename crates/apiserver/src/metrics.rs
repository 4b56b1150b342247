//! What `/metrics` shows of the API server, under upstream's names.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds of the request durations, in seconds.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    pub verb: String,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DurationLabels {
    pub verb: String,
    pub group: String,
    pub resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct InflightLabels {
    pub request_kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ObjectLabels {
    pub resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WatchLabels {
    pub group: String,
    pub resource: String,
}

/// The counters requests touch.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<DurationLabels, Histogram, fn() -> Histogram>,
    pub inflight: Family<InflightLabels, Gauge>,
    pub watches: Family<WatchLabels, Gauge>,
    pub rejected: Family<InflightLabels, Counter>,
    pub audit_dropped: Gauge,
    pub store_revision: Gauge<i64, AtomicI64>,
    objects: Family<ObjectLabels, Gauge>,
}

// === impl Metrics ===

impl Metrics {
    pub fn new() -> Metrics {
        let mut registry = Registry::default();
        let requests = Family::default();
        registry.register("apiserver_request", "Requests by verb, resource and code", Family::clone(&requests));
        let make: fn() -> Histogram = || Histogram::new(SECONDS);
        let durations = Family::new_with_constructor(make);
        let help = "Time to answer, in seconds, watches and streams apart";
        registry.register("apiserver_request_duration_seconds", help, Family::clone(&durations));
        let inflight = Family::default();
        registry.register("apiserver_current_inflight_requests", "Requests being served", Family::clone(&inflight));
        let watches = Family::default();
        registry.register("apiserver_longrunning_requests", "Open watches", Family::clone(&watches));
        let rejected = Family::default();
        registry.register("apiserver_rejected_requests", "Requests told 429", Family::clone(&rejected));
        let audit_dropped = Gauge::default();
        registry.register("apiserver_audit_dropped_lines", "Audit lines a full queue cost", audit_dropped.clone());
        let objects = Family::default();
        registry.register("apiserver_storage_objects", "Stored objects by resource", Family::clone(&objects));
        let store_revision = store_revision_of(&mut registry);
        Metrics { registry, requests, durations, inflight, watches, rejected, audit_dropped, store_revision, objects }
    }

    pub fn set_objects(&self, counts: Vec<(base::SmolStr, usize)>) {
        for (storage, count) in counts.into_iter().filter(|(storage, _)| !storage.starts_with('_')) {
            let labels = ObjectLabels { resource: storage.trim_start_matches('/').to_owned() };
            self.objects.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub fn observe(&self, labels: RequestLabels, took: Option<Duration>) {
        if let Some(took) = took {
            let DurationLabels { verb, group, resource } = DurationLabels {
                verb: labels.verb.clone(),
                group: labels.group.clone(),
                resource: labels.resource.clone(),
            };
            self.durations.get_or_create(&DurationLabels { verb, group, resource }).observe(took.as_secs_f64());
        }
        self.requests.get_or_create(&labels).inc();
    }

    /// The text format of Prometheus.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes any text");
        text
    }
}

fn store_revision_of(registry: &mut Registry) -> Gauge<i64, AtomicI64> {
    let gauge = Gauge::default();
    registry.register("evenkeel_store_revision", "The store's newest revision", Gauge::clone(&gauge));
    gauge
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}
