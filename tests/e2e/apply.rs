//! kubectl's ways to write objects: apply, replace, patch, label, diff, kustomize, prune, delete.

use anyhow::ensure;
use e2e::Case;

use crate::kubectl::{IMAGE, deployment};
use crate::session::Session;

pub const CASES: [Case<Session>; 7] = [
    Case { name: "kubectl_apply_client_side", run: apply_client_side },
    Case { name: "kubectl_apply_server_side_conflict", run: apply_server_side },
    Case { name: "kubectl_apply_prune", run: apply_prune },
    Case { name: "kubectl_patch_kinds", run: patch_kinds },
    Case { name: "kubectl_label_annotate_taint", run: label_annotate_taint },
    Case { name: "kubectl_delete_propagation", run: delete_propagation },
    Case { name: "kubectl_diff_kustomize", run: diff_kustomize },
];

fn apply_client_side(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("k-apply")?;
    let map = |value: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata: {{a: {value}, b: kept}}\n")
    };
    ensure!(kubectl.ok_fed("apply -f -", &map("one"))?.contains("configmap/m created"));
    ensure!(kubectl.ok_fed("apply -f -", &map("one"))?.contains("configmap/m unchanged"));
    ensure!(kubectl.ok_fed("apply -f -", &map("two"))?.contains("configmap/m configured"));
    let without = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: two}\n";
    kubectl.ok_fed("apply -f -", without)?;
    ensure!(kubectl.ok("get configmap m -o jsonpath={.data}")? == r#"{"a":"two"}"#, "apply removes what it owned");
    let uid = kubectl.ok("get configmap m -o jsonpath={.metadata.uid}")?;
    ensure!(kubectl.ok_fed("replace -f -", &map("replaced"))?.contains("configmap/m replaced"));
    ensure!(kubectl.ok("get configmap m -o jsonpath={.metadata.uid}")? == uid, "a replacement keeps the object");
    ensure!(kubectl.ok_fed("replace --force -f -", &map("three"))?.contains("configmap/m replaced"));
    ensure!(kubectl.ok("get configmap m -o jsonpath={.metadata.uid}")? != uid, "a forced replacement makes another");
    let strict = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndatta: {a: two}\n";
    let said = kubectl.call(&["apply", "-f", "-"], strict)?.failed()?;
    ensure!(said.contains("unknown field \"datta\""), "{said}");
    // kubectl checks a List by itself, with the OpenAPI v2 document in protobuf.
    let list =
        r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"l"}}]}"#;
    ensure!(kubectl.ok_fed("apply -f -", list)?.contains("configmap/l created"));
    let said = kubectl.call(&["apply", "-f", "-"], &list.replace("metadata", "datta"))?.failed()?;
    ensure!(said.contains("unknown field \"datta\""), "{said}");
    ensure!(kubectl.ok_fed("apply --dry-run=server -f -", &map("four"))?.contains("(server dry run)"));
    ensure!(kubectl.ok("get configmap m -o jsonpath={.data.a}")? == "three", "a dry run leaves nothing");
    Ok(())
}

fn apply_server_side(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("k-ssa")?;
    kubectl.ok_fed("apply --server-side --field-manager=one -f -", &deployment("d", 1, "sleep 9999"))?;
    let other = deployment("d", 2, "sleep 9999");
    let said = kubectl.call(&["apply", "--server-side", "--field-manager=two", "-f", "-"], &other)?.failed()?;
    ensure!(said.contains("conflict with \"one\"") && said.contains(".spec.replicas"), "{said}");
    kubectl.ok_fed("apply --server-side --field-manager=two --force-conflicts -f -", &other)?;
    let managers =
        kubectl.ok("get deployment d --show-managed-fields -o jsonpath={.metadata.managedFields[*].manager}")?;
    ensure!(managers.contains("one") && managers.contains("two"), "{managers}");
    ensure!(kubectl.ok("get deployment d -o jsonpath={.spec.replicas}")? == "2");
    Ok(())
}

/// What an earlier apply made and the newest no longer names is removed: by label, and by the set it was applied as.
fn apply_prune(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("k-prune")?;
    let map = |name: &str| {
        format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{app: pruned}}}}\n")
    };
    let both = map("a") + &map("b");
    kubectl.ok("create configmap other")?;
    kubectl.ok("label configmap other app=pruned")?;
    kubectl.ok_fed("apply -f -", &both)?;
    let prune = "apply --prune -l app=pruned --prune-allowlist=core/v1/ConfigMap -f -";
    let said = kubectl.ok_fed(prune, &map("a"))?;
    ensure!(said.contains("configmap/a unchanged") && said.contains("configmap/b pruned"), "{said}");
    let left = kubectl.ok("get configmaps -l app=pruned -o name")?;
    ensure!(left.lines().eq(["configmap/a", "configmap/other"]), "what nobody applied stays: {left}");
    let mut set = kubectl.clone();
    set.environment.push(("KUBECTL_APPLYSET".into(), "true".into()));
    let apply = "apply --prune --applyset=set -f -";
    set.ok_fed(apply, &(map("c") + &map("d")))?;
    let said = set.ok_fed(apply, &map("c"))?;
    ensure!(said.contains("configmap/c unchanged") && said.contains("configmap/d pruned"), "{said}");
    ensure!(!kubectl.call(&["get", "configmap", "d"], "")?.success, "the pruned object is still there");
    Ok(())
}

