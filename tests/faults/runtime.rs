//! `kill -9` of containerd: it comes back, pods keep running, and new ones start.

use anyhow::ensure;
use e2e::Tool;

use crate::Shared;

const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"NAME","namespace":"runtime"},"spec":{
    "terminationGracePeriodSeconds":0,
    "containers":[{"name":"c","image":"evenkeel.local/busybox:1","command":["sleep","99999"]}]}}"#;

pub fn leaves_pods_running(shared: &Shared) -> anyhow::Result<()> {
    let cluster = shared.lock().expect("cases run one at a time");
    let kubectl = cluster.kubectl();
    kubectl.ok("create namespace runtime")?;
    start(&kubectl, "before")?;
    let container = status(&kubectl, "before")?;
    cluster.kill_containerd()?;
    start(&kubectl, "after")?;
    ensure!(status(&kubectl, "before")? == container, "the pod was restarted");
    ensure!(kubectl.ok("-n runtime exec before -- echo alive")?.contains("alive"));
    kubectl.ok("wait node --all --for=condition=Ready --timeout=30s")?;
    kubectl.ok("delete namespace runtime --timeout=60s").map(drop)
}

fn start(kubectl: &Tool, name: &str) -> anyhow::Result<()> {
    kubectl.ok_fed("create -f -", &POD.replace("NAME", name))?;
    kubectl.ok(&format!("-n runtime wait pod/{name} --for=condition=Ready --timeout=60s")).map(drop)
}

fn status(kubectl: &Tool, name: &str) -> anyhow::Result<String> {
    let path = "{.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}";
    kubectl.ok_with(&["-n", "runtime", "get", "pod", name, "-o", &format!("jsonpath={path}")])
}
