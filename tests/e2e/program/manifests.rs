//! `server/manifests`: files are applied, changed, pruned, skipped, disabled; a broken one is told of and holds up nothing.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use e2e::{Cluster, Options, Tool, eventually};

const BOUND: Duration = Duration::from_secs(40);

/// Several documents, a List, and a definition with an object of the kind that it makes.
const WEB: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: auto}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: one, namespace: auto}, data: {a: "1"}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: two, namespace: auto}, data: {a: "2"}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.e2e.example}
spec:
  group: e2e.example
  scope: Namespaced
  names: {plural: boats, singular: boat, kind: Boat}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
---
apiVersion: e2e.example/v1
kind: Boat
metadata: {name: calm, namespace: auto}
spec: {keel: even}
"#;

const CHART: &str = r#"
apiVersion: helm.cattle.io/v1
kind: HelmChart
metadata: {name: traefik, namespace: kube-system}
spec: {chart: traefik}
"#;

pub fn manifests(_: &()) -> anyhow::Result<()> {
    let mut options = Options::lane("manifests", 10);
    options.arguments = vec!["--disable=extra,servicelb".to_owned()];
    let mut cluster = Cluster::start(options)?;
    let folder = cluster.data.join("server/manifests");
    let kubectl = cluster.kubectl();
    fs::write(folder.join("web.yaml"), WEB)?;
    fs::write(folder.join("broken.yaml"), "a: [\n")?;
    fs::write(folder.join("chart.yaml"), CHART)?;
    fs::write(folder.join("extra.yaml"), map("extra"))?;
    fs::write(folder.join("kept.yaml"), map("kept"))?;
    appears(&kubectl, "-n auto get boat calm")?;
    appears(&kubectl, "get configmap kept")?;
    let managers =
        kubectl.ok("-n auto get configmap one --show-managed-fields -o jsonpath={.metadata.managedFields}")?;
    ensure!(managers.contains("evenkeel-manifests") && managers.contains("Apply"), "managed by {managers}");
    told(
        &kubectl,
        &["server/manifests/broken.yaml: not YAML", "HelmChart traefik: HelmChart is for the Helm controller"],
    )?;
    changes(&kubectl, &folder)?;
    ensure!(!kubectl.call(&["get", "configmap", "extra"], "")?.success, "a disabled file was applied");
    // What went while nobody looked is pruned all the same.
    cluster.stop_server()?;
    fs::remove_file(folder.join("web.yaml"))?;
    cluster.start_server()?;
    gone(&kubectl, "get namespace auto")?;
    gone(&kubectl, "get crd boats.e2e.example")?;
    kubectl.ok("get configmap kept").map(drop)
}

fn changes(kubectl: &Tool, folder: &Path) -> anyhow::Result<()> {
    let path = folder.join("web.yaml");
    // A file that is in trouble for a while does not lose what it brought.
    fs::write(&path, "- {")?;
    told(kubectl, &["server/manifests/web.yaml: not YAML"])?;
    kubectl.ok("-n auto get configmap two")?;
    fs::write(&path, WEB.replace(r#"data: {a: "1"}"#, r#"data: {a: "changed"}"#).replace("name: two", "name: three"))?;
    appears(kubectl, "-n auto get configmap three")?;
    gone(kubectl, "-n auto get configmap two")?;
    ensure!(kubectl.ok("-n auto get configmap one -o jsonpath={.data.a}")? == "changed");
    // Skipped, it stays as it was applied, whatever becomes of the file.
    fs::write(folder.join("kept.yaml.skip"), "")?;
    fs::write(folder.join("kept.yaml"), map("never"))?;
    fs::write(folder.join("last.yaml"), map("last"))?;
    appears(kubectl, "get configmap last")?;
    kubectl.ok("get configmap kept")?;
    ensure!(!kubectl.call(&["get", "configmap", "never"], "")?.success, "a skipped file was applied");
    fs::remove_file(folder.join("last.yaml"))?;
    gone(kubectl, "get configmap last")
}

fn map(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n")
}

fn appears(kubectl: &Tool, words: &str) -> anyhow::Result<()> {
    eventually(words, BOUND, || kubectl.ok(words).map(drop))
}

fn gone(kubectl: &Tool, words: &str) -> anyhow::Result<()> {
    let words: Vec<&str> = words.split(' ').collect();
    eventually(&format!("{words:?} finds nothing"), BOUND, || {
        let said = kubectl.call(&words, "")?.failed()?;
        ensure!(said.contains("NotFound") || said.contains("doesn't have a resource type"), "it says {said}");
        Ok(())
    })
}

/// Events of this server's node say what is wrong with files.
fn told(kubectl: &Tool, wanted: &[&str]) -> anyhow::Result<()> {
    eventually("events tell of files in trouble", BOUND, || {
        let path = r"jsonpath={range .items[?(@.reason=='ManifestNotApplied')]}{.type} {.message}{'\n'}{end}";
        let said = kubectl.ok_with(&["get", "events", "-o", path])?;
        let missing = wanted.iter().find(|text| !said.contains(*text));
        ensure!(missing.is_none(), "{missing:?} is not in {said}");
        ensure!(said.lines().all(|line| line.is_empty() || line.starts_with("Warning ")), "{said}");
        Ok(())
    })
}
