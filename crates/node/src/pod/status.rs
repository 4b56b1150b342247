//! The status that is shown of a pod, derived from the state machine in this one place. Pure.
//!
//! Phase and conditions exist only on the wire; nothing inside the node decides by them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use serde_json::{Map, json};

use super::fsm::{Life, Pod};
use super::order;
use super::resize::{self, Resizing};
use super::slot::{Exit, Role, Slot, SlotState};
use crate::spec::qos;
use api::Tree;

/// What of the machine shows in a pod's status.
#[derive(Clone, Debug, Default)]
pub struct Host {
    pub ips: Vec<String>,
    /// Prefix of container ids: `containerd`.
    pub runtime: String,
}

/// The whole status this node owns. `prior` is the status the API holds: times of unchanged conditions come from it.
/// None where the pod is gone.
pub fn derive(pod: &Pod, host: &Host, now: Timestamp) -> Option<Tree> {
    let life = pod.life()?;
    let prior = serde_json::to_value(&life.pod.status).unwrap_or_default();
    Some(derive_from(pod, life, &prior, host, now))
}

/// As `derive`, against a status that may be newer than the pod's record.
pub fn derive_from(pod: &Pod, life: &Life, prior: &Tree, host: &Host, now: Timestamp) -> Tree {
    let phase = phase(pod, life);
    let mut status = Map::new();
    status.insert("phase".into(), json!(phase));
    status.insert("conditions".into(), conditions(pod, life, phase, prior, now));
    status.insert("startTime".into(), json!(seconds(life.started_at)));
    status.insert("qosClass".into(), json!(qos::class(&life.pod).as_str()));
    if let Some(generation) = life.pod.metadata.generation {
        status.insert("observedGeneration".into(), json!(generation));
    }
    if let Some(first) = host.ips.first() {
        status.insert("hostIP".into(), json!(first));
        status.insert("hostIPs".into(), host.ips.iter().map(|ip| json!({"ip": ip})).collect());
    }
    let ips = pod_ips(life, host);
    if let Some(first) = ips.first() {
        status.insert("podIP".into(), json!(first));
        status.insert("podIPs".into(), ips.iter().map(|ip| json!({"ip": ip})).collect());
    }
    let final_reason = matches!(phase, "Failed");
    if let Some(outcome) = life.outcome.as_ref().filter(|outcome| final_reason && !outcome.reason.is_empty()) {
        status.insert("reason".into(), json!(outcome.reason));
        status.insert("message".into(), json!(outcome.message));
    }
    let lists = [
        ("initContainerStatuses", &[Role::Init, Role::Sidecar][..]),
        ("containerStatuses", &[Role::Main]),
        ("ephemeralContainerStatuses", &[Role::Ephemeral]),
    ];
    for (field, roles) in lists {
        let slots = life.slots.iter().filter(|slot| roles.contains(&slot.role));
        let statuses: Vec<Tree> = slots.map(|slot| container_status(life, slot, host)).collect();
        if !statuses.is_empty() {
            status.insert(field.into(), Tree::Array(statuses));
        }
    }
    Tree::Object(status)
}

