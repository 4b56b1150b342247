//! kubectl's verbs, each used as a person would, against the real server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Case, Cluster, Tool, eventually};
use serde_json::Value;

pub const CASES: [Case<Cluster>; 19] = [
    Case { name: "kubectl_apply_client_side", run: apply_client_side },
    Case { name: "kubectl_apply_server_side_conflict", run: apply_server_side },
    Case { name: "kubectl_patch_kinds", run: patch_kinds },
    Case { name: "kubectl_get_formats", run: get_formats },
    Case { name: "kubectl_watch", run: watch },
    Case { name: "kubectl_describe_explain", run: describe_explain },
    Case { name: "kubectl_rollout_history_undo", run: rollout },
    Case { name: "kubectl_scale_autoscale_expose", run: scale_expose },
    Case { name: "kubectl_run_attach_debug", run: run_attach_debug },
    Case { name: "kubectl_logs_previous_selector", run: logs },
    Case { name: "kubectl_exec_cp", run: exec_cp },
    Case { name: "kubectl_port_forward", run: port_forward },
    Case { name: "kubectl_proxy", run: proxy },
    Case { name: "kubectl_label_annotate_taint", run: label_annotate_taint },
    Case { name: "kubectl_auth_token", run: auth_token },
    Case { name: "kubectl_api_resources_dump", run: api_resources },
    Case { name: "kubectl_delete_propagation", run: delete_propagation },
    Case { name: "kubectl_diff_kustomize", run: diff_kustomize },
    Case { name: "kubectl_older_version", run: older_version },
];

pub const IMAGE: &str = "evenkeel.local/busybox:1";

/// kubectl with a namespace of the case's own, made anew.
pub fn namespaced(cluster: &Cluster, name: &str) -> anyhow::Result<Tool> {
    let mut kubectl = cluster.kubectl();
    kubectl.ok(&format!("create namespace {name}"))?;
    kubectl.leading.push(format!("--namespace={name}").into());
    Ok(kubectl)
}

pub fn deployment(name: &str, replicas: u32, words: &str) -> String {
    format!(
        r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"{name}"}},"spec":{{"replicas":{replicas},
        "selector":{{"matchLabels":{{"app":"{name}"}}}},"template":{{"metadata":{{"labels":{{"app":"{name}"}}}},"spec":{{
        "terminationGracePeriodSeconds":0,"containers":[{{"name":"main","image":"{IMAGE}","command":["sh","-c","{words}"]}}]}}}}}}}}"#
    )
}

