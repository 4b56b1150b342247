//! Three servers and an agent get new authorities while clients write through each server: paused, a server killed in
//! the middle, and ended.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{Agent, Cluster, Endpoint, Options, Rack, Tool, Transcript, eventually, manifests};
use serde_json::Value;

const BOUND: Duration = Duration::from_secs(120);
/// Writes of one client.
const PACE: Duration = Duration::from_millis(200);
const HOST: u8 = 5;

pub fn rotation(_: &()) -> anyhow::Result<()> {
    let mut rack = Rack::start("authorities", HOST)?;
    for _ in 0..2 {
        rack.join()?;
    }
    rack.serves(0, 3)?;
    let agent = Agent::join(&rack.servers[0], Options::lane("", HOST + 3).host)?;
    let nodes = pods(&rack, &agent)?;
    let before = Before::keep(&rack)?;
    let writers = writers(&rack)?;
    let start = Instant::now();
    let begun = paused(&rack, &agent)?;
    killed(&mut rack)?;
    goes_on(&rack, begun)?;
    println!("rotate_ca_issue_s {:.1}", start.elapsed().as_secs_f64());
    before.holds_still(&rack)?;
    all_show_the_new(&rack, &agent, &before)?;
    stop(writers, &[1])?;
    let (writers, start) = (self::writers(&rack)?, Instant::now());
    finish(&rack)?;
    println!("rotate_ca_finish_s {:.1}", start.elapsed().as_secs_f64());
    stop(writers, &[])?;
    before.is_out(&rack)?;
    before.tokens_hold_until_ended(&rack)?;
    everything_works(&rack, &nodes)?;
    let start = Instant::now();
    rekeyed(&mut rack)?;
    println!("rotate_encryption_s {:.1}", start.elapsed().as_secs_f64());
    Ok(())
}

/// A pod on every node; answers their names, which are the nodes'.
fn pods(rack: &Rack, agent: &Agent) -> anyhow::Result<Vec<String>> {
    let kubectl = rack.servers[0].kubectl();
    let nodes: Vec<String> =
        rack.servers.iter().map(|server| server.host.name.clone()).chain([agent.host.name.clone()]).collect();
    for node in &nodes {
        eventually("the node registers", BOUND, || kubectl.ok(&format!("get node {node}")).map(drop))?;
        kubectl.ok_fed("apply -f -", &manifests::greeter(node, node))?;
    }
    kubectl.ok("wait pod --all --for=condition=Ready --timeout=120s")?;
    Ok(nodes)
}

// === What was before ===

/// An administrator's kubeconfig and a member's certificate of the old authorities.
struct Before {
    folder: PathBuf,
    kubectl: Tool,
    /// Of a service account, signed with the key before.
    token: String,
    /// Subject of the authority that signed for the API.
    issuer: String,
}

impl Before {
    fn keep(rack: &Rack) -> anyhow::Result<Before> {
        let first = &rack.servers[0];
        let folder = first.data.join("before");
        std::fs::create_dir_all(&folder)?;
        let copy = |from: &Path| std::fs::copy(from, folder.join(from.file_name().unwrap_or_default()));
        copy(&first.kubeconfig())?;
        for name in ["etcd-member.crt", "etcd-member.key"] {
            copy(&first.data.join("server/tls").join(name))?;
        }
        let mut kubectl = first.kubectl();
        kubectl.environment[0].1 = folder.join("admin.kubeconfig").into();
        let token = first.kubectl().ok("create token default --duration=2h")?.trim().to_owned();
        Ok(Before { token, kubectl, issuer: issuer(&first.data.join("server/tls/serving.crt"))?, folder })
    }

    /// Until the end, old kubeconfigs work.
    fn holds_still(&self, rack: &Rack) -> anyhow::Result<()> {
        for server in &rack.servers {
            self.kubectl.ok(&format!("get nodes --server=https://{}:6443", server.host.address))?;
        }
        Ok(())
    }

