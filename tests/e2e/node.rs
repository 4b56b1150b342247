//! What the node does for its own sake and its pods': roles, local volumes, admission, limits of scratch space, resize,
//! its HTTP API.

use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Case, Cluster, Options, Tool, eventually};
use serde_json::{Value, json};

use crate::kubectl::IMAGE;

pub const CASES: [Case<Cluster>; 7] = [
    Case { name: "node_role_and_labels", run: roles },
    Case { name: "node_local_path_volumes", run: local_path },
    Case { name: "node_admission", run: admission },
    Case { name: "node_scratch_limits", run: scratch },
    Case { name: "node_resize_in_place", run: resize },
    Case { name: "node_http_api", run: http_api },
    Case { name: "node_evicts_under_pressure", run: pressure },
];

const BOUND: Duration = Duration::from_secs(90);

/// A pod of one container that runs a shell line, with what `extra` merges into its spec.
fn pod(name: &str, line: &str, extra: Value) -> Value {
    let mut spec = json!({
        "terminationGracePeriodSeconds": 0, "restartPolicy": "Never",
        "containers": [{"name": "main", "image": IMAGE, "command": ["sh", "-c", line]}],
    });
    for (field, value) in extra.as_object().cloned().unwrap_or_default() {
        match (field.as_str(), value) {
            ("container", Value::Object(fields)) => {
                spec["containers"][0].as_object_mut().expect("made above").extend(fields);
            }
            (field, value) => spec[field] = value,
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}

fn create(kubectl: &Tool, object: &Value) -> anyhow::Result<()> {
    kubectl.ok_fed("create -f -", &object.to_string()).map(drop)
}

fn roles(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let name = &cluster.host.name;
    eventually("the server's node has its role", BOUND, || {
        let table = kubectl.ok(&format!("get nodes {name}"))?;
        ensure!(table.contains("control-plane"), "{table}");
        Ok(())
    })?;
    let node: Value = serde_json::from_str(&kubectl.ok(&format!("get node {name} -o json"))?)?;
    let labels = &node["metadata"]["labels"];
    ensure!(labels["kubernetes.io/hostname"] == name.as_str() && labels["kubernetes.io/os"] == "linux", "{labels}");
    ensure!(labels["kubernetes.io/arch"].is_string(), "{labels}");
    ensure!(labels["node.kubernetes.io/instance-type"].is_string(), "{labels}");
    let as_node = format!("--as=system:node:{name} --as-group=system:nodes label node {name}");
    let words = |label: &str| format!("{as_node} {label}");
    let said = kubectl.call(&words("node-role.kubernetes.io/worker=").split(' ').collect::<Vec<_>>(), "")?.failed()?;
    ensure!(said.contains("is not allowed to modify labels"), "{said}");
    Ok(())
}

fn local_path(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl().namespaced("node-local")?;
    let class = |name: &str, policy: &str| {
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
            "provisioner": "rancher.io/local-path", "reclaimPolicy": policy, "volumeBindingMode": "WaitForFirstConsumer"})
    };
    create(&kubectl, &class("node-kept", "Retain"))?;
    for (name, class) in [("gone", "local-path"), ("kept", "node-kept")] {
        create(
            &kubectl,
            &json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
                "resources": {"requests": {"storage": "1Mi"}}}}),
        )?;
        let line = "echo mine > /data/file && stat -c '%a %u %g' /data /data/file";
        let extra = json!({
            "securityContext": {"runAsUser": 1234, "runAsGroup": 1234, "fsGroup": 4321},
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}],
            "container": {"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
        });
        create(&kubectl, &pod(name, line, extra))?;
    }
    kubectl.ok("wait pod --all --for=jsonpath={.status.phase}=Succeeded --timeout=90s")?;
    let said = kubectl.ok("logs gone")?;
    let mut lines = said.lines();
    ensure!(lines.next() == Some("2777 0 4321"), "the folder is {said}");
    ensure!(lines.next().is_some_and(|file| file.ends_with("1234 4321")), "the file is {said}");
    let volume = |name: &str| kubectl.ok(&format!("get pvc {name} -o jsonpath={{.spec.volumeName}}"));
    let (gone, kept) = (volume("gone")?, volume("kept")?);
    let path = |volume: &str| kubectl.ok(&format!("get pv {volume} -o jsonpath={{.spec.hostPath.path}}"));
    let (gone_path, kept_path) = (path(&gone)?, path(&kept)?);
    ensure!(std::path::Path::new(&gone_path).join("file").exists(), "{gone_path}");
    kubectl.ok("delete pod --all --wait")?;
    kubectl.ok("delete pvc --all --wait --timeout=60s")?;
    eventually("the volume goes with its folder", BOUND, || {
        ensure!(!kubectl.ok("get pv -o name")?.contains(&gone), "the volume is still there");
        Ok(())
    })?;
    ensure!(!std::path::Path::new(&gone_path).exists(), "{gone_path} is still there");
    ensure!(kubectl.ok(&format!("get pv {kept} -o jsonpath={{.status.phase}}"))? == "Released");
    kubectl.ok(&format!("delete pv {kept} --wait --timeout=60s"))?;
    ensure!(std::path::Path::new(&kept_path).join("file").exists(), "a retained volume's folder is gone");
    std::fs::remove_dir_all(&kept_path)?;
    kubectl.ok("delete storageclass node-kept")?;
    kubectl.ok("delete namespace node-local --timeout=60s").map(drop)
}

