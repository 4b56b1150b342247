//! kubectl's verbs, each used as a person would, against the real server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Case, Dialogue, eventually};
use serde_json::Value;

use crate::session::Session;

pub const CASES: [Case<Session>; 12] = [
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
    Case { name: "kubectl_auth_token", run: auth_token },
    Case { name: "kubectl_api_resources_dump", run: api_resources },
];

pub const IMAGE: &str = "evenkeel.local/busybox:1";

pub fn deployment(name: &str, replicas: u32, words: &str) -> String {
    format!(
        r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"{name}"}},"spec":{{"replicas":{replicas},
        "selector":{{"matchLabels":{{"app":"{name}"}}}},"template":{{"metadata":{{"labels":{{"app":"{name}"}}}},"spec":{{
        "terminationGracePeriodSeconds":0,"containers":[{{"name":"main","image":"{IMAGE}","command":["sh","-c","{words}"]}}]}}}}}}}}"#
    )
}

fn get_formats(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("k-get")?;
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
    kubectl.tells("get events", &["SuccessfulCreate"])?;
    let sorted = kubectl.ok("get configmaps,deployments --sort-by=.metadata.name -o name")?;
    ensure!(sorted.lines().eq(["deployment.apps/d", "configmap/kube-root-ca.crt"]), "{sorted}");
    let late = kubectl.call(&["wait", "deployment/d", "--for=jsonpath={.spec.replicas}=9", "--timeout=1s"], "")?;
    ensure!(late.failed()?.contains("timed out waiting for the condition"));
    Ok(())
}

fn watch(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("k-watch")?;
    let mut watch = kubectl.spawn("get configmaps -w -o name")?;
    let lines = BufReader::new(watch.stdout.take().context("standard output is piped")?).lines();
    kubectl.ok("create configmap seen --from-literal=a=b")?;
    let found = lines.map_while(Result::ok).find(|line| line == "configmap/seen");
    watch.kill()?;
    watch.wait()?;
    found.context("the watch ended without the object").map(drop)
}

fn describe_explain(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("k-describe")?;
    kubectl.ok_fed("create -f -", &deployment("d", 1, "sleep 9999"))?;
    kubectl.ok("rollout status deployment/d --timeout=90s")?;
    kubectl.tells("describe deployment d", &["StrategyType:", "ScalingReplicaSet"])?;
    kubectl.tells("describe pods", &["Successfully assigned", "Started"])?;
    ensure!(kubectl.ok("describe nodes")?.contains("Allocated resources"));
    let said = kubectl.ok("explain deployment.spec --recursive")?;
    ensure!(said.contains("maxUnavailable") && said.contains("terminationGracePeriodSeconds"), "{said}");
    ensure!(kubectl.ok("explain pod.spec.containers.livenessProbe")?.contains("initialDelaySeconds"));
    kubectl.tells("events", &["Scheduled"])?;
    Ok(())
}

fn rollout(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("k-rollout")?;
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
    kubectl.ok("rollout status deployment/d --timeout=90s")?;
    let template = kubectl.ok("get deployment d -o jsonpath={.spec.template.metadata.annotations}")?;
    ensure!(template.contains("kubectl.kubernetes.io/restartedAt"), "{template}");
    kubectl.ok("set image deployment/d main=evenkeel.local/none:1")?;
    let late = kubectl.call(&["rollout", "status", "deployment/d", "--timeout=1s"], "")?;
    ensure!(!late.success, "an image that nobody has was rolled out");
    kubectl.ok("rollout undo deployment/d")?;
    kubectl.ok("rollout status deployment/d --timeout=90s")?;
    let images = kubectl.ok("get pods -l app=d -o jsonpath={.items[*].spec.containers[0].image}")?;
    ensure!(images.split(' ').all(|image| image == IMAGE), "{images}");
    Ok(())
}

