//! Scripts: nodes and pods in, decisions out. A binding is applied as the API would.

use std::sync::Arc;

use api::{Gvr, Key, Object, Op, Plan, Snapshot, Stream, Tree};
use base::Revision;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::{Config, Scheduler};

struct World {
    scheduler: Scheduler,
    snapshot: Snapshot,
    revision: u64,
    now: Timestamp,
}

fn gvr(kind: &str) -> Gvr {
    match kind {
        "StorageClass" => Gvr::new("storage.k8s.io", "v1", "storageclasses"),
        "PodDisruptionBudget" => Gvr::new("policy", "v1", "poddisruptionbudgets"),
        kind => Gvr::new("", "v1", &format!("{}s", kind.to_lowercase())),
    }
}

impl World {
    fn new() -> World {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        World { scheduler: Scheduler::new(Config::default()), snapshot: Snapshot::default(), revision: 1, now }
    }

    fn put(&mut self, mut tree: Tree) {
        self.revision += 1;
        let key = Key::new(
            tree["metadata"]["namespace"].as_str().unwrap_or_default(),
            tree["metadata"]["name"].as_str().unwrap(),
        );
        tree["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        if tree["metadata"]["uid"].is_null() {
            tree["metadata"]["uid"] = json!(format!("uid-{}", key.name));
        }
        let gvr = gvr(tree["kind"].as_str().unwrap());
        let mut stream = self.snapshot.stream(&gvr);
        stream.put(Arc::new(Object::parse(serde_json::to_vec(&tree).unwrap().into()).unwrap()));
        self.set(gvr, stream);
    }

    fn remove(&mut self, kind: &str, namespace: &str, name: &str) {
        self.revision += 1;
        let mut stream = self.snapshot.stream(&gvr(kind));
        stream.remove(&Key::new(namespace, name));
        self.set(gvr(kind), stream);
    }

    fn set(&mut self, gvr: Gvr, mut stream: Stream) {
        stream.revision = Revision(self.revision);
        stream.synced = true;
        self.snapshot.put_stream(gvr, stream);
    }

    fn node(&mut self, name: &str, cpu: &str, more: Tree) {
        let mut node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": {}, "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}},
        });
        overlay(&mut node, &more);
        self.put(node);
    }

    fn pod(&mut self, name: &str, cpu: &str, more: Tree) {
        let resources = json!({"requests": {"cpu": cpu, "memory": "64Mi"}});
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a", "labels": {"app": "web"}},
            "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c", "image": "i", "resources": resources}]},
            "status": {"phase": "Pending"},
        });
        overlay(&mut pod, &more);
        self.put(pod);
    }

    fn plan(&mut self) -> Plan {
        self.scheduler.plan(&self.snapshot, self.now)
    }

    /// Plans and performs; answers one line per operation.
    fn step(&mut self) -> Vec<String> {
        let plan = self.plan();
        let ops: Vec<Op> = plan.steps.into_iter().flatten().collect();
        ops.iter().map(|op| self.perform(op)).collect()
    }

    fn perform(&mut self, op: &Op) -> String {
        match op {
            Op::Post { key, body, .. } => {
                let node = body["target"]["name"].as_str().unwrap().to_owned();
                let mut pod = self.snapshot.stream(&gvr("Pod")).get(key).unwrap().tree();
                pod["spec"]["nodeName"] = json!(node);
                self.put(pod);
                format!("bind {} {node}", key.name)
            }
            Op::Patch { gvr, key, body, .. } => {
                let mut tree = self.snapshot.stream(gvr).get(key).unwrap().tree();
                overlay(&mut tree, body);
                let line = format!("patch {} {body}", key.name);
                self.put(tree);
                line
            }
            Op::Delete { key, .. } => {
                self.remove("Pod", &key.namespace, &key.name);
                format!("delete {}", key.name)
            }
            Op::Event { reason, message, .. } => format!("{reason}: {message}"),
            Op::Create { .. } | Op::Put { .. } => panic!("the scheduler creates and replaces nothing"),
        }
    }

    fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }
}

