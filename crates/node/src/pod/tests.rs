//! Scripts for the pod's state machine: events in, effects and phase out.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use serde_json::{Value, json};

use super::adopt::{self, Found};
use super::event::{PodEffect, PodEvent, StartFailure, What};
use super::fsm::{Outcome, Pod, Sandbox};
use super::resize::Pending;
use super::slot::{Exit, Run, SlotState};
use super::status::{self, Host};
use crate::runtime::{ContainerState, ContainerStatus, SandboxStatus};

/// A pod and its clock. Effects are written down as words.
struct World {
    pod: Pod,
    now: i64,
    out: Vec<String>,
    record: Value,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn word(effect: &PodEffect) -> String {
    match effect {
        PodEffect::Prepare => "prepare".into(),
        PodEffect::RunSandbox { attempt } => format!("sandbox#{attempt}"),
        PodEffect::Start { name, attempt } => format!("start {name}#{attempt}"),
        PodEffect::CancelStart { name } => format!("cancel {name}"),
        PodEffect::Stop { name, grace_seconds, .. } => format!("stop {name} {grace_seconds}s"),
        PodEffect::Resize { name, .. } => format!("resize {name}"),
        PodEffect::StopSandbox { id } => format!("stop-sandbox {id}"),
        PodEffect::Clear => "clear".into(),
        PodEffect::DeleteRecord => "delete".into(),
        PodEffect::Event { reason, .. } => format!("[{reason}]"),
    }
}

impl World {
    fn new(spec: Value) -> World {
        World::with(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}), &Found::default())
    }

    fn with(record: Value, found: &Found) -> World {
        let pod: Arc<core::Pod> = Arc::new(serde_json::from_value(record.clone()).unwrap());
        let mut effects = Vec::new();
        let pod = Pod::new(adopt::life(&pod, found, at(0)), at(0), &mut effects);
        World { pod, now: 0, out: effects.iter().map(word).collect(), record }
    }

    fn step(&mut self, what: What) -> &mut World {
        let mut effects = Vec::new();
        let state = std::mem::replace(&mut self.pod, Pod::Gone);
        self.pod = state.step(PodEvent { at: at(self.now), what }, &mut effects);
        self.out.extend(effects.iter().map(word));
        self
    }

    /// Up to running containers' starts.
    fn up(&mut self) -> &mut World {
        self.step(What::Prepared).step(What::SandboxUp(Sandbox { id: "s".into(), ips: vec!["10.0.0.1".into()] }))
    }

    fn started(&mut self, name: &str, attempt: u32) -> &mut World {
        let since = Some(at(self.now));
        let run = Run { id: format!("{name}{attempt}"), since, started: true, ready: true, ..Run::default() };
        self.step(What::Started { name: name.into(), attempt, run })
    }

    fn exited(&mut self, id: &str, code: i32) -> &mut World {
        let name = id.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
        let (started_at, finished_at) = (Some(at(self.now)), Some(at(self.now)));
        let exit = Exit { id: id.into(), code, started_at, finished_at, ..Exit::default() };
        self.step(What::Exited { name, exit })
    }

    fn delete(&mut self, grace: i64) -> &mut World {
        self.record["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:00Z");
        self.record["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        let pod = Arc::new(serde_json::from_value(self.record.clone()).unwrap());
        self.step(What::Spec(pod, None))
    }

    fn wait(&mut self, seconds: i64) -> &mut World {
        self.now += seconds;
        self.step(What::Tick)
    }

    /// Everything done since the last look, and the phase.
    fn check(&mut self, wanted: &str) -> &mut World {
        let phase = self.pod.life().map_or("gone", |life| status::phase(&self.pod, life));
        let out = std::mem::take(&mut self.out);
        assert_eq!(format!("{} | {phase}", out.join(", ")), wanted);
        self
    }

    fn status(&self) -> Value {
        let host = Host { ips: vec!["192.0.2.1".into()], runtime: "containerd".into() };
        status::derive(&self.pod, &host, at(self.now)).unwrap()
    }

    fn condition(&self, kind: &str) -> String {
        let status = self.status();
        let all = status["conditions"].as_array().unwrap().clone();
        let found = all.into_iter().find(|condition| condition["type"] == kind).unwrap();
        found["status"].as_str().unwrap().to_owned()
    }
}

fn containers(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"name": name, "image": "i"})).collect()
}