fn admission(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl().namespaced("node-admission")?;
    let here = cluster.host.name.as_str();
    let sysctls = json!({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]});
    let cases = [
        ("cpu", json!({"container": {"resources": {"requests": {"cpu": "900"}}}}), "OutOfcpu"),
        ("selector", json!({"nodeSelector": {"nobody": "has"}}), "NodeAffinity"),
        ("sysctl", json!({"securityContext": sysctls}), "SysctlForbidden"),
    ];
    for (name, mut extra, reason) in cases {
        extra["nodeName"] = json!(here);
        create(&kubectl, &pod(name, "sleep 9999", extra))?;
        kubectl.ok(&format!("wait pod/{name} --for=jsonpath={{.status.phase}}=Failed --timeout=60s"))?;
        let said = kubectl.ok(&format!("get pod {name} -o jsonpath={{.status.reason}}:{{.status.message}}"))?;
        ensure!(said.starts_with(&format!("{reason}:Pod was rejected: ")), "{name} is {said}");
    }
    // A user namespace is promised to nobody who would not get one.
    create(&kubectl, &pod("users", "sleep 9999", json!({"hostUsers": false})))?;
    eventually("the pod is told why it does not start", BOUND, || {
        let said = kubectl.ok("events --for=pod/users")?;
        ensure!(said.contains("FailedCreatePodSandBox") && said.contains("hostUsers"), "{said}");
        Ok(())
    })?;
    kubectl.ok("delete namespace node-admission --timeout=60s").map(drop)
}

fn scratch(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl().namespaced("node-scratch")?;
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    let volume = |source: Value| json!([{"name": "v", "emptyDir": source}]);
    let disk = json!({"volumes": volume(json!({"sizeLimit": "1Mi"})), "container": {"volumeMounts": mounts.clone()}});
    create(&kubectl, &pod("volume", "head -c 8000000 /dev/zero > /v/file; sleep 9999", disk))?;
    let limits = json!({"container": {"resources": {"limits": {"ephemeral-storage": "2Mi"}}}});
    create(&kubectl, &pod("layer", "head -c 8000000 /dev/zero > /file; sleep 9999", limits))?;
    let memory = json!({"volumes": volume(json!({"medium": "Memory", "sizeLimit": "4Mi"})), "container": {"volumeMounts": mounts}});
    create(&kubectl, &pod("memory", "head -c 8000000 /dev/zero > /v/file; stat -c %s /v/file", memory))?;
    kubectl.ok("wait pod/memory --for=jsonpath={.status.phase}=Succeeded --timeout=60s")?;
    let size: u64 = kubectl.ok("logs memory --tail=1")?.trim().parse().context("the size of the file")?;
    ensure!(size <= 4 << 20, "{size} bytes fit into 4 MiB of memory");
    for (name, told) in [
        ("volume", "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "),
        ("layer", "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "),
    ] {
        kubectl.ok(&format!("wait pod/{name} --for=jsonpath={{.status.phase}}=Failed --timeout=90s"))?;
        let said = kubectl.ok(&format!("get pod {name} -o jsonpath={{.status.reason}}:{{.status.message}}"))?;
        ensure!(said == format!("Evicted:{told}"), "{name} is {said}");
        let path = "{.status.conditions[?(@.type=='DisruptionTarget')].reason}";
        let said = kubectl.ok(&format!("get pod {name} -o jsonpath={path}"))?;
        ensure!(said == "TerminationByKubelet", "{name} says {said}");
    }
    kubectl.ok("delete namespace node-scratch --timeout=60s").map(drop)
}