fn overlay(target: &mut Tree, more: &Tree) {
    let Tree::Object(fields) = more else {
        *target = more.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        overlay(&mut target[name.as_str()], value);
    }
}

fn binds(lines: &[String]) -> Vec<&str> {
    lines.iter().filter_map(|line| line.strip_prefix("bind ")).collect()
}

fn why(lines: &[String]) -> &str {
    lines.iter().find_map(|line| line.strip_prefix("FailedScheduling: ")).unwrap_or_else(|| panic!("{lines:?}"))
}

#[test]
fn binds_once_and_rests() {
    let mut world = World::new();
    world.node("n1", "2", json!({}));
    world.pod("p", "1", json!({}));
    let plan = world.plan();
    assert_eq!(plan.steps[0].len(), 1);
    assert!(world.plan().is_empty(), "the binding is in flight");
    for op in plan.steps.iter().flatten() {
        world.perform(op);
    }
    assert!(world.plan().is_empty());
    world.pod("q", "1500m", json!({}));
    let lines = world.step();
    assert_eq!(
        why(&lines),
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims \
         found for incoming pod."
    );
    assert!(world.step().is_empty(), "said once");
    world.pass(400);
    assert!(world.step().is_empty(), "tried again, same words");
    world.remove("Pod", "a", "p");
    world.pass(15);
    world.step();
    world.pass(15);
    assert_eq!(world.plan().steps.len(), 0, "bound already");
    assert_eq!(world.snapshot.stream(&gvr("Pod")).get(&Key::new("a", "q")).unwrap().tree()["spec"]["nodeName"], "n1");
}

#[test]
fn a_lost_binding_is_tried_again() {
    let mut world = World::new();
    world.node("n1", "1", json!({}));
    world.pod("p", "1", json!({}));
    assert_eq!(world.plan().steps.len(), 2);
    world.scheduler.failed(&Key::new("a", "p"), world.now);
    assert!(world.plan().is_empty());
    world.pass(2);
    assert_eq!(binds(&world.step()), ["p n1"]);
}

#[test]
fn refusals_read_as_upstream() {
    let mut world = World::new();
    world.node("n1", "4", json!({"spec": {"unschedulable": true}}));
    world.node("n2", "4", json!({"spec": {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}}));
    world.node("n3", "4", json!({"metadata": {"labels": {"disk": "ssd"}}}));
    world.pod("p", "1", json!({"spec": {"nodeSelector": {"disk": "hdd"}}}));
    assert_eq!(
        why(&world.step()),
        "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated \
         taint {gpu: yes}, 1 node(s) were unschedulable. preemption: 0/3 nodes are available: 3 Preemption is not \
         helpful for scheduling."
    );
    world.pod(
        "q",
        "1",
        json!({"spec": {
            "nodeSelector": {}, "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]}}},
        }}),
    );
    assert_eq!(binds(&world.step()), ["q n2"]);
}

#[test]
fn ports_and_pods_count() {
    let mut world = World::new();
    world.node("n1", "4", json!({"status": {"allocatable": {"pods": "2"}}}));
    let port = json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}});
    world.pod("p1", "1", port.clone());
    world.pod("p2", "1", port);
    let lines = world.step();
    assert_eq!(binds(&lines), ["p1 n1"]);
    assert!(why(&lines).starts_with("0/1 nodes are available: 1 node(s) didn't have free ports"), "{lines:?}");
    world.pod("p3", "1", json!({}));
    world.pod("p4", "1", json!({}));
    let lines = world.step();
    assert_eq!(binds(&lines), ["p3 n1"]);
    assert!(why(&lines).starts_with("0/1 nodes are available: 1 Too many pods."), "{lines:?}");
}