/// What to send so that the API's `prior` becomes `wanted`; None when it already is. A strategic merge patch of the
/// status: conditions merge by type, so that other writers' conditions stay.
pub fn patch(uid: &str, prior: &Tree, wanted: &Tree) -> Option<Tree> {
    let wanted_map = wanted.as_object()?;
    let mut change = Map::new();
    for (field, value) in wanted_map {
        let old = prior.get(field);
        if field == "conditions" {
            let changed = changed_conditions(old, value);
            if !changed.is_empty() {
                change.insert(field.clone(), Tree::Array(changed));
            }
        } else if old != Some(value) {
            let mut value = value.clone();
            if let (Some(list), Some(true)) =
                (value.as_array_mut(), old.map(|_| matches!(field.as_str(), "podIPs" | "hostIPs")))
            {
                list.push(json!({"$patch": "replace"}));
            }
            change.insert(field.clone(), value);
        }
    }
    for field in ["reason", "message", "podIP", "podIPs"] {
        if prior.get(field).is_some_and(|value| !value.is_null()) && !wanted_map.contains_key(field) {
            change.insert(field.into(), Tree::Null);
        }
    }
    (!change.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": change}))
}

fn changed_conditions(old: Option<&Tree>, new: &Tree) -> Vec<Tree> {
    let empty = Vec::new();
    let old = old.and_then(Tree::as_array).unwrap_or(&empty);
    let new = new.as_array().unwrap_or(&empty);
    let find = |kind: &Tree| old.iter().find(|condition| condition.get("type") == Some(kind));
    let mut changed = Vec::new();
    for condition in new {
        let Some(kind) = condition.get("type") else { continue };
        let Some(before) = find(kind) else {
            changed.push(condition.clone());
            continue;
        };
        let same = ["status", "reason", "message", "observedGeneration"].into_iter().all(|field| {
            let value = |tree: &Tree| tree.get(field).filter(|value| !value.is_null()).cloned();
            value(before) == value(condition)
        });
        if !same {
            let mut condition = condition.clone();
            for field in ["reason", "message"] {
                if before.get(field).is_some() && condition.get(field).is_none() {
                    condition[field] = Tree::Null;
                }
            }
            changed.push(condition);
        }
    }
    let over = |condition: &&Tree| {
        let ours = [RESIZE_PENDING, RESIZE_IN_PROGRESS].iter().any(|kind| condition["type"] == *kind);
        ours && new.iter().all(|kept| kept["type"] != condition["type"])
    };
    let over = old.iter().filter(over).map(|condition| json!({"$patch": "delete", "type": condition["type"]}));
    changed.extend(over);
    changed
}

fn pod_ips(life: &Life, host: &Host) -> Vec<String> {
    let host_network = life.pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
    if host_network && life.sandbox_attempt != 0 { host.ips.clone() } else { life.ips.clone() }
}

// === phase ===

pub fn phase(pod: &Pod, life: &Life) -> &'static str {
    let ended = matches!(pod, Pod::Clearing(_) | Pod::Over(_));
    let mut mains = life.slots.iter().filter(|slot| slot.role == Role::Main);
    if ended {
        let ok = life.outcome.as_ref().is_none_or(|outcome| outcome.reason.is_empty())
            && mains.all(|slot| slot.exit().is_some_and(|exit| exit.code == 0));
        return match prior_phase(life) {
            // What was once final stays.
            Some("Succeeded") => "Succeeded",
            Some("Failed") => "Failed",
            _ if ok => "Succeeded",
            _ => "Failed",
        };
    }
    let fresh = |slot: &Slot| match &slot.state {
        SlotState::Waiting { .. } | SlotState::Starting { .. } => slot.last.is_none(),
        SlotState::Running(_) | SlotState::Stopping(_) | SlotState::Exited(_) => false,
    };
    if !life.initialized || mains.any(fresh) { "Pending" } else { "Running" }
}

fn prior_phase(life: &Life) -> Option<&str> {
    life.pod.status.as_ref()?.phase.as_deref()
}

// === conditions ===

const RESIZE_PENDING: &str = "PodResizePending";
const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";

struct Verdict {
    kind: &'static str,
    status: bool,
    reason: &'static str,
    message: String,
}

fn conditions(pod: &Pod, life: &Life, phase: &str, prior: &Tree, now: Timestamp) -> Tree {
    let containers = containers_ready(life, phase);
    let ready = with_gates(life, prior, &containers);
    let sandbox_up = matches!(pod, Pod::Active(..) | Pod::Stopping(_, Some(_), _))
        || matches!(pod, Pod::Preparing(life) if life.found.is_some());
    let plain = |kind, status| Verdict { kind, status, reason: "", message: String::new() };
    let disruption = life.outcome.as_ref().filter(|outcome| outcome.disruption).map(|outcome| Verdict {
        kind: "DisruptionTarget",
        status: true,
        reason: "TerminationByKubelet",
        message: outcome.message.clone(),
    });
    let resize = resize_conditions(life);
    let verdicts = [
        plain("PodReadyToStartContainers", sandbox_up),
        initialized(life, phase),
        ready,
        containers,
        plain("PodScheduled", true),
    ];
    let generation = life.pod.metadata.generation;
    verdicts
        .into_iter()
        .chain(disruption)
        .chain(resize)
        .map(|verdict| verdict.to_tree(prior, generation, now))
        .collect()
}

impl Verdict {
    fn to_tree(&self, prior: &Tree, generation: Option<i64>, now: Timestamp) -> Tree {
        let status = if self.status { "True" } else { "False" };
        let before = prior.get("conditions").and_then(Tree::as_array).into_iter().flatten();
        let before = before.filter(|condition| condition["type"] == self.kind).find(|c| c["status"] == status);
        let since = before.and_then(|condition| condition["lastTransitionTime"].as_str()).map(str::to_owned);
        let mut tree = json!({
            "type": self.kind, "status": status, "lastProbeTime": null,
            "lastTransitionTime": since.unwrap_or_else(|| seconds(now)),
        });
        if !self.reason.is_empty() {
            tree["reason"] = json!(self.reason);
        }
        if !self.message.is_empty() {
            tree["message"] = json!(self.message);
        }
        if let Some(generation) = generation {
            tree["observedGeneration"] = json!(generation);
        }
        tree
    }
}