#[test]
fn a_pod_starts_runs_and_is_deleted() {
    let mut world = World::new(json!({"containers": containers(&["a", "b"])}));
    world.check("prepare | Pending");
    world.up().check("sandbox#0, start a#0, start b#0 | Pending");
    world.started("a", 0).check(" | Pending");
    world.started("b", 0).check(" | Running");
    assert_eq!(world.condition("Ready"), "True");
    world.delete(30).check("[Killing], stop a 30s, [Killing], stop b 30s | Running");
    world.exited("a0", 0).check(" | Running");
    world.exited("b0", 143).check("clear | Failed");
    world.step(What::Cleared).check("delete | Failed");
    world.step(What::Removed).check(" | gone");
}

#[test]
fn init_containers_run_in_order_and_sidecars_stay() {
    let mut inits = containers(&["i", "s", "j"]);
    inits[1]["restartPolicy"] = json!("Always");
    let mut world = World::new(json!({"initContainers": inits, "containers": containers(&["a"])}));
    world.up().check("prepare, sandbox#0, start i#0 | Pending");
    world.started("i", 0).exited("i0", 0).check("start s#0 | Pending");
    world.started("s", 0).check("start j#0 | Pending");
    // A sidecar that dies comes back, also while later init containers run.
    world.started("j", 0).exited("s0", 1).check("start s#1 | Pending");
    world.started("s", 1).exited("j0", 0).check("start a#0 | Pending");
    world.started("a", 0).check(" | Running");
    // Sidecars stop after the main containers.
    world.delete(10).check("[Killing], stop a 10s | Running");
    world.exited("a0", 0).check("[Killing], stop s 10s | Running");
    world.exited("s1", 0).check("clear | Succeeded");
}

#[test]
fn a_failing_container_backs_off() {
    let mut world = World::new(json!({"containers": containers(&["a"])}));
    world.up().started("a", 0).exited("a0", 1).check("prepare, sandbox#0, start a#0, start a#1 | Running");
    world.started("a", 1).exited("a1", 1).check(" | Running");
    let status = world.status();
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(status["containerStatuses"][0]["restartCount"], 1);
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 1);
    world.wait(9).check(" | Running");
    world.wait(1).check("start a#2 | Running");
}

#[test]
fn a_job_pod_ends_by_its_exit_codes() {
    for (policy, code, wanted) in [
        ("Never", 0, "clear | Succeeded"),
        ("Never", 3, "clear | Failed"),
        ("OnFailure", 0, "clear | Succeeded"),
        ("OnFailure", 3, "start a#1 | Running"),
    ] {
        let mut world = World::new(json!({"restartPolicy": policy, "containers": containers(&["a"])}));
        world.up().started("a", 0).check("prepare, sandbox#0, start a#0 | Running");
        world.exited("a0", code).check(wanted);
    }
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let spec =
        json!({"restartPolicy": "Never", "initContainers": containers(&["i"]), "containers": containers(&["a"])});
    let mut world = World::new(spec);
    world.up().started("i", 0).exited("i0", 1).check("prepare, sandbox#0, start i#0, clear | Failed");
    world.step(What::Cleared).check(" | Failed");
}

#[test]
fn rules_of_a_container_overrule_the_pods_policy() {
    let mut list = containers(&["a"]);
    list[0]["restartPolicy"] = json!("Never");
    list[0]["restartPolicyRules"] = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    let mut world = World::new(json!({"restartPolicy": "Always", "containers": list}));
    world.up().started("a", 0).exited("a0", 42).check("prepare, sandbox#0, start a#0, start a#1 | Running");
    world.started("a", 1).exited("a1", 1).check("clear | Failed");
}

#[test]
fn a_deadline_ends_the_pod() {
    let mut world = World::new(json!({"activeDeadlineSeconds": 5, "containers": containers(&["a"])}));
    world.up().started("a", 0).check("prepare, sandbox#0, start a#0 | Running");
    assert_eq!(world.pod.wake_at(), Some(at(5)));
    world.wait(5).check("[DeadlineExceeded], [Killing], stop a 30s | Running");
    world.exited("a0", 0).step(What::Cleared).check("clear | Failed");
    assert_eq!(world.status()["reason"], "DeadlineExceeded");
}