    /// Whom a server takes the token's bearer for.
    fn bearer(&self, server: &Cluster) -> anyhow::Result<String> {
        let (url, ca) = (format!("https://{}:6443", server.host.address), server.data.join("server/tls/server-ca.crt"));
        let (ca, token) = (ca.display(), &self.token);
        let words = format!(
            "auth whoami -o jsonpath={{.status.userInfo.username}} --kubeconfig=/dev/null --server={url} \
             --certificate-authority={ca} --token={token}"
        );
        server.kubectl().ok(&words)
    }

    /// Tokens outlive the authorities that they were given under, until they expire or somebody ends them.
    fn tokens_hold_until_ended(&self, rack: &Rack) -> anyhow::Result<()> {
        for server in &rack.servers {
            let name = self.bearer(server)?;
            ensure!(name == "system:serviceaccount:default:default", "{} takes it for {name}", server.host.name);
        }
        let said = rotate(&rack.servers[1], "--finish --end-tokens --yes")?;
        ensure!(said.contains("done"), "{said}");
        for server in &rack.servers {
            eventually("the token holds no longer", BOUND, || {
                ensure!(self.bearer(server).is_err(), "{} takes it still", server.host.name);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// After it they do not: neither is the server trusted, nor the client let in.
    fn is_out(&self, rack: &Rack) -> anyhow::Result<()> {
        for server in &rack.servers {
            let url = format!("--server=https://{}:6443", server.host.address);
            let said = self.kubectl.call(&["get", "nodes", &url], "")?.failed()?;
            ensure!(said.contains("certificate signed by unknown authority"), "{said}");
            let said = self.kubectl.call(&["get", "nodes", &url, "--insecure-skip-tls-verify"], "")?.failed()?;
            ensure!(said.contains("Unauthorized") || said.contains("provide credentials"), "{said}");
        }
        let tls = rack.servers[0].data.join("server/tls");
        for server in &rack.servers {
            etcdctl(rack, &tls, server, "endpoint health")?.succeeded()?;
            let old = etcdctl(rack, &self.folder, server, "endpoint health")?;
            ensure!(!old.success, "etcd of {} lets the old certificate in", server.host.name);
        }
        Ok(())
    }
}

/// A server's member is asked with the certificate in a folder.
fn etcdctl(rack: &Rack, leaf: &Path, server: &Cluster, words: &str) -> anyhow::Result<Transcript> {
    let mut tool = Tool::new("etcdctl");
    tool.environment = vec![("ETCDCTL_API".into(), "3".into())];
    let (ca, leaf) = (rack.servers[0].data.join("server/tls/etcd-ca.crt"), leaf.join("etcd-member"));
    let words = format!(
        "--endpoints=https://{}:2379 --cacert={} --cert={leaf}.crt --key={leaf}.key {words}",
        server.host.address,
        ca.display(),
        leaf = leaf.display(),
    );
    tool.call(&words.split_whitespace().collect::<Vec<_>>(), "")
}

fn issuer(certificate: &Path) -> anyhow::Result<String> {
    Tool::new("openssl").ok(&format!("x509 -noout -issuer -in {}", certificate.display()))
}

// === Steps ===

fn rotate(server: &Cluster, words: &str) -> anyhow::Result<String> {
    server.evenkeel()?.ok(&format!("certificate rotate-ca {words} --data-dir={}", server.data.display()))
}

fn status(server: &Cluster) -> anyhow::Result<Value> {
    let words = format!("certificate rotate-ca status --json --data-dir={}", server.data.display());
    let said = server.evenkeel()?.call(&words.split_whitespace().collect::<Vec<_>>(), "")?;
    serde_json::from_str(&said.stdout).with_context(|| said.stderr)
}

/// Held up by a node that does not answer, then by a person; nothing goes on meanwhile.
fn paused(rack: &Rack, agent: &Agent) -> anyhow::Result<Child> {
    let (first, second) = (&rack.servers[0], &rack.servers[1]);
    let plan = rotate(first, "--dry-run")?;
    ensure!(plan.contains("3 servers, 4 machines") && plan.contains("--finish"), "{plan}");
    ensure!(status(first)?["number"].is_null(), "it was only shown");
    waits_for_a_run(first)?;
    agent.signal("STOP")?;
    let begun = first.evenkeel()?.spawn(&format!("certificate rotate-ca --yes --data-dir={}", first.data.display()))?;
    let name = agent.host.name.as_str();
    eventually("the agent alone is waited for", BOUND, || {
        let shown = status(second)?;
        ensure!(shown["phase"] == "distribute" && shown["waiting"] == serde_json::json!([name]), "{shown}");
        Ok(())
    })?;
    rotate(second, "pause")?;
    agent.signal("CONT")?;
    eventually("all trust both", BOUND, || {
        let shown = status(second)?;
        ensure!(shown["waiting"] == serde_json::json!([]), "{shown}");
        Ok(())
    })?;
    let shown = status(first)?;
    ensure!(shown["phase"] == "distribute" && shown["paused"] == true, "{shown}");
    let claim = layer(second)?;
    ensure!(claim.contains("rotate-ca 1"), "others are not told: {claim}");
    let check = second.evenkeel()?.ok(&format!("certificate check --data-dir={}", second.data.display()))?;
    ensure!(check.contains("machines learn to trust them"), "{check}");
    Ok(begun)
}

/// While another one works on the control plane it is refused, and says who does.
fn waits_for_a_run(server: &Cluster) -> anyhow::Result<()> {
    let kubectl = server.kubectl();
    let at = |when: &str| Tool::new("date").ok(&format!("-u -d {when} +%FT%TZ"));
    let (since, until) = (at("now")?, at("+30min")?);
    let claim = serde_json::json!({
        "layer": "controlPlane", "work": "run-7", "by": "anna", "since": since.trim(), "until": until.trim(),
    });
    let map = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "evenkeel-layer", "namespace": "kube-system"},
        "data": {"record": claim.to_string()},
    });
    kubectl.ok_fed("create -f -", &map.to_string())?;
    let words = format!("certificate rotate-ca --yes --data-dir={}", server.data.display());
    let refused = server.evenkeel()?.call(&words.split_whitespace().collect::<Vec<_>>(), "")?;
    ensure!(
        refused.code == 3 && refused.stderr.contains("anna works on the control plane (run-7) since"),
        "{refused:?}"
    );
    ensure!(status(server)?["number"].is_null(), "it was begun all the same");
    kubectl.ok("-n kube-system delete configmap evenkeel-layer").map(drop)
}

/// Who is told to wait, and for what; empty where nobody is.
fn layer(server: &Cluster) -> anyhow::Result<String> {
    server.kubectl().ok("-n kube-system get configmap evenkeel-layer --ignore-not-found -o jsonpath={.data.record}")
}

/// A server dies while the new authorities begin to sign, and comes back into what the others did.
fn killed(rack: &mut Rack) -> anyhow::Result<()> {
    rotate(&rack.servers[0], "resume")?;
    rack.servers[1].kill_server()?;
    eventually("the others go on", BOUND, || {
        let shown = status(&rack.servers[2])?;
        ensure!(shown["phase"] == "issue", "{shown}");
        Ok(())
    })?;
    rack.servers[1].start_server()
}

/// The command that began it was told of the pause; the same one again looks on to the end of this part.
fn goes_on(rack: &Rack, begun: Child) -> anyhow::Result<()> {
    let ended = begun.wait_with_output()?;
    ensure!(ended.status.code() == Some(2), "{}", String::from_utf8_lossy(&ended.stdout));
    let said = rotate(&rack.servers[2], "--yes")?;
    ensure!(said.contains("rotate-ca --finish"), "{said}");
    let shown = status(&rack.servers[0])?;
    ensure!(shown["decide"] == true && shown["lockedOut"] == serde_json::json!([]), "{shown}");
    eventually("a decision that waits holds nobody up", BOUND, || {
        let claim = layer(&rack.servers[0])?;
        ensure!(claim.is_empty(), "{claim}");
        Ok(())
    })
}

fn all_show_the_new(rack: &Rack, agent: &Agent, before: &Before) -> anyhow::Result<()> {
    let mut shown: Vec<PathBuf> = vec![agent.data().join("agent/tls/kubelet-serving.crt")];
    for server in &rack.servers {
        let (tls, node) = (server.data.join("server/tls"), server.data.join("agent/tls"));
        shown.extend([tls.join("serving.crt"), node.join("kubelet-serving.crt")]);
        let member = format!("s_client -connect {}:2379 -showcerts", server.host.address);
        let chain = Tool::new("openssl").call(&member.split_whitespace().collect::<Vec<_>>(), "")?.stdout;
        ensure!(chain.matches("BEGIN CERTIFICATE").count() == 2, "etcd shows no way to its old authority: {chain}");
    }
    for certificate in shown {
        let issuer = issuer(&certificate)?;
        ensure!(issuer != before.issuer, "{} is of the old authority still: {issuer}", certificate.display());
    }
    Ok(())
}

fn finish(rack: &Rack) -> anyhow::Result<()> {
    let last = &rack.servers[2];
    let said = rotate(last, "--finish --dry-run")?;
    ensure!(said.contains("No machine is out") && said.contains("kubeconfigs"), "{said}");
    let said = rotate(last, "--finish --yes")?;
    ensure!(said.contains("done"), "{said}");
    let shown = status(&rack.servers[0])?;
    ensure!(shown["phase"] == "done" && shown["tokensUntil"].is_string(), "{shown}");
    let secret = last.kubectl().ok("-n kube-system get secret evenkeel-authorities -o jsonpath={.data.record}")?;
    let secret = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, secret.trim())?;
    ensure!(!String::from_utf8_lossy(&secret).contains("PRIVATE KEY"), "a key is left in the record");
    Ok(())
}