fn apply_client_side(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = namespaced(cluster, "k-apply")?;
    let map = |value: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata: {{a: {value}, b: kept}}\n")
    };
    ensure!(kubectl.ok_fed("apply -f -", &map("one"))?.contains("configmap/m created"));
    ensure!(kubectl.ok_fed("apply -f -", &map("one"))?.contains("configmap/m unchanged"));
    ensure!(kubectl.ok_fed("apply -f -", &map("two"))?.contains("configmap/m configured"));
    let without = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: two}\n";
    kubectl.ok_fed("apply -f -", without)?;
    ensure!(kubectl.ok("get configmap m -o jsonpath={.data}")? == r#"{"a":"two"}"#, "apply removes what it owned");
    kubectl.ok_fed("replace --force -f -", &map("three"))?;
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

fn apply_server_side(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = namespaced(cluster, "k-ssa")?;
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

fn patch_kinds(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = namespaced(cluster, "k-patch")?;
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

fn get_formats(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = namespaced(cluster, "k-get")?;
    kubectl.ok_fed("create -f -", &deployment("d", 1, "sleep 9999"))?;
    kubectl.ok("rollout status deployment/d --timeout=90s")?;
    let table = kubectl.ok("get deployments")?;
    ensure!(table.starts_with("NAME   READY   UP-TO-DATE   AVAILABLE   AGE"), "{table}");
    let wide = kubectl.ok("get pods -o wide")?;
    ensure!(wide.contains("NOMINATED NODE") && wide.contains("1/1") && wide.contains("Running"), "{wide}");
    let json: Value = serde_json::from_str(&kubectl.ok("get deployment d -o json")?)?;
    ensure!(json["status"]["availableReplicas"] == 1, "{json}");
    ensure!(kubectl.ok("get deployment d -o yaml")?.starts_with("apiVersion: apps/v1"));
    let columns = kubectl.ok("get deployment d -o custom-columns=N:.metadata.name,R:.spec.replicas")?;
    ensure!(columns.lines().nth(1).is_some_and(|line| line.split_whitespace().eq(["d", "1"])), "{columns}");
    let all = kubectl.ok("get all")?;
    ensure!(all.contains("deployment.apps/d") && all.contains("replicaset.apps/d-") && all.contains("pod/d-"), "{all}");
    ensure!(kubectl.ok("get nodes")?.contains("VERSION"));
    kubectl.ok("get events")?;
    kubectl.ok("get pods --all-namespaces --sort-by=.metadata.name").map(drop)
}

fn watch(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = namespaced(cluster, "k-watch")?;
    let mut watch = kubectl.spawn("get configmaps -w -o name")?;
    let lines = BufReader::new(watch.stdout.take().context("standard output is piped")?).lines();
    kubectl.ok("create configmap seen --from-literal=a=b")?;
    let found = lines.map_while(Result::ok).find(|line| line == "configmap/seen");
    watch.kill()?;
    watch.wait()?;
    found.context("the watch ended without the object").map(drop)
}

fn describe_explain(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = namespaced(cluster, "k-describe")?;
    kubectl.ok_fed("create -f -", &deployment("d", 1, "sleep 9999"))?;
    kubectl.ok("rollout status deployment/d --timeout=90s")?;
    let said = kubectl.ok("describe deployment d")?;
    ensure!(said.contains("StrategyType:") && said.contains("ScalingReplicaSet"), "{said}");
    let said = kubectl.ok("describe pods")?;
    ensure!(said.contains("Successfully assigned") && said.contains("Started"), "{said}");
    ensure!(kubectl.ok("describe nodes")?.contains("Allocated resources"));
    let said = kubectl.ok("explain deployment.spec --recursive")?;
    ensure!(said.contains("maxUnavailable") && said.contains("terminationGracePeriodSeconds"), "{said}");
    ensure!(kubectl.ok("explain pod.spec.containers.livenessProbe")?.contains("initialDelaySeconds"));
    ensure!(kubectl.ok("events")?.contains("Scheduled"));
    Ok(())
}

fn rollout(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = namespaced(cluster, "k-rollout")?;
    kubectl.ok_fed("apply -f -", &deployment("d", 2, "echo one; sleep 9999"))?;
    kubectl.ok("rollout status deployment/d --timeout=90s")?;
    kubectl.ok("set env deployment/d COLOUR=blue")?;
    kubectl.ok("rollout status deployment/d --timeout=90s")?;
    let history = kubectl.ok("rollout history deployment/d")?;
    ensure!(history.lines().filter(|line| line.starts_with(['1', '2'])).count() == 2, "{history}");
    kubectl.ok("rollout undo deployment/d")?;
    kubectl.ok("rollout status deployment/d --timeout=90s")?;
    ensure!(kubectl.ok("get deployment d -o jsonpath={..env}")?.is_empty(), "undo brings the old template back");
    kubectl.ok("rollout restart deployment/d")?;
    kubectl.ok("rollout status deployment/d --timeout=90s").map(drop)
}

fn scale_expose(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = namespaced(cluster, "k-scale")?;
    kubectl.ok_fed("create -f -", &deployment("d", 1, "sleep 9999"))?;
    kubectl.ok("scale deployment d --replicas=3 --current-replicas=1")?;
    kubectl.ok("wait deployment/d --for=jsonpath={.status.readyReplicas}=3 --timeout=90s")?;
    kubectl.ok("autoscale deployment d --min=1 --max=3 --cpu=50%")?;
    ensure!(kubectl.ok("get hpa d")?.contains("Deployment/d"));
    kubectl.ok("expose deployment d --port=80 --target-port=8080")?;
    eventually("three endpoints", Duration::from_secs(30), || {
        let found = kubectl.ok("get endpointslices -o jsonpath={.items[*].endpoints[*].addresses[0]}")?;
        ensure!(found.split_whitespace().count() == 3, "{found}");
        Ok(())
    })
}

fn run_attach_debug(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = namespaced(cluster, "k-run")?;
    let said = kubectl.ok_with(&[
        "run",
        "once",
        "-i",
        "--rm",
        "--restart=Never",
        &format!("--image={IMAGE}"),
        "--",
        "echo",
        "hello",
    ]);
    ensure!(said.as_ref().is_ok_and(|text| text.contains("hello")), "{said:?}");
    kubectl.ok(&format!("run long --image={IMAGE} -- sleep 9999"))?;
    kubectl.ok("wait pod/long --for=condition=Ready --timeout=60s")?;
    let said = kubectl.ok_with(&["debug", "long", "-i", &format!("--image={IMAGE}"), "--", "echo", "debugged"])?;
    ensure!(said.contains("debugged"), "{said}");
    let named = kubectl.ok("get pod long -o jsonpath={.spec.ephemeralContainers[0].name}")?;
    ensure!(named.starts_with("debugger-"), "{named} {said}");
    kubectl.ok(&format!("debug long --copy-to=copy --image={IMAGE} --container=tools -- sleep 9999"))?;
    kubectl.ok("wait pod/copy --for=condition=Ready --timeout=60s")?;
    ensure!(kubectl.ok("get pod copy -o jsonpath={.spec.containers[*].name}")? == "long tools");
    Ok(())
}

fn logs(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = namespaced(cluster, "k-logs")?;
    let words = "echo start $(cat /keep/n 2>/dev/null); echo again > /keep/n; sleep 2; exit 3";
    let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {
        "terminationGracePeriodSeconds": 0, "volumes": [{"name": "keep", "emptyDir": {}}],
        "containers": [{"name": "c", "image": IMAGE, "command": ["sh", "-c", words],
            "volumeMounts": [{"name": "keep", "mountPath": "/keep"}]}]}});
    kubectl.ok_fed("create -f -", &pod.to_string())?;
    eventually("the container restarted", Duration::from_secs(60), || {
        let count = kubectl.ok("get pod p -o jsonpath={.status.containerStatuses[0].restartCount}")?;
        ensure!(count.parse::<u32>().is_ok_and(|count| count >= 1), "{count}");
        Ok(())
    })?;
    ensure!(kubectl.ok("logs p --previous")?.starts_with("start"));
    eventually("logs by selector", Duration::from_secs(40), || {
        ensure!(kubectl.ok("logs -l a=b --tail=1")?.contains("start again"));
        Ok(())
    })?;
    let exit = kubectl.ok("get pod p -o jsonpath={.status.containerStatuses[0].lastState.terminated.exitCode}")?;
    ensure!(exit == "3", "exit code {exit}");
    Ok(())
}

fn exec_cp(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = namespaced(cluster, "k-exec")?;
    kubectl.ok(&format!("run p --image={IMAGE} -- sleep 9999"))?;
    kubectl.ok("wait pod/p --for=condition=Ready --timeout=60s")?;
    ensure!(kubectl.ok_fed("exec -i p -- cat", "through and back")? == "through and back");
    let failed = kubectl.call(&["exec", "p", "--", "sh", "-c", "exit 7"], "")?;
    ensure!(failed.failed()?.contains("exit code 7"));
    let from = cluster.data.join("cp-from");
    let to = cluster.data.join("cp-to");
    std::fs::write(&from, "copied\n".repeat(20_000))?;
    kubectl.ok(&format!("cp {} p:/tmp/there", from.display()))?;
    kubectl.ok(&format!("cp p:/tmp/there {}", to.display()))?;
    ensure!(std::fs::read(from)? == std::fs::read(to)?, "the file changed on the way");
    Ok(())
}

fn port_forward(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = namespaced(cluster, "k-forward")?;
    let words = "mkdir /www; echo forwarded > /www/index.html; exec busybox httpd -f -p 8080 -h /www";
    kubectl.ok_fed("create -f -", &deployment("d", 1, words))?;
    kubectl.ok("rollout status deployment/d --timeout=90s")?;
    let mut forward = kubectl.spawn("port-forward deployment/d 0:8080 --address=127.0.0.1")?;
    let mut lines = BufReader::new(forward.stdout.take().context("standard output is piped")?).lines();
    let line = lines.next().context("port-forward ended")??;
    let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).context("no port")?.to_owned();
    let page = eventually("the forwarded page", Duration::from_secs(20), || {
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        ensure!(page.contains("forwarded"), "{page:?}");
        Ok(page)
    });
    forward.kill()?;
    forward.wait()?;
    page.map(drop)
}