#[test]
fn a_failed_liveness_probe_restarts_and_a_shorter_grace_overtakes() {
    let mut world = World::new(json!({"containers": containers(&["a"])}));
    world.up().started("a", 0);
    let unhealthy =
        |id: &str| What::Unhealthy { name: "a".into(), id: id.into(), message: "m".into(), grace_seconds: Some(7) };
    world.step(unhealthy("old")).check("prepare, sandbox#0, start a#0 | Running");
    world.step(unhealthy("a0")).check("[Killing], stop a 7s | Running");
    assert_eq!(world.condition("Ready"), "False");
    world.exited("a0", 137).check("start a#1 | Running");
    world.started("a", 1).delete(30).check("[Killing], stop a 30s | Running");
    world.delete(1).check("stop a 1s | Running");
}

#[test]
fn a_dead_sandbox_is_replaced_and_init_runs_again() {
    let mut world = World::new(json!({"initContainers": containers(&["i"]), "containers": containers(&["a"])}));
    world
        .up()
        .started("i", 0)
        .exited("i0", 0)
        .started("a", 0)
        .check("prepare, sandbox#0, start i#0, start a#0 | Running");
    world.step(What::SandboxLost).check("[SandboxChanged], stop-sandbox s, sandbox#1 | Pending");
    world.step(What::SandboxUp(Sandbox { id: "t".into(), ips: vec![] })).check("start i#1 | Pending");
    world.started("i", 1).exited("i1", 0).check("start a#1 | Running");
}

#[test]
fn a_start_under_way_is_cancelled_by_deletion() {
    let mut world = World::new(json!({"containers": containers(&["a"])}));
    world.up().delete(30).check("prepare, sandbox#0, start a#0, cancel a | Pending");
    let failure =
        StartFailure { reason: "ContainerCreating".into(), message: String::new(), retry_at: None, exit: None };
    let failed = What::StartFailed { name: "a".into(), attempt: 0, created: false, failure };
    world.step(failed).step(What::Cleared).check("clear, delete | Failed");
}

#[test]
fn failures_before_a_start_are_tried_again() {
    let mut world = World::new(json!({"containers": containers(&["a"])}));
    world
        .step(What::PrepareFailed { reason: "FailedMount", message: "no".into() })
        .check("prepare, [FailedMount] | Pending");
    world.wait(1).check("prepare | Pending");
    world.step(What::Prepared).step(What::SandboxFailed { message: "no".into() });
    world.check("sandbox#0, [FailedCreatePodSandBox] | Pending");
    world.wait(1).check("sandbox#1 | Pending");
    world.step(What::SandboxUp(Sandbox::default())).check("start a#0 | Pending");
    let failure =
        StartFailure { reason: "ErrImagePull".into(), message: "x".into(), retry_at: Some(at(9)), exit: None };
    world.step(What::StartFailed { name: "a".into(), attempt: 0, created: false, failure }).check(" | Pending");
    assert_eq!(world.status()["containerStatuses"][0]["state"]["waiting"]["reason"], "ErrImagePull");
    world.wait(9).check("start a#0 | Pending");
}

#[test]
fn eviction_keeps_its_reason() {
    let mut world = World::new(json!({"containers": containers(&["a"])}));
    world.up().started("a", 0);
    let outcome = Outcome { reason: "Evicted".into(), message: "disk".into(), ..Outcome::default() };
    world.step(What::Evict(outcome)).exited("a0", 0).step(What::Cleared);
    assert_eq!(
        (world.status()["phase"].clone(), world.status()["reason"].clone()),
        (json!("Failed"), json!("Evicted"))
    );
}

#[test]
fn an_evicted_pod_gets_the_nodes_grace_and_says_who_took_it() {
    let mut world = World::new(json!({"containers": containers(&["a"])}));
    world.up().started("a", 0).check("prepare, sandbox#0, start a#0 | Running");
    let outcome =
        Outcome { reason: "Evicted".into(), message: "memory".into(), grace_seconds: Some(1), disruption: true };
    world.step(What::Evict(outcome.clone())).check("[Evicted], [Killing], stop a 1s | Running");
    assert_eq!(world.condition("DisruptionTarget"), "True");
    // What ends already is not told again.
    world.step(What::Evict(outcome)).check(" | Running");
    world.exited("a0", 137).check("clear | Failed");
}