/// From every server to every node, names that are new included; and nothing was started again.
fn everything_works(rack: &Rack, nodes: &[String]) -> anyhow::Result<()> {
    for server in &rack.servers {
        let kubectl = server.kubectl();
        for node in nodes {
            let said = kubectl.ok(&format!("logs {node}"))?;
            ensure!(said.contains(&format!("from {node}")), "{said}");
        }
    }
    let kubectl = rack.servers[0].kubectl();
    kubectl.ok("create service clusterip later --tcp=80:80")?;
    let root = std::fs::read_to_string(rack.servers[0].data.join("server/tls/server-ca.crt"))?;
    for node in nodes {
        eventually("a new name is known", BOUND, || {
            kubectl.ok(&format!("exec {node} -- busybox nslookup later.default.svc.cluster.local")).map(drop)
        })?;
        eventually("pods trust the new authority", BOUND, || {
            let mounted = "cat /var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
            ensure!(kubectl.ok(&format!("exec {node} -- {mounted}"))?.trim() == root.trim(), "another one");
            Ok(())
        })?;
        let restarts =
            kubectl.ok(&format!("get pod {node} -o jsonpath={{.status.containerStatuses[0].restartCount}}"))?;
        ensure!(restarts == "0", "the pod on {node} was restarted {restarts} times");
    }
    Ok(())
}