fn patch_kinds(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("k-patch")?;
    kubectl.ok_fed("create -f -", &deployment("d", 0, "sleep 9999"))?;
    let strategic =
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"main","env":[{"name":"A","value":"1"}]}]}}}}"#;
    kubectl.ok_with(&["patch", "deployment", "d", "-p", strategic])?;
    kubectl.ok_with(&["patch", "deployment", "d", "--type=merge", "-p", r#"{"spec":{"paused":true}}"#])?;
    let missing = r#"[{"op":"replace","path":"/spec/nothing","value":3}]"#;
    ensure!(!kubectl.call(&["patch", "deployment", "d", "--type=json", "-p", missing], "")?.success);
    let json = r#"[{"op":"add","path":"/spec/minReadySeconds","value":3}]"#;
    kubectl.ok_with(&["patch", "deployment", "d", "--type=json", "-p", json])?;
    kubectl.ok_with(&[
        "patch",
        "deployment",
        "d",
        "--subresource=scale",
        "--type=merge",
        "-p",
        r#"{"spec":{"replicas":0}}"#,
    ])?;
    let found = kubectl.ok(
        "get deployment d -o jsonpath={.spec.paused},{.spec.minReadySeconds},{.spec.template.spec.containers[0].image}",
    )?;
    ensure!(found == format!("true,3,{IMAGE}"), "{found}");
    kubectl.ok("set image deployment/d main=evenkeel.local/other:1")?;
    ensure!(kubectl.ok("get deployment d -o jsonpath={..image}")? == "evenkeel.local/other:1");
    Ok(())
}

fn label_annotate_taint(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("k-label")?;
    kubectl.ok("create configmap m")?;
    kubectl.ok("label configmap m tier=front")?;
    kubectl.ok("annotate configmap m note=written")?;
    ensure!(kubectl.ok("get configmap m -o jsonpath={.metadata.annotations.note}")? == "written");
    ensure!(kubectl.ok("get configmap -l tier=front -o name")?.contains("configmap/m"));
    ensure!(
        !kubectl.call(&["label", "configmap", "m", "tier=back"], "")?.success,
        "labels are not overwritten unasked"
    );
    kubectl.ok("label configmap m tier=back --overwrite")?;
    ensure!(kubectl.ok("get configmap m -o jsonpath={.metadata.labels.tier}")? == "back");
    kubectl.ok("label configmap m tier-")?;
    ensure!(kubectl.ok("get configmap -l tier -o name")?.is_empty(), "the label is still there");
    let node = kubectl.ok("get nodes -o jsonpath={.items[0].metadata.name}")?;
    let key = session.own("test");
    kubectl.ok(&format!("taint node {node} {key}=yes:PreferNoSchedule"))?;
    let taints = || kubectl.ok(&format!("get node {node} -o jsonpath={{.spec.taints}}"));
    ensure!(taints()?.contains(&format!(r#"{{"effect":"PreferNoSchedule","key":"{key}","value":"yes"}}"#)));
    kubectl.ok(&format!("taint node {node} {key}-"))?;
    ensure!(!taints()?.contains(&key), "the taint is still there");
    Ok(())
}

fn delete_propagation(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("k-delete")?;
    for (name, cascade) in [("bg", "background"), ("fg", "foreground")] {
        kubectl.ok_fed("create -f -", &deployment(name, 1, "sleep 9999"))?;
        kubectl.ok(&format!("rollout status deployment/{name} --timeout=90s"))?;
        kubectl.ok(&format!("delete deployment {name} --cascade={cascade} --timeout=60s"))?;
        kubectl.ok(&format!("wait pod -l app={name} --for=delete --timeout=60s"))?;
    }
    kubectl.ok_fed("create -f -", &deployment("left", 1, "sleep 9999"))?;
    kubectl.ok("rollout status deployment/left --timeout=90s")?;
    kubectl.ok("delete deployment left --cascade=orphan --timeout=60s")?;
    let owners = kubectl.ok("get replicaset -l app=left -o jsonpath={.items[0].metadata.ownerReferences}")?;
    ensure!(owners.is_empty(), "the orphan still has an owner: {owners}");
    kubectl.ok("wait pod -l app=left --for=condition=Ready --timeout=5s")?;
    kubectl.ok(&format!("delete namespace {} --timeout=60s", session.own("k-delete"))).map(drop)
}

fn diff_kustomize(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("k-diff")?;
    kubectl.ok("create configmap m --from-literal=a=1")?;
    let changed = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: '2'}\n";
    for options in [&["diff", "-f", "-"][..], &["diff", "--server-side", "--force-conflicts", "-f", "-"]] {
        let said = kubectl.call(options, changed)?;
        ensure!(!said.success && said.stdout.contains("+  a: \"2\""), "{said:?}");
    }
    ensure!(kubectl.ok("get configmap m -o jsonpath={.data.a}")? == "1", "a diff leaves nothing");
    let folder = session.file("kustomize");
    std::fs::create_dir_all(&folder)?;
    let kustomization = "namePrefix: pre-\nresources: [map.yaml]\n";
    std::fs::write(folder.join("kustomization.yaml"), kustomization)?;
    std::fs::write(folder.join("map.yaml"), changed)?;
    let built = kubectl.ok(&format!("kustomize {}", folder.display()))?;
    ensure!(built.contains("name: pre-m"), "{built}");
    ensure!(kubectl.ok(&format!("apply -k {}", folder.display()))?.contains("configmap/pre-m created"));
    ensure!(kubectl.ok("get configmap pre-m -o jsonpath={.data.a}")? == "2");
    Ok(())
}
