//! helm installs, upgrades, rolls back and removes a chart with a custom resource, hooks and a workload.

use std::path::Path;

use anyhow::ensure;
use e2e::{Case, Cluster};

pub const CASES: [Case<Cluster>; 1] = [Case { name: "helm_life_of_a_release", run: life_of_a_release }];

fn life_of_a_release(cluster: &Cluster) -> anyhow::Result<()> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/chart");
    let chart = chart.display();
    let mut helm = cluster.client("helm");
    helm.leading.push("--namespace=helm".into());
    let kubectl = cluster.kubectl();
    let said = helm.ok(&format!("install probe {chart} --create-namespace --wait --timeout=120s"))?;
    ensure!(said.contains("STATUS: deployed"), "{said}");
    ensure!(kubectl.ok("-n helm get deployment probe -o jsonpath={.status.readyReplicas}")? == "1", "it waited");
    // The hook ran to its end before the rest was made, and its policy removed it.
    kubectl.tells("-n helm events --for=job/probe-hook", &["Job completed"])?;
    ensure!(kubectl.ok("-n helm get jobs -o name")?.is_empty(), "the hook's job is left");
    let gauge = kubectl.ok("-n helm get gauge probe -o jsonpath={.spec}")?;
    ensure!(gauge.contains(r#""colour":"green""#), "the default is filled in: {gauge}");
    helm.ok(&format!("upgrade probe {chart} --set=replicas=2,text=second --wait --timeout=120s"))?;
    ensure!(kubectl.ok("-n helm get configmap probe-text -o jsonpath={.data.text}")? == "second");
    ensure!(kubectl.ok("-n helm get gauges")?.contains("COUNT"), "printer columns");
    kubectl.ok("-n helm scale gauge probe --replicas=5")?;
    let bad = r#"{"apiVersion":"probe.evenkeel.test/v1","kind":"Gauge","metadata":{"name":"bad"},"spec":{"count":-1}}"#;
    let said = kubectl.call(&["-n", "helm", "create", "-f", "-"], bad)?.failed()?;
    ensure!(said.contains("spec.count") && said.contains("greater than or equal to 0"), "{said}");
    // helm applies server-side: the count is kubectl's since the scaling, and is taken back only when told so.
    let said = helm.call(&["rollback", "probe", "1", "--wait", "--timeout=120s"], "")?.failed()?;
    ensure!(
        said.contains("conflict with \"kubectl\" with subresource \"scale\"") && said.contains(".spec.count"),
        "{said}"
    );
    helm.ok("rollback probe 1 --force-conflicts --wait --timeout=120s")?;
    ensure!(kubectl.ok("-n helm get configmap probe-text -o jsonpath={.data.text}")? == "first");
    ensure!(helm.ok("history probe")?.contains("Rollback to 1"));
    ensure!(kubectl.ok("-n helm get deployment probe -o jsonpath={.spec.replicas}")? == "1", "rolled back");
    ensure!(helm.ok("list --short")?.trim() == "probe");
    helm.ok("uninstall probe --wait --timeout=120s")?;
    ensure!(helm.ok("list --short")?.is_empty(), "the release is still listed");
    let left = kubectl.ok("-n helm get gauges,configmaps,deployments,pods -o name")?;
    ensure!(left.lines().eq(["configmap/kube-root-ca.crt"]), "uninstall left {left}");
    kubectl.ok("delete crd gauges.probe.evenkeel.test --timeout=60s")?;
    kubectl.ok("delete namespace helm --timeout=60s").map(drop)
}