// === The key of Secrets at rest ===

/// Another key while one server is off, which is waited for, and another one is killed in the middle.
fn rekeyed(rack: &mut Rack) -> anyhow::Result<()> {
    rack.servers[0].kubectl().ok("create secret generic kept --from-literal=word=plain")?;
    let rotate = format!("secrets-encrypt rotate --data-dir={}", rack.servers[0].data.display());
    let plan = rack.servers[0].evenkeel()?.ok(&format!("{rotate} --dry-run"))?;
    ensure!(plan.contains("3 servers; Secrets at rest are under key number 1"), "{plan}");
    rack.servers[2].kill_server()?;
    let begun = waits_for_the_silent(rack, &rotate)?;
    let cancel = format!("secrets-encrypt cancel --data-dir={}", rack.servers[1].data.display());
    rack.servers[1].evenkeel()?.ok(&cancel)?;
    let ended = begun.wait_with_output()?;
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    ensure!(ended.status.code() == Some(2) && said.contains("taken back"), "{said}");
    let begun = waits_for_the_silent(rack, &rotate)?;
    rack.servers[2].start_server()?;
    eventually("all encrypt with it, or are about to", BOUND, || {
        let shown = key(&rack.servers[0])?;
        ensure!(shown["phase"] == "issue", "{shown}");
        Ok(())
    })?;
    rack.servers[1].kill_server()?;
    rack.servers[1].start_server()?;
    let ended = begun.wait_with_output()?;
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    ensure!(ended.status.success() && said.contains("under key number 3") && said.contains("done"), "{said}");
    for server in &rack.servers {
        let cred = server.data.join("server/cred");
        let keys = std::fs::read_to_string(cred.join("encryption.keys"))?;
        ensure!(keys.starts_with("3 ") && keys.lines().count() == 1, "{} has other keys", server.host.name);
        ensure!(!cred.join("encryption.next").exists(), "{} has a key that waits", server.host.name);
        ensure!(server.kubectl().ok("get secret kept -o jsonpath={.data.word}")? == "cGxhaW4=");
    }
    all_under_key_three(rack)
}