#[test]
fn a_pod_that_was_not_taken_fails_without_a_start() {
    let pod: Arc<core::Pod> =
        Arc::new(serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": []}})).unwrap());
    let mut life = adopt::life(&pod, &Found::default(), at(0));
    life.outcome =
        Some(Outcome { reason: "OutOfcpu".into(), message: "Pod was rejected: no".into(), ..Outcome::default() });
    let mut effects = Vec::new();
    let pod = Pod::new(life, at(0), &mut effects);
    assert_eq!(effects.iter().map(word).collect::<Vec<_>>(), ["clear"]);
    let status = status::derive(&pod, &Host::default(), at(0)).unwrap();
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("OutOfcpu")));
}

// === resize ===

fn with_cpu(cpu: &str, policy: &str) -> Value {
    let mut list = containers(&["a"]);
    list[0]["resources"] = json!({"requests": {"cpu": cpu}});
    list[0]["resizePolicy"] = json!([{"resourceName": "cpu", "restartPolicy": policy}]);
    json!({"containers": list})
}

impl World {
    /// The record asks for another share of cpu, and gets it promised unless `pending`.
    fn resize(&mut self, cpu: &str, policy: &str, pending: Option<Pending>) -> &mut World {
        if pending.is_none() {
            self.record["spec"] = with_cpu(cpu, policy);
        }
        let pod = Arc::new(serde_json::from_value(self.record.clone()).unwrap());
        self.step(What::Spec(pod, pending))
    }

    fn running(cpu: &str, policy: &str) -> World {
        let mut world = World::new(with_cpu(cpu, policy));
        world.up().check("prepare, sandbox#0, start a#0 | Pending");
        world.started_with("a", 0, cpu).check(" | Running");
        world
    }

    fn started_with(&mut self, name: &str, attempt: u32, cpu: &str) -> &mut World {
        let applied = serde_json::from_value(json!({"requests": {"cpu": cpu}})).unwrap();
        let run = Run { id: format!("{name}{attempt}"), started: true, ready: true, applied, ..Run::default() };
        self.step(What::Started { name: name.into(), attempt, run })
    }

    fn resized(&mut self, outcome: Result<&str, &str>) -> &mut World {
        let resources = |cpu: &str| serde_json::from_value(json!({"requests": {"cpu": cpu}})).unwrap();
        let outcome = outcome.map(resources).map_err(str::to_owned);
        self.step(What::Resized { name: "a".into(), id: "a0".into(), outcome })
    }

    fn resize_conditions(&self) -> String {
        let all = self.status()["conditions"].as_array().unwrap().clone();
        let ours = all.iter().filter(|one| one["type"].as_str().unwrap().starts_with("PodResize"));
        ours.map(|one| format!("{} {}", one["type"].as_str().unwrap(), one["reason"].as_str().unwrap_or("-")))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

#[test]
fn a_container_is_resized_while_it_runs() {
    let mut world = World::running("1", "NotRequired");
    world.resize("2", "NotRequired", None).check("resize a | Running");
    assert_eq!(world.resize_conditions(), "PodResizeInProgress -");
    assert_eq!(world.status()["containerStatuses"][0]["allocatedResources"]["cpu"], "2");
    assert_eq!(world.status()["containerStatuses"][0]["resources"]["requests"]["cpu"], "1");
    // Asked for more meanwhile: one at a time.
    world.resize("3", "NotRequired", None).check(" | Running");
    world.resized(Ok("2")).check("resize a | Running");
    world.resized(Err("no")).check(" | Running");
    assert_eq!(world.resize_conditions(), "PodResizeInProgress Error");
    assert_eq!(world.pod.wake_at(), Some(at(10)));
    world.wait(10).check("resize a | Running");
    world.resized(Ok("3")).check(" | Running");
    assert_eq!(world.resize_conditions(), "");
    assert_eq!(world.status()["containerStatuses"][0]["resources"]["requests"]["cpu"], "3");
}

#[test]
fn a_container_that_wants_a_restart_for_its_resize_gets_one_at_once() {
    let mut world = World::running("1", "RestartContainer");
    world.resize("2", "RestartContainer", None).check("[Killing], stop a 30s | Running");
    world.exited("a0", 0).check("start a#1 | Running");
    world.started_with("a", 1, "2").check(" | Running");
    assert_eq!(world.resize_conditions(), "");
}

#[test]
fn what_is_not_promised_is_shown_as_pending_and_goes_away() {
    let mut world = World::running("1", "NotRequired");
    let pending = Pending { reason: "Deferred", message: "full".into() };
    world.resize("9", "NotRequired", Some(pending)).check(" | Running");
    assert_eq!(world.resize_conditions(), "PodResizePending Deferred");
    let shown = world.status();
    world.resize("1", "NotRequired", None).check(" | Running");
    let patch = status::patch("u", &shown, &world.status()).unwrap();
    assert_eq!(patch["status"]["conditions"], json!([{"$patch": "delete", "type": "PodResizePending"}]));
}

// === adoption ===

fn found(containers: Vec<(&str, u32, ContainerState, i32)>) -> Found {
    let mut sandbox = SandboxStatus::default();
    sandbox.sandbox.id = "s".into();
    sandbox.sandbox.ready = true;
    sandbox.ips = vec!["10.0.0.9".parse().unwrap()];
    let status = |(name, attempt, state, exit_code): (&str, u32, ContainerState, i32)| ContainerStatus {
        id: format!("{name}{attempt}"),
        name: name.into(),
        attempt,
        state,
        exit_code,
        started_at: 1_000_000_000,
        finished_at: if state == ContainerState::Exited { 2_000_000_000 } else { 0 },
        ..ContainerStatus::default()
    };
    Found { sandboxes: vec![sandbox], containers: containers.into_iter().map(status).collect() }
}

#[test]
fn a_running_pod_is_adopted_without_a_restart() {
    let record = json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"initContainers": containers(&["i"]), "containers": containers(&["a"])},
    });
    let found = found(vec![("a", 2, ContainerState::Running, 0), ("a", 1, ContainerState::Exited, 9)]);
    let mut world = World::with(record, &found);
    world.check("prepare | Running");
    world.step(What::Prepared).check(" | Running");
    let status = world.status();
    assert_eq!(status["containerStatuses"][0]["restartCount"], 2);
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 9);
    assert_eq!(status["podIP"], "10.0.0.9");
}