/// Shown only while there is something to wait for.
fn resize_conditions(life: &Life) -> Vec<Verdict> {
    let mut found = Vec::new();
    if let Some(pending) = &life.resize {
        let message = pending.message.clone();
        found.push(Verdict { kind: RESIZE_PENDING, status: true, reason: pending.reason, message });
    }
    let left = life.slots.iter().filter(|slot| matches!(slot.role, Role::Main | Role::Sidecar)).filter_map(|slot| {
        let run = slot.run()?;
        let wanted = order::container(&life.pod, &slot.name)?.resources.as_ref();
        (!resize::changes(run.applied.as_ref(), wanted).is_empty()).then_some(run)
    });
    let errors: Vec<Option<String>> = left
        .map(|run| match &run.resizing {
            Resizing::Failed { message, .. } => Some(message.clone()),
            Resizing::Idle | Resizing::Working => None,
        })
        .collect();
    if !errors.is_empty() {
        let message = errors.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let reason = if message.is_empty() { "" } else { "Error" };
        found.push(Verdict { kind: RESIZE_IN_PROGRESS, status: true, reason, message });
    }
    found
}

fn initialized(life: &Life, phase: &str) -> Verdict {
    let kind = "Initialized";
    if phase == "Succeeded" {
        return Verdict { kind, status: true, reason: "PodCompleted", message: String::new() };
    }
    let done = |slot: &&Slot| match slot.role {
        Role::Init => slot.exit().is_some_and(|exit| exit.code == 0),
        Role::Sidecar => slot.is_started(),
        Role::Main | Role::Ephemeral => true,
    };
    let open: Vec<&str> = life.slots.iter().filter(|slot| !done(slot)).map(|slot| slot.name.as_str()).collect();
    if life.initialized || open.is_empty() {
        return Verdict { kind, status: true, reason: "", message: String::new() };
    }
    let message = format!("containers with incomplete status: [{}]", open.join(" "));
    Verdict { kind, status: false, reason: "ContainersNotInitialized", message }
}

fn containers_ready(life: &Life, phase: &str) -> Verdict {
    let kind = "ContainersReady";
    match phase {
        "Succeeded" => return Verdict { kind, status: false, reason: "PodCompleted", message: String::new() },
        "Failed" => return Verdict { kind, status: false, reason: "PodFailed", message: String::new() },
        _ => {}
    }
    let counts = |slot: &&Slot| matches!(slot.role, Role::Main | Role::Sidecar);
    let unready =
        life.slots.iter().filter(counts).filter(|slot| !slot.run().is_some_and(|run| run.ready && run.started));
    let unready: Vec<&str> = unready.map(|slot| slot.name.as_str()).collect();
    if unready.is_empty() {
        return Verdict { kind, status: true, reason: "", message: String::new() };
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    Verdict { kind, status: false, reason: "ContainersNotReady", message }
}

fn with_gates(life: &Life, prior: &Tree, containers: &Verdict) -> Verdict {
    let kind = "Ready";
    if !containers.status {
        return Verdict { kind, status: false, reason: containers.reason, message: containers.message.clone() };
    }
    let gates = life.pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_ref()).into_iter().flatten();
    let mut open = Vec::new();
    for gate in gates {
        let gate = gate.condition_type.as_str();
        let conditions = prior.get("conditions").and_then(Tree::as_array).into_iter().flatten();
        let found = conditions.into_iter().find(|condition| condition["type"] == gate);
        match found.map(|condition| condition["status"].as_str().unwrap_or_default()) {
            Some("True") => {}
            Some(status) => {
                open.push(format!("the status of pod readiness gate {gate:?} is not \"True\", but {status}"));
            }
            None => open.push(format!("corresponding condition of pod readiness gate {gate:?} does not exist.")),
        }
    }
    if open.is_empty() {
        return Verdict { kind, status: true, reason: "", message: String::new() };
    }
    Verdict { kind, status: false, reason: "ReadinessGatesNotReady", message: open.join(", ") }
}

// === containers ===