/// Begins it while one server is off.
fn waits_for_the_silent(rack: &Rack, rotate: &str) -> anyhow::Result<Child> {
    let begun = rack.servers[0].evenkeel()?.spawn(&format!("{rotate} --yes"))?;
    let silent = &rack.servers[2].host.name;
    eventually("the server that is off alone is waited for", BOUND, || {
        let shown = key(&rack.servers[1])?;
        ensure!(shown["phase"] == "distribute" && shown["waiting"] == serde_json::json!([silent]), "{shown}");
        Ok(())
    })?;
    Ok(begun)
}

fn key(server: &Cluster) -> anyhow::Result<Value> {
    let words = format!("secrets-encrypt status --json --data-dir={}", server.data.display());
    serde_json::from_str(&server.evenkeel()?.ok(&words)?).context("read how far the key is")
}

/// As etcd has them: the head of each value says which key it is under.
fn all_under_key_three(rack: &Rack) -> anyhow::Result<()> {
    let read = etcdctl(
        rack,
        &rack.servers[0].data.join("server/tls"),
        &rack.servers[0],
        "get /evenkeel/1//secrets/ --prefix -w json",
    )?;
    let found: Value = serde_json::from_str(&read.succeeded()?)?;
    let values = found["kvs"].as_array().context("etcd holds no secrets")?;
    for value in values {
        let text = value["value"].as_str().unwrap_or_default();
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text)?;
        ensure!(bytes.get(3..7) == Some(&[0, 0, 0, 3]), "a secret is under another key");
    }
    ensure!(values.len() > 5, "these are not all secrets");
    Ok(())
}

// === Clients ===

/// A client that writes through one server, over a new connection each time.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Vec<String>)>,
}

fn writers(rack: &Rack) -> anyhow::Result<Vec<Writer>> {
    let begin = |(number, server): (usize, &Cluster)| {
        let (endpoint, stop) = (Endpoint::of(&server.kubectl())?, Arc::new(AtomicBool::new(false)));
        let told = stop.clone();
        Ok(Writer { thread: std::thread::spawn(move || write(number, &endpoint, &told)), stop })
    };
    rack.servers.iter().enumerate().map(begin).collect()
}

fn write(number: usize, endpoint: &Endpoint, stop: &AtomicBool) -> (usize, Vec<String>) {
    let (mut written, mut failed) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let body = format!(
            "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"generateName\":\"w{number}-\",\"namespace\":\"default\"}}}}"
        );
        let path = "/api/v1/namespaces/default/configmaps";
        match endpoint.connect().and_then(|mut connection| connection.call("POST", path, &body)) {
            Ok(answer) if answer.code == 201 => written += 1,
            Ok(answer) => failed.push(format!("{}: {}", answer.code, String::from_utf8_lossy(&answer.body))),
            Err(error) => failed.push(format!("{error:#}")),
        }
        e2e::pause(PACE.saturating_sub(began.elapsed()));
    }
    (written, failed)
}

/// Of a server that was killed, only that it was away may have been noticed.
fn stop(writers: Vec<Writer>, killed: &[usize]) -> anyhow::Result<()> {
    for (number, writer) in writers.into_iter().enumerate() {
        writer.stop.store(true, Ordering::Relaxed);
        let Ok((written, mut failed)) = writer.thread.join() else { anyhow::bail!("a writer panicked") };
        println!("writer {number}: {written} written, {} failed", failed.len());
        if killed.contains(&number) {
            failed.retain(|failure| failure.to_lowercase().contains("certificate") || failure.starts_with('4'));
        }
        ensure!(written > 0 && failed.is_empty(), "through server {number}: {failed:?}");
    }
    Ok(())
}