#[test]
fn an_exit_while_the_agent_was_away_is_not_lost() {
    let record = json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"restartPolicy": "Never", "containers": containers(&["a"])},
    });
    let mut world = World::with(record, &found(vec![("a", 0, ContainerState::Exited, 5)]));
    world.step(What::Prepared).check("prepare, clear | Failed");
    assert_eq!(world.status()["containerStatuses"][0]["state"]["terminated"]["exitCode"], 5);
}

#[test]
fn a_finished_pod_is_only_cleared() {
    let record = json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"restartPolicy": "Never", "containers": containers(&["a"])},
        "status": {"phase": "Succeeded", "containerStatuses": [{"name": "a", "image": "i", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}]},
    });
    let mut world = World::with(record, &Found::default());
    world.check("clear | Succeeded");
    world.step(What::Cleared).check(" | Succeeded");
    world.delete(30).check("delete | Succeeded");
}

// === status ===

#[test]
fn only_changes_are_written() {
    let mut world = World::new(json!({"containers": containers(&["a"])}));
    world.up().started("a", 0);
    let wanted = world.status();
    let first = status::patch("u", &Value::Null, &wanted).unwrap();
    assert_eq!(first["metadata"]["uid"], "u");
    assert_eq!(status::patch("u", &wanted, &wanted), None);
    let mut other = wanted.clone();
    other["conditions"].as_array_mut().unwrap().push(json!({"type": "foreign", "status": "True"}));
    assert_eq!(status::patch("u", &other, &wanted), None, "conditions of others are left alone");
}

#[test]
fn readiness_gates_count() {
    let mut world = World::new(json!({"containers": containers(&["a"]), "readinessGates": [{"conditionType": "x/y"}]}));
    world.up().started("a", 0);
    assert_eq!((world.condition("ContainersReady").as_str(), world.condition("Ready").as_str()), ("True", "False"));
    world.record["status"] = json!({"conditions": [{"type": "x/y", "status": "True"}]});
    let pod = Arc::new(serde_json::from_value(world.record.clone()).unwrap());
    world.step(What::Spec(pod, None));
    assert_eq!(world.condition("Ready"), "True");
}

#[test]
fn late_news_changes_nothing() {
    let mut world = World::new(json!({"containers": containers(&["a"])}));
    world.up().started("a", 0);
    world.check("prepare, sandbox#0, start a#0 | Running");
    world
        .exited("a7", 1)
        .step(What::Prepared)
        .step(What::Cleared)
        .step(What::Startup { name: "a".into(), id: "x".into() });
    world.check(" | Running");
    let slot = &world.pod.life().unwrap().slots[0];
    assert!(matches!(slot.state, SlotState::Running(_)));
}
