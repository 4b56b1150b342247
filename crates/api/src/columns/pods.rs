//! Pods: what they are waiting for, how often they restarted.

use jiff::Timestamp;
use serde_json::json;

use super::{NONE, age, containers, labels, number, or};
use crate::{Tree, meta};

/// Ready, Status, Restarts, IP, Node, Nominated Node, Readiness Gates.
pub(super) fn pod(pod: &Tree, now: Timestamp) -> Vec<Tree> {
    let mut view = View::new(pod);
    let initializing = view.init_containers();
    if !initializing || condition(pod, "Initialized") == "True" {
        view.main_containers();
    }
    view.deletion();
    let restarts = match view.last_restart {
        Some(at) if view.restarts != 0 => format!("{} ({} ago)", view.restarts, age::between(at, now)),
        _ => view.restarts.to_string(),
    };
    let ip = meta::list_at(pod, "status.podIPs").first().map_or("", |first| meta::str_at(first, "ip"));
    vec![
        json!(format!("{}/{}", view.ready, view.total)),
        json!(view.reason),
        json!(restarts),
        json!(or(or(ip, meta::str_at(pod, "status.podIP")), NONE)),
        json!(or(meta::str_at(pod, "spec.nodeName"), NONE)),
        json!(or(meta::str_at(pod, "status.nominatedNodeName"), NONE)),
        json!(readiness_gates(pod)),
    ]
}

/// Containers, Images, Pod Labels.
pub(super) fn template(object: &Tree) -> Vec<Tree> {
    let [names, images] = containers(meta::tree_at(object, "template.spec"));
    vec![names, images, json!(labels(meta::tree_at(object, "template.metadata.labels")))]
}

fn readiness_gates(pod: &Tree) -> String {
    let gates = meta::list_at(pod, "spec.readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let held = gates.iter().filter(|gate| condition(pod, meta::str_at(gate, "conditionType")) == "True").count();
    format!("{held}/{}", gates.len())
}

fn condition<'a>(object: &'a Tree, ty: &str) -> &'a str {
    let conditions = meta::list_at(object, "status.conditions");
    conditions.iter().find(|one| meta::str_at(one, "type") == ty).map_or("", |one| meta::str_at(one, "status"))
}

struct View<'a> {
    pod: &'a Tree,
    reason: String,
    restarts: i64,
    last_restart: Option<Timestamp>,
    ready: usize,
    total: usize,
    /// Of sidecars alone: what counts once initialisation is over.
    sidecar_restarts: i64,
    sidecar_last_restart: Option<Timestamp>,
}

impl<'a> View<'a> {
    fn new(pod: &'a Tree) -> View<'a> {
        let mut reason = or(meta::str_at(pod, "status.reason"), meta::str_at(pod, "status.phase")).to_owned();
        let gated = |one: &&Tree| {
            meta::str_at(one, "type") == "PodScheduled" && meta::str_at(one, "reason") == "SchedulingGated"
        };
        if meta::list_at(pod, "status.conditions").iter().find(gated).is_some() {
            reason = "SchedulingGated".to_owned();
        }
        let sidecars = meta::list_at(pod, "spec.initContainers").iter().filter(|one| is_sidecar(one)).count();
        View {
            pod,
            reason,
            restarts: 0,
            last_restart: None,
            ready: 0,
            total: meta::list_at(pod, "spec.containers").len() + sidecars,
            sidecar_restarts: 0,
            sidecar_last_restart: None,
        }
    }

    /// True when initialisation is not over; the reason says where it stands.
    fn init_containers(&mut self) -> bool {
        let specs = meta::list_at(self.pod, "spec.initContainers");
        for (at, status) in meta::list_at(self.pod, "status.initContainerStatuses").iter().enumerate() {
            let restarts = number(status, "restartCount");
            let finished = finished_at(status);
            self.restarts += restarts;
            self.last_restart = self.last_restart.max(finished);
            let name = meta::str_at(status, "name");
            let sidecar = specs.iter().any(|spec| meta::str_at(spec, "name") == name && is_sidecar(spec));
            if sidecar {
                self.sidecar_restarts += restarts;
                self.sidecar_last_restart = self.sidecar_last_restart.max(finished);
            }
            let terminated = meta::tree_at(status, "state.terminated");
            let waiting = meta::str_at(status, "state.waiting.reason");
            if terminated.is_some_and(|state| number(state, "exitCode") == 0) {
                continue;
            }
            if sidecar && meta::bool_at(status, "started") {
                self.ready += usize::from(meta::bool_at(status, "ready"));
                continue;
            }
            self.reason = match terminated {
                Some(state) => format!("Init:{}", ended(state)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
                None => format!("Init:{at}/{}", specs.len()),
            };
            return true;
        }
        false
    }

    fn main_containers(&mut self) {
        self.restarts = self.sidecar_restarts;
        self.last_restart = self.sidecar_last_restart;
        let mut running = false;
        for status in meta::list_at(self.pod, "status.containerStatuses").iter().rev() {
            self.restarts += number(status, "restartCount");
            self.last_restart = self.last_restart.max(finished_at(status));
            let waiting = meta::str_at(status, "state.waiting.reason");
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.reason);
            } else if let Some(state) = meta::tree_at(status, "state.terminated") {
                self.reason = ended(state);
            } else if meta::bool_at(status, "ready") && meta::tree_at(status, "state.running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            let ready = condition(self.pod, "Ready") == "True";
            self.reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }

    fn deletion(&mut self) {
        if meta::deletion_timestamp(self.pod).is_empty() {
            return;
        }
        if meta::str_at(self.pod, "status.reason") == "NodeLost" {
            self.reason = "Unknown".to_owned();
        } else if !matches!(meta::str_at(self.pod, "status.phase"), "Succeeded" | "Failed") {
            self.reason = "Terminating".to_owned();
        }
    }
}

fn is_sidecar(container: &Tree) -> bool {
    meta::str_at(container, "restartPolicy") == "Always"
}

fn finished_at(status: &Tree) -> Option<Timestamp> {
    meta::str_at(status, "lastState.terminated.finishedAt").parse().ok()
}

/// Why a container ended: its reason, else its signal, else its exit code.
fn ended(state: &Tree) -> String {
    match (meta::str_at(state, "reason"), number(state, "signal")) {
        ("", 0) => format!("ExitCode:{}", number(state, "exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}