fn scale_expose(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("k-scale")?;
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

fn run_attach_debug(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("k-run")?;
    // A program that waits for a word: what one says before kubectl has attached is lost, here as upstream.
    let image = &format!("--image={IMAGE}");
    let answer = ["--", "sh", "-c", "read word; echo heard $word"];
    let run = [&["run", "once", "-i", "--rm", "--restart=Never", image], answer.as_slice()].concat();
    let said = kubectl.call(&run, "hello\n")?.succeeded()?;
    ensure!(said.contains("heard hello"), "{said}");
    kubectl.ok(&format!("run long --image={IMAGE} -- sleep 9999"))?;
    kubectl.ok("wait pod/long --for=condition=Ready --timeout=60s")?;
    let debug = [&["debug", "long", "-i", image], answer.as_slice()].concat();
    // The container runtime lets go of the output too when the input of a debugger ends: it stays open.
    let mut debugger = Dialogue::with(kubectl.spawn_with(&debug)?)?;
    debugger.say("debugger\n")?;
    debugger.expect("heard debugger", Duration::from_secs(30))?;
    ensure!(debugger.end(Duration::from_secs(30))?.success(), "the debugger ends with its program");
    let named = kubectl.ok("get pod long -o jsonpath={.spec.ephemeralContainers[0].name}")?;
    ensure!(named.starts_with("debugger-"), "{named}");
    kubectl.ok(&format!("debug long --copy-to=copy --image={IMAGE} --container=tools -- sleep 9999"))?;
    kubectl.ok("wait pod/copy --for=condition=Ready --timeout=60s")?;
    ensure!(kubectl.ok("get pod copy -o jsonpath={.spec.containers[*].name}")? == "long tools");
    Ok(())
}

fn logs(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("k-logs")?;
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

fn exec_cp(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("k-exec")?;
    kubectl.ok(&format!("run p --image={IMAGE} -- sleep 9999"))?;
    kubectl.ok("wait pod/p --for=condition=Ready --timeout=60s")?;
    ensure!(kubectl.ok_fed("exec -i p -- cat", "through and back")? == "through and back");
    let failed = kubectl.call(&["exec", "p", "--", "sh", "-c", "exit 7"], "")?;
    ensure!(failed.failed()?.contains("exit code 7"));
    let from = session.file("cp-from");
    let to = session.file("cp-to");
    std::fs::write(&from, "copied\n".repeat(20_000))?;
    kubectl.ok(&format!("cp {} p:/tmp/there", from.display()))?;
    kubectl.ok(&format!("cp p:/tmp/there {}", to.display()))?;
    ensure!(std::fs::read(from)? == std::fs::read(to)?, "the file changed on the way");
    let (folder, back) = (session.file("cp-folder"), session.file("cp-back"));
    std::fs::create_dir_all(folder.join("inner"))?;
    std::fs::write(folder.join("inner/file"), "within")?;
    kubectl.ok(&format!("cp {} p:/tmp/folder", folder.display()))?;
    ensure!(kubectl.ok("exec p -- cat /tmp/folder/inner/file")? == "within");
    kubectl.ok(&format!("cp p:/tmp/folder {}", back.display()))?;
    ensure!(std::fs::read_to_string(back.join("inner/file"))? == "within");
    Ok(())
}

fn port_forward(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("k-forward")?;
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

fn proxy(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.kubectl();
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

fn auth_token(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("k-auth")?;
    ensure!(kubectl.ok("auth can-i create pods")?.trim() == "yes");
    ensure!(kubectl.ok("auth can-i --list")?.contains("*.*"), "what an administrator may do");
    kubectl.ok("create serviceaccount robot")?;
    let namespace = session.own("k-auth");
    let role = &format!("system:serviceaccount:{namespace}:robot");
    let said = kubectl.call(&["auth", "can-i", "list", "secrets", &format!("--as={role}")], "")?;
    ensure!(said.stdout.trim() == "no", "{said:?}");
    kubectl.ok("create role reader --verb=get,list --resource=configmaps")?;
    kubectl.ok(&format!("create rolebinding reader --role=reader --serviceaccount={namespace}:robot"))?;
    let token = kubectl.ok("create token robot --duration=10m")?;
    let mut robot = kubectl.clone();
    let server = kubectl.ok("config view --minify -o jsonpath={.clusters[0].cluster.server}")?;
    robot.environment = vec![("KUBECONFIG".into(), "/dev/null".into()), ("HOME".into(), session.data.clone().into())];
    robot.leading.extend(["--server".into(), server.into(), "--insecure-skip-tls-verify".into()]);
    robot.leading.push(format!("--token={}", token.trim()).into());
    ensure!(robot.ok("auth whoami")?.contains(role));
    robot.ok("get configmaps")?;
    let said = robot.call(&["get", "secrets"], "")?.failed()?;
    ensure!(said.contains(&format!("User \"{role}\" cannot list resource \"secrets\"")), "{said}");
    Ok(())
}

fn api_resources(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.kubectl();
    let said = kubectl.ok("api-resources")?;
    for word in ["deployments", "customresourcedefinitions", "endpointslices", "validatingwebhookconfigurations"] {
        ensure!(said.contains(word), "{word} is missing in\n{said}");
    }
    ensure!(kubectl.ok("api-versions")?.lines().any(|line| line == "apps/v1"));
    ensure!(kubectl.ok("cluster-info")?.contains("is running at"));
    ensure!(kubectl.ok("version")?.contains("Server Version: v1.36"));
    ensure!(kubectl.ok("cluster-info dump --namespaces=default")?.contains("\"kind\": \"NodeList\""));
    Ok(())
}