fn resize(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl().namespaced("node-resize")?;
    let resources = json!({"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}});
    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    let mut made = pod("p", "sleep 9999", json!({"container": {"resources": resources, "resizePolicy": policy}}));
    made["spec"]["restartPolicy"] = json!("Always");
    create(&kubectl, &made)?;
    kubectl.ok("wait pod/p --for=condition=Ready --timeout=90s")?;
    let patch = |resources: Value| {
        let body = json!({"spec": {"containers": [{"name": "main", "resources": resources}]}}).to_string();
        kubectl.call(&["patch", "pod", "p", "--subresource=resize", "-p", &body], "")
    };
    let status = || -> anyhow::Result<Value> {
        let pod: Value = serde_json::from_str(&kubectl.ok("get pod p -o json")?)?;
        Ok(pod["status"].clone())
    };
    let id = status()?["containerStatuses"][0]["containerID"].clone();
    patch(json!({"limits": {"cpu": "300m"}, "requests": {"cpu": "150m"}}))?.succeeded()?;
    eventually("the container has more cpu", BOUND, || {
        let status = status()?;
        let one = &status["containerStatuses"][0];
        ensure!(one["resources"]["limits"]["cpu"] == "300m" && one["allocatedResources"]["cpu"] == "150m", "{one}");
        let waiting = status["conditions"].to_string();
        ensure!(!waiting.contains("PodResize"), "{waiting}");
        Ok(())
    })?;
    ensure!(status()?["containerStatuses"][0]["containerID"] == id, "it was restarted for cpu");
    patch(json!({"limits": {"memory": "96Mi"}}))?.succeeded()?;
    eventually("the container restarts for memory", BOUND, || {
        let status = status()?;
        let one = &status["containerStatuses"][0];
        ensure!(one["restartCount"] == 1 && one["resources"]["limits"]["memory"] == "96Mi", "{one}");
        ensure!(one["state"]["running"].is_object(), "{one}");
        Ok(())
    })?;
    patch(json!({"limits": {"cpu": "900"}, "requests": {"cpu": "900"}}))?.succeeded()?;
    eventually("what no node has is told", BOUND, || {
        let status = status()?;
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        let pending = all.iter().find(|one| one["type"] == "PodResizePending").context("no condition")?;
        ensure!(pending["reason"] == "Infeasible", "{pending}");
        ensure!(status["containerStatuses"][0]["allocatedResources"]["cpu"] == "150m", "{status}");
        Ok(())
    })?;
    let said = patch(json!({"limits": {"cpu": null}}))?.failed()?;
    ensure!(said.contains("resource limits cannot be removed"), "{said}");
    kubectl.ok("delete namespace node-resize --timeout=60s").map(drop)
}

fn http_api(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl().namespaced("node-api")?;
    let node = &cluster.host.name;
    create(&kubectl, &pod("p", "echo started; sleep 9999", json!({})))?;
    kubectl.ok("wait pod/p --for=condition=Ready --timeout=90s")?;
    let get = |path: &str| kubectl.ok(&format!("get --raw /api/v1/nodes/{node}/proxy/{path}"));
    for (path, wanted) in [
        ("healthz", "ok"),
        ("metrics", "kubelet_running_pods"),
        ("metrics/resource", "pod_memory_working_set_bytes{namespace=\"node-api\",pod=\"p\"}"),
        ("metrics/cadvisor", "container_memory_working_set_bytes{container=\"main\""),
        ("metrics/probes", "prober_probe_total"),
        ("configz", "\"evictionHard\""),
        ("pods", "\"name\":\"p\""),
        ("runningpods/", "\"name\":\"p\""),
        ("logs/", "<pre>"),
    ] {
        eventually(path, Duration::from_secs(30), || {
            let said = get(path)?;
            ensure!(said.contains(wanted), "{path} says {said}");
            Ok(())
        })?;
    }
    let summary: Value = serde_json::from_str(&get("stats/summary")?)?;
    ensure!(summary["node"]["fs"]["capacityBytes"].as_u64().is_some_and(|bytes| 0 < bytes), "{summary}");
    let stranger =
        kubectl.call(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/stats/summary"), "--as=somebody"], "")?;
    ensure!(!stranger.success, "a stranger reads statistics");
    kubectl.ok("delete namespace node-api --timeout=60s").map(drop)
}

/// A server of its own whose node has a small disk: the pod that fills it leaves, the one that does not stays.
fn pressure(_: &Cluster) -> anyhow::Result<()> {
    let arguments = vec!["--eviction-hard=nodefs.available<50%".to_owned()];
    let mut small = Cluster::start(Options { arguments, ..Options::lane("e2e-small", 10) })?;
    small.power_cycle()?;
    let agent = small.data.join("agent");
    let images = small.data.join("images");
    std::fs::rename(agent.join("images"), &images)?;
    small.host.tool("mount")?.ok(&format!("-t tmpfs -o size=400m agent {}", agent.display()))?;
    let copy = format!("cp -r {0}/busybox*.tar {0}/pause*.tar {1}", images.display(), agent.join("images").display());
    let line = format!("mkdir -p {} && {copy}", agent.join("images").display());
    small.host.tool("sh")?.ok_with(&["-c", &line])?;
    small.start_server()?;
    let kubectl = small.kubectl().namespaced("pressure")?;
    let volume = json!([{"name": "v", "emptyDir": {}}]);
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    create(&kubectl, &pod("modest", "sleep 9999", json!({})))?;
    kubectl.ok("wait pod/modest --for=condition=Ready --timeout=90s")?;
    let line = "head -c 250000000 /dev/zero > /v/file; sleep 9999";
    create(&kubectl, &pod("greedy", line, json!({"volumes": volume, "container": {"volumeMounts": mounts}})))?;
    kubectl.ok("wait pod/greedy --for=jsonpath={.status.phase}=Failed --timeout=120s")?;
    let said = kubectl.ok("get pod greedy -o jsonpath={.status.reason}:{.status.message}")?;
    ensure!(
        said.starts_with("Evicted:The node was low on resource: ephemeral-storage. Threshold quantity: "),
        "{said}"
    );
    ensure!(kubectl.ok("get pod modest -o jsonpath={.status.phase}")? == "Running", "the modest pod left as well");
    let node = small.host.name.clone();
    kubectl.ok(&format!("wait node/{node} --for=condition=DiskPressure --timeout=30s"))?;
    eventually("the pressure is a taint", BOUND, || {
        let taints = kubectl.ok(&format!("get node {node} -o jsonpath={{.spec.taints[*].key}}"))?;
        ensure!(taints.contains("node.kubernetes.io/disk-pressure"), "{taints}");
        Ok(())
    })?;
    kubectl.tells("get events --all-namespaces", &["EvictionThresholdMet"])?;
    let shown = || -> anyhow::Result<(String, String)> {
        let condition = "status.conditions[?(@.type==\"DiskPressure\")]";
        let field = |name: &str| kubectl.ok(&format!("get node {node} -o jsonpath={{.{condition}.{name}}}"));
        Ok((format!("{} since {}", field("status")?, field("lastTransitionTime")?), field("lastHeartbeatTime")?))
    };
    let before = shown()?;
    small.kill_server()?;
    small.start_server()?;
    eventually("the node reports again", BOUND, || {
        let after = shown()?;
        ensure!(after.1 != before.1, "{after:?}");
        Ok(())
    })?;
    ensure!(shown()?.0 == before.0, "pressure was {before:?} before the restart, then {:?}", shown()?);
    Ok(())
}