#[test]
fn replicas_spread_and_anti_affinity_holds() {
    let mut world = World::new();
    for name in ["n1", "n2", "n3"] {
        world.node(name, "4", json!({}));
    }
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}]);
    for n in 0..6 {
        world.pod(&format!("p{n}"), "100m", json!({"metadata": {"ownerReferences": owner}}));
    }
    let lines = world.step();
    for node in ["n1", "n2", "n3"] {
        assert_eq!(binds(&lines).iter().filter(|line| line.ends_with(node)).count(), 2, "{lines:?}");
    }
    let anti = json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "db"}}}]}}},
        "metadata": {"labels": {"app": "db"}}});
    for n in 0..4 {
        world.pod(&format!("db{n}"), "100m", anti.clone());
    }
    let lines = world.step();
    assert_eq!(binds(&lines).len(), 3);
    assert!(why(&lines).starts_with("0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules"));
}

#[test]
fn hard_spread_keeps_the_skew() {
    let mut world = World::new();
    for (name, zone) in [("n1", "a"), ("n2", "a"), ("n3", "b")] {
        world.node(name, "4", json!({"metadata": {"labels": {"zone": zone}}}));
    }
    let spread = json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}}]);
    for n in 0..4 {
        world.pod(&format!("p{n}"), "100m", json!({"spec": {"topologySpreadConstraints": spread}}));
    }
    let lines = world.step();
    assert_eq!(binds(&lines).iter().filter(|line| line.ends_with("n3")).count(), 2, "{lines:?}");
}

#[test]
fn important_pods_make_room_where_least_is_lost() {
    let mut world = World::new();
    world.node("n1", "2", json!({}));
    world.node("n2", "2", json!({}));
    world.pod("low", "2", json!({"spec": {"nodeName": "n1", "priority": 1}, "metadata": {"labels": {"app": "x"}}}));
    world.pod("guarded", "2", json!({"spec": {"nodeName": "n2", "priority": 0}, "metadata": {"labels": {"app": "y"}}}));
    world.put(json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b", "namespace": "a"},
        "spec": {"selector": {"matchLabels": {"app": "y"}}}, "status": {"disruptionsAllowed": 0},
    }));
    world.pod("high", "1", json!({"spec": {"priority": 100}}));
    let lines = world.step();
    assert!(lines.contains(&"delete low".to_owned()), "{lines:?}");
    assert!(!lines.iter().any(|line| line == "delete guarded"));
    assert!(lines.iter().any(|line| line.contains("\"nominatedNodeName\":\"n1\"")), "{lines:?}");
    world.pod("late", "2", json!({"spec": {"priority": 0}}));
    let lines = world.step();
    assert!(binds(&lines).is_empty(), "the room is kept for the nominated pod: {lines:?}");
    world.pass(2);
    assert_eq!(binds(&world.step()), ["high n1"]);
}

#[test]
fn gates_and_foreign_schedulers_are_left_alone() {
    let mut world = World::new();
    world.node("n1", "2", json!({}));
    world.pod("gated", "1", json!({"spec": {"schedulingGates": [{"name": "g"}]}}));
    world.pod("foreign", "1", json!({"spec": {"schedulerName": "other"}}));
    assert!(world.step().is_empty());
    world.pod("gated", "1", json!({"metadata": {"generation": 2}}));
    assert_eq!(binds(&world.step()), ["gated n1"]);
}

#[test]
fn late_bound_claims_choose_with_the_pod() {
    let mut world = World::new();
    world.node("n1", "2", json!({}));
    world.put(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "local-path"},
        "provisioner": "rancher.io/local-path", "volumeBindingMode": "WaitForFirstConsumer",
    }));
    let claim = |volume: Tree| {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "a"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local-path", "volumeName": volume,
                     "resources": {"requests": {"storage": "1Gi"}}},
        })
    };
    let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
    world.pod("p", "1", json!({"spec": {"volumes": volumes}}));
    assert!(why(&world.step()).starts_with("0/1 nodes are available: persistentvolumeclaim \"data\" not found."));
    world.put(claim(json!(null)));
    world.pass(2);
    let lines = world.step();
    assert_eq!(lines, ["patch data {\"metadata\":{\"annotations\":{\"volume.kubernetes.io/selected-node\":\"n1\"}}}"]);
    let terms = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}]);
    world.put(json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"},
        "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}},
    }));
    world.put(claim(json!("pv")));
    world.pass(5);
    assert_eq!(binds(&world.step()), ["p n1"]);
}
