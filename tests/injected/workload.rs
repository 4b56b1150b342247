//! What people run, and what holds it up.

use anyhow::ensure;
use e2e::manifests;

use crate::Fault;
use crate::world::{AT_ONCE, At, NOTICED, WELL, World};

pub const FAULTS: [Fault; 5] = [
    Fault { numbers: &[57], name: "webhook_dead", run: webhook },
    Fault { numbers: &[55], name: "drain_blocked", run: drain },
    Fault { numbers: &[60], name: "crash_after_change", run: crash },
    Fault { numbers: &[58], name: "registry_down", run: registry },
    Fault { numbers: &[56], name: "stuck_finalizer", run: finalizer },
];

const HERE: At = At::Server(0);

const WEBHOOK: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: policy}
webhooks:
- name: policy.example.com
  failurePolicy: Fail
  sideEffects: None
  admissionReviewVersions: [v1]
  clientConfig: {service: {namespace: shop, name: policy}}
  rules: [{apiGroups: ["example.com"], apiVersions: [v1], operations: [CREATE], resources: [things]}]
"#;

const UNPULLABLE: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"pull","namespace":"shop"},"spec":{
    "terminationGracePeriodSeconds":0,"nodeName":"HERE","containers":[{"name":"c","image":"127.0.0.1:9/none:1"}]}}"#;

/// The application that these cases break.
fn app(world: &World) -> anyhow::Result<()> {
    let kubectl = world.kubectl();
    kubectl.ok_fed("apply -f -", &manifests::shop(world.name(HERE)))?;
    kubectl.ok("-n shop rollout status deployment/api --timeout=90s").map(drop)
}

fn webhook(world: &mut World) -> anyhow::Result<()> {
    app(world)?;
    world.kubectl().ok_fed("create -f -", WEBHOOK)?;
    let cause = world.says(At::Server(1), "WEBHOOK_DEAD", AT_ONCE)?;
    world.follow(&cause)?;
    world.kubectl().ok("delete validatingwebhookconfiguration policy")?;
    world.is_well(WELL)
}

fn drain(world: &mut World) -> anyhow::Result<()> {
    app(world)?;
    let kubectl = world.kubectl();
    kubectl.ok("-n shop create poddisruptionbudget api --selector=app=api --min-available=1")?;
    kubectl.ok("-n shop wait pdb/api --for=jsonpath={.status.expectedPods}=1 --timeout=30s")?;
    kubectl.ok(&format!("cordon {}", world.name(HERE)))?;
    let cause = world.says(At::Server(1), "DRAIN_BLOCKED", AT_ONCE)?;
    world.follow(&cause)?;
    world.is_well(WELL)?;
    world.kubectl().ok("-n shop delete pdb api").map(drop)
}

fn crash(world: &mut World) -> anyhow::Result<()> {
    app(world)?;
    let patch = r#"[{"op":"replace","path":"/spec/template/spec/containers/0/command","value":["false"]}]"#;
    world.kubectl().ok_with(&["-n", "shop", "patch", "deployment", "api", "--type=json", "-p", patch])?;
    let cause = world.says(At::Server(1), "CRASH_AFTER_CHANGE", NOTICED)?;
    world.follow(&cause)?;
    world.is_well(WELL)
}

fn registry(world: &mut World) -> anyhow::Result<()> {
    app(world)?;
    world.kubectl().ok_fed("create -f -", &UNPULLABLE.replace("HERE", world.name(HERE)))?;
    let cause = world.says(At::Server(1), "REGISTRY_DOWN", NOTICED)?;
    ensure!(cause.on == HERE, "where the pod waits is where the image is missing");
    world.follow(&cause)?;
    world.kubectl().ok("-n shop delete pod pull --timeout=30s")?;
    world.is_well(WELL)
}

fn finalizer(world: &mut World) -> anyhow::Result<()> {
    let kubectl = world.kubectl();
    kubectl.ok_fed("apply -f -", manifests::STAYS)?;
    kubectl.ok("delete namespace old --wait=false")?;
    let cause = world.says(At::Server(1), "STUCK_FINALIZER", NOTICED)?;
    let said = world.follow(&cause)?;
    ensure!(said.out.contains("foo.example/cleanup"), "{said:?}");
    let none = r#"{"metadata":{"finalizers":[]}}"#;
    kubectl.ok_with(&["-n", "old", "patch", "configmap", "held", "--type=merge", "-p", none])?;
    kubectl.ok("wait namespace/old --for=delete --timeout=30s")?;
    world.is_well(WELL)
}