fn container_status(life: &Life, slot: &Slot, host: &Host) -> Tree {
    let (image, facts) = facts(life, slot);
    let mut status = json!({
        "name": slot.name,
        "image": image,
        "imageID": "",
        "ready": false,
        "started": false,
        "restartCount": slot.restarts,
        "lastState": slot.last.as_ref().map(|exit| json!({"terminated": terminated(exit, host)})).unwrap_or_else(|| json!({})),
        "state": state(slot, host),
    });
    if let Some(run) = slot.run() {
        status["started"] = json!(run.started);
        status["ready"] = json!(match slot.role {
            Role::Main | Role::Sidecar => run.ready && run.started,
            Role::Init | Role::Ephemeral => false,
        });
        status["containerID"] = json!(container_id(&run.id, host));
        set_image(&mut status, &run.image, &run.image_ref);
        if let Some((uid, gid, groups)) = &run.user {
            status["user"] = json!({"linux": {"uid": uid, "gid": gid, "supplementalGroups": groups}});
        }
    } else if let Some(exit) = slot.latest_exit() {
        status["ready"] = json!(slot.role == Role::Init && slot.exit().is_some_and(|exit| exit.code == 0));
        if !exit.id.is_empty() {
            status["containerID"] = json!(container_id(&exit.id, host));
        }
        set_image(&mut status, &exit.image, &exit.image_ref);
    }
    if let (Tree::Object(status), Tree::Object(facts)) = (&mut status, facts) {
        status.extend(facts);
    }
    status
}

fn set_image(status: &mut Tree, image: &str, image_ref: &str) {
    if !image.is_empty() {
        status["image"] = json!(image);
    }
    status["imageID"] = json!(image_ref);
}

/// The image asked for, and what of the spec is repeated in the status.
fn facts(life: &Life, slot: &Slot) -> (String, Tree) {
    let mut facts = Map::new();
    let Some(container) = order::container(&life.pod, &slot.name) else {
        let extra = life.pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
        let extra = extra.into_iter().find(|extra| extra.name == slot.name);
        return (extra.and_then(|extra| extra.image.clone()).unwrap_or_default(), Tree::Object(facts));
    };
    if let Some(resources) = &container.resources
        && (resources.requests.is_some() || resources.limits.is_some())
    {
        if let Some(requests) = &resources.requests {
            facts.insert("allocatedResources".into(), json!(requests));
        }
        // Of a container that runs, what it was given; that may still be on its way to what is promised.
        let given = slot.run().and_then(|run| run.applied.as_ref()).unwrap_or(resources);
        let shown = core::ResourceRequirements { claims: None, ..given.clone() };
        facts.insert("resources".into(), json!(shown));
    }
    let mounts: Vec<Tree> = container.volume_mounts.iter().flatten().map(mount_status).collect();
    if !mounts.is_empty() {
        facts.insert("volumeMounts".into(), Tree::Array(mounts));
    }
    (container.image.clone().unwrap_or_default(), Tree::Object(facts))
}

fn mount_status(mount: &core::VolumeMount) -> Tree {
    let mut tree = json!({"name": mount.name, "mountPath": mount.mount_path});
    if mount.read_only == Some(true) {
        tree["readOnly"] = json!(true);
        tree["recursiveReadOnly"] = json!(mount.recursive_read_only.as_deref().unwrap_or("Disabled"));
    }
    tree
}

fn state(slot: &Slot, host: &Host) -> Tree {
    match &slot.state {
        SlotState::Waiting { reason, message, .. } | SlotState::Starting { reason, message } => {
            let mut waiting = json!({"reason": if reason == "Cancelled" { "ContainerCreating" } else { reason }});
            if !message.is_empty() {
                waiting["message"] = json!(message);
            }
            json!({"waiting": waiting})
        }
        SlotState::Running(run) | SlotState::Stopping(run) => {
            json!({"running": {"startedAt": run.since.map(seconds)}})
        }
        SlotState::Exited(exit) => json!({"terminated": terminated(exit, host)}),
    }
}

fn terminated(exit: &Exit, host: &Host) -> Tree {
    let mut tree = json!({
        "exitCode": exit.code,
        "reason": exit.reason,
        "startedAt": exit.started_at.map(seconds),
        "finishedAt": exit.finished_at.map(seconds),
    });
    if exit.signal != 0 {
        tree["signal"] = json!(exit.signal);
    }
    if !exit.message.is_empty() {
        tree["message"] = json!(exit.message);
    }
    if !exit.id.is_empty() {
        tree["containerID"] = json!(container_id(&exit.id, host));
    }
    tree
}

pub fn container_id(id: &str, host: &Host) -> String {
    format!("{}://{id}", host.runtime)
}

/// RFC 3339 in whole seconds, as `metav1.Time` is written.
pub fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