fn proxy(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let mut proxy = kubectl.spawn("proxy --port=0")?;
    let mut lines = BufReader::new(proxy.stdout.take().context("standard output is piped")?).lines();
    let line = lines.next().context("proxy ended")??;
    let port = line.rsplit(':').next().context("no port")?.to_owned();
    let answer = eventually("an answer through the proxy", Duration::from_secs(10), || {
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
        stream.write_all(b"GET /version HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.contains("gitVersion"), "{answer}");
        Ok(())
    });
    proxy.kill()?;
    proxy.wait()?;
    answer
}

fn label_annotate_taint(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = namespaced(cluster, "k-label")?;
    kubectl.ok("create configmap m")?;
    kubectl.ok("label configmap m tier=front")?;
    kubectl.ok("annotate configmap m note=written")?;
    ensure!(kubectl.ok("get configmap -l tier=front -o name")?.contains("configmap/m"));
    ensure!(
        !kubectl.call(&["label", "configmap", "m", "tier=back"], "")?.success,
        "labels are not overwritten unasked"
    );
    kubectl.ok("label configmap m tier-")?;
    let node = kubectl.ok("get nodes -o jsonpath={.items[0].metadata.name}")?;
    kubectl.ok(&format!("taint node {node} test=yes:PreferNoSchedule"))?;
    kubectl.ok(&format!("taint node {node} test-"))?;
    Ok(())
}

fn auth_token(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = namespaced(cluster, "k-auth")?;
    ensure!(kubectl.ok("auth can-i create pods")?.trim() == "yes");
    kubectl.ok("create serviceaccount robot")?;
    let role = "system:serviceaccount:k-auth:robot";
    let said = kubectl.call(&["auth", "can-i", "list", "secrets", &format!("--as={role}")], "")?;
    ensure!(said.stdout.trim() == "no", "{said:?}");
    kubectl.ok("create role reader --verb=get,list --resource=configmaps")?;
    kubectl.ok("create rolebinding reader --role=reader --serviceaccount=k-auth:robot")?;
    let token = kubectl.ok("create token robot --duration=10m")?;
    let mut robot = kubectl.clone();
    let server = kubectl.ok("config view --minify -o jsonpath={.clusters[0].cluster.server}")?;
    robot.environment = vec![("KUBECONFIG".into(), "/dev/null".into()), ("HOME".into(), cluster.data.clone().into())];
    robot.leading.extend(["--server".into(), server.into(), "--insecure-skip-tls-verify".into()]);
    robot.leading.push(format!("--token={}", token.trim()).into());
    ensure!(robot.ok("auth whoami")?.contains(role));
    robot.ok("get configmaps")?;
    let said = robot.call(&["get", "secrets"], "")?.failed()?;
    ensure!(said.contains(&format!("User \"{role}\" cannot list resource \"secrets\"")), "{said}");
    Ok(())
}

fn api_resources(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let said = kubectl.ok("api-resources")?;
    for word in ["deployments", "customresourcedefinitions", "endpointslices", "validatingwebhookconfigurations"] {
        ensure!(said.contains(word), "{word} is missing in\n{said}");
    }
    kubectl.ok("api-versions")?;
    kubectl.ok("cluster-info")?;
    ensure!(kubectl.ok("version")?.contains("Server Version: v1.36"));
    ensure!(kubectl.ok("cluster-info dump --namespaces=default")?.contains("\"kind\": \"NodeList\""));
    Ok(())
}

fn delete_propagation(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = namespaced(cluster, "k-delete")?;
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
    kubectl.ok("delete namespace k-delete --timeout=60s").map(drop)
}

fn diff_kustomize(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = namespaced(cluster, "k-diff")?;
    kubectl.ok("create configmap m --from-literal=a=1")?;
    let changed = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: '2'}\n";
    for options in [&["diff", "-f", "-"][..], &["diff", "--server-side", "--force-conflicts", "-f", "-"]] {
        let said = kubectl.call(options, changed)?;
        ensure!(!said.success && said.stdout.contains("+  a: \"2\""), "{said:?}");
    }
    ensure!(kubectl.ok("get configmap m -o jsonpath={.data.a}")? == "1", "a diff leaves nothing");
    let folder = cluster.data.join("kustomize");
    std::fs::create_dir_all(&folder)?;
    let kustomization = "namePrefix: pre-\nresources: [map.yaml]\n";
    std::fs::write(folder.join("kustomization.yaml"), kustomization)?;
    std::fs::write(folder.join("map.yaml"), changed)?;
    kubectl.ok(&format!("apply -k {}", folder.display()))?;
    ensure!(kubectl.ok("get configmap pre-m -o jsonpath={.data.a}")? == "2");
    Ok(())
}

fn older_version(cluster: &Cluster) -> anyhow::Result<()> {
    let mut older = cluster.client("kubectl-1.35");
    older.ok("create namespace k-older")?;
    older.leading.push("--namespace=k-older".into());
    older.ok_fed("apply -f -", &deployment("d", 1, "echo older; sleep 9999"))?;
    older.ok("rollout status deployment/d --timeout=90s")?;
    ensure!(older.ok("logs deployment/d")?.contains("older"));
    ensure!(older.ok("exec deployment/d -- echo in")?.contains("in"));
    older.ok("delete deployment d --timeout=60s").map(drop)
}
