//! `evenkeel status`: one screen. What runs, what is wrong, what to do.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use api::{Gvr, Tree};
use base::Chain;
use serde_json::{Value, json};
use view::{Client, ClientError, ListOptions};

use super::args::StatusArgs;
use super::output::table;
use crate::layout::Layout;
use crate::pki::Kubeconfig;
use crate::wire::{admin, cri_socket, names, pid};

/// Most troubles listed; the rest is counted.
const TROUBLES_MAX: usize = 20;

/// How long the container runtime may take to say what runs.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(3);
const LOG: &str = "see the log: journalctl -u evenkeel";
const START: &str = "start it: systemctl start evenkeel; if it does not stay up: journalctl -u evenkeel";

/// What was found, ready to print.
#[derive(Debug, Default)]
struct Report {
    process: Option<u32>,
    /// The process of names, where this machine serves them.
    names: Option<Option<u32>>,
    api: Option<String>,
    loops: Vec<String>,
    nodes: Vec<Vec<String>>,
    pods: (usize, usize),
    containers: Option<usize>,
    troubles: Vec<Trouble>,
}

#[derive(Debug, PartialEq, Eq)]
struct Trouble {
    what: String,
    advice: String,
}

pub async fn run(args: StatusArgs) -> Result<ExitCode> {
    let layout = args.common.layout();
    let path: PathBuf = args.kubeconfig.clone().unwrap_or_else(|| layout.kubeconfig());
    let (process, names, containers) = (pid::running(&layout), names::serving(&layout), containers(&layout).await);
    let mut report = Report { process, names, containers, ..Report::default() };
    if names == Some(None) {
        report.trouble("names are not served on this machine".to_owned(), "start evenkeel, or look at its log");
    }
    paths(&mut report, &net::PathReport::load(&layout.net()));
    let joined = layout.agent_tls().exists() && !layout.server_tls().exists();
    if joined && args.kubeconfig.is_none() {
        agent(&mut report);
    } else if !path.exists() {
        let advice = "start one with evenkeel install, or name another machine's with --kubeconfig";
        report.trouble(format!("no server was ever started here: {} is not there", path.display()), advice);
    } else {
        let config = Kubeconfig::load(&path)?;
        cluster(&mut report, &admin::client(&config)?).await;
    }
    let healthy = report.troubles.is_empty();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report.tree())?);
    } else {
        print!("{}", report.text());
    }
    Ok(if healthy { ExitCode::SUCCESS } else { super::attention() })
}

/// Containers that run on this machine; None where no runtime answers. They do so with the program down as well.
async fn containers(layout: &Layout) -> Option<usize> {
    let socket = Some(cri_socket(layout, None)).filter(|socket| socket.exists())?;
    let cri = container::Cri::connect(socket);
    let listed = tokio::time::timeout(RUNTIME_TIMEOUT, cri.list_containers(None)).await;
    let running = |one: &&container::v1::Container| one.state == container::v1::ContainerState::ContainerRunning as i32;
    Some(listed.ok()?.ok()?.iter().filter(running).count())
}

/// The ways from this machine's node to others.
fn paths(report: &mut Report, paths: &net::PathReport) {
    for path in &paths.narrow_paths {
        let (node, carried, sent) = (&path.node, path.path_mtu, path.link_mtu);
        let what = format!(
            "packets to node {node} above {carried} bytes disappear on the way, this machine's link takes {sent}"
        );
        report.trouble(what, "set one MTU on every switch port and network card between them; pods get by meanwhile");
    }
    for node in &paths.unreachable {
        let advice = "give both machines an address that the other has a route to: ip route get ADDRESS";
        report.trouble(format!("no way leads from here to node {node}: its pods are not reached"), advice);
    }
}

/// A machine that joined knows itself; its cluster is asked on a server.
fn agent(report: &mut Report) {
    report.api = Some("on a server: ask there".to_owned());
    if report.process.is_none() {
        report.trouble("the agent of this machine does not run; its pods go on".to_owned(), START);
    }
}

async fn cluster(report: &mut Report, client: &Client) {
    match client.raw("/readyz?verbose").await {
        Ok(text) => {
            report.api = Some("ready".to_owned());
            readyz(report, &String::from_utf8_lossy(&text));
        }
        Err(ClientError::Status(status)) if status.code >= 500 => {
            report.api = Some("answers, not ready".to_owned());
            readyz(report, &status.message);
            if report.troubles.is_empty() {
                report.trouble(format!("the API is not ready: {}", status.message), LOG);
            }
            return;
        }
        Err(error) => {
            let advice = if report.process.is_some() { LOG } else { START };
            report.trouble(format!("the API does not answer: {}", Chain(&error)), advice);
            return;
        }
    }
    let list = async |resource: &str| {
        let page = client.list(&Gvr::new("", "v1", resource), &ListOptions::default()).await?;
        Ok::<_, ClientError>(page.items.iter().map(|object| object.tree()).collect::<Vec<Tree>>())
    };
    let (pods, nodes) = match (list("pods").await, list("nodes").await) {
        (Ok(pods), Ok(nodes)) => (pods, nodes),
        (Err(error), _) | (_, Err(error)) => {
            report.trouble(format!("the API does not list pods and nodes: {}", Chain(&error)), LOG);
            return;
        }
    };
    for node in nodes {
        node_of(report, &node);
    }
    if report.nodes.is_empty() {
        report.trouble("there is no node yet".to_owned(), "wait a moment, or look at the log");
    }
    report.pods = (pods.iter().filter(|pod| is_well(pod)).count(), pods.len());
    for pod in pods.iter().filter(|pod| !is_well(pod)) {
        let name = format!("{}/{}", text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
        let advice = format!("evenkeel kubectl describe pod -n {}", name.replace('/', " "));
        report.trouble(format!("pod {name}: {}", why(pod)), &advice);
    }
}

fn readyz(report: &mut Report, text: &str) {
    for line in text.lines().filter(|line| line.starts_with("[-]")) {
        let name = line.trim_start_matches("[-]").split(' ').next().unwrap_or_default();
        report.trouble(format!("{name} is not well"), LOG);
    }
    report.loops = text.lines().filter_map(|line| line.strip_prefix("[+]loop/")).map(str::to_owned).collect();
}

fn node_of(report: &mut Report, node: &Tree) {
    let name = text(node, "/metadata/name");
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
    let is_ready = ready.is_some_and(|condition| condition["status"] == "True");
    if !is_ready {
        let message = ready.and_then(|condition| condition["message"].as_str()).unwrap_or("it has not reported");
        report.trouble(format!("node {name} is not ready: {message}"), "is its agent running, its runtime up?");
    }
    for pressure in conditions.iter().filter(|one| one["type"] != "Ready" && one["status"] == "True") {
        let kind = pressure["type"].as_str().unwrap_or_default();
        report.trouble(format!("node {name}: {kind}"), "free some of it, or move pods away");
    }
    let state = if is_ready { "Ready" } else { "NotReady" };
    let cordoned = if node.pointer("/spec/unschedulable") == Some(&json!(true)) { ",SchedulingDisabled" } else { "" };
    let version = text(node, "/status/nodeInfo/kubeletVersion");
    report.nodes.push(vec![name, format!("{state}{cordoned}"), version]);
}

fn is_well(pod: &Tree) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let ready = conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    ready || text(pod, "/status/phase") == "Succeeded"
}

fn why(pod: &Tree) -> String {
    let containers = pod.pointer("/status/containerStatuses").and_then(Value::as_array).cloned().unwrap_or_default();
    let waiting = containers.iter().find_map(|one| one.pointer("/state/waiting/reason")?.as_str().map(str::to_owned));
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let blocked = conditions.iter().find(|one| one["type"] == "PodScheduled" && one["status"] == "False");
    let blocked = blocked.and_then(|one| one["message"].as_str().map(str::to_owned));
    waiting.or(blocked).unwrap_or_else(|| text(pod, "/status/phase"))
}

fn text(tree: &Tree, pointer: &str) -> String {
    tree.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

// === impl Report ===

impl Report {
    fn trouble(&mut self, what: String, advice: &str) {
        self.troubles.push(Trouble { what, advice: advice.to_owned() });
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let process = self.process.map_or("not on this machine".to_owned(), |pid| format!("process {pid}"));
        let _ = writeln!(out, "evenkeel   {process}");
        let names = match self.names {
            Some(Some(pid)) => format!("process {pid}"),
            Some(None) => "not running".to_owned(),
            None => "not on this machine".to_owned(),
        };
        let _ = writeln!(out, "names      {names}");
        let _ = writeln!(out, "API        {}", self.api.as_deref().unwrap_or("no answer"));
        // What only the API could tell is not shown as nothing.
        if !self.loops.is_empty() {
            let _ = writeln!(out, "loops      {} well", self.loops.len());
            let _ = writeln!(out, "pods       {} of {} well", self.pods.0, self.pods.1);
        }
        let running = self.containers.map_or("no runtime answers".to_owned(), |count| format!("{count} run here"));
        let _ = writeln!(out, "containers {running}");
        if !self.nodes.is_empty() {
            let _ = write!(out, "\n{}", table(&["NODE", "STATE", "VERSION"], &self.nodes));
        }
        if self.troubles.is_empty() {
            let _ = writeln!(out, "\nNothing is wrong.");
            return out;
        }
        let _ = writeln!(out, "\nWhat is wrong, and what to do:");
        for trouble in self.troubles.iter().take(TROUBLES_MAX) {
            let _ = writeln!(out, "- {}\n  {}", trouble.what, trouble.advice);
        }
        if self.troubles.len() > TROUBLES_MAX {
            let _ = writeln!(out, "and {} more", self.troubles.len() - TROUBLES_MAX);
        }
        out
    }

    fn tree(&self) -> Value {
        let troubles: Vec<Value> =
            self.troubles.iter().map(|one| json!({"what": one.what, "advice": one.advice})).collect();
        json!({
            "process": self.process, "names": self.names.flatten(), "api": self.api, "loops": self.loops,
            "nodes": self.nodes, "pods": {"well": self.pods.0, "all": self.pods.1}, "containers": self.containers,
            "troubles": troubles,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Report, is_well, node_of, paths, why};
    use serde_json::json;

    #[test]
    fn a_pod_that_is_not_well_says_why() {
        let done = json!({"status": {"phase": "Succeeded"}});
        let stuck = json!({"status": {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]}});
        assert!(is_well(&done) && !is_well(&stuck));
        assert_eq!(why(&stuck), "ErrImagePull");
    }

    #[test]
    fn a_path_that_swallows_packets_is_a_trouble() {
        let text = r#"{"narrow_paths": [{"node": "b", "address": "192.0.2.2", "link_mtu": 1500, "path_mtu": 1400}],
            "unreachable": ["c"]}"#;
        let mut report = Report::default();
        paths(&mut report, &serde_json::from_str(text).unwrap());
        let said = report.text();
        assert!(said.contains("packets to node b above 1400 bytes disappear") && said.contains("to node c"), "{said}");
    }

    #[test]
    fn a_node_that_does_not_report_is_a_trouble() {
        let mut report = Report::default();
        node_of(&mut report, &json!({"metadata": {"name": "a"}, "status": {}}));
        assert_eq!(report.nodes[0][1], "NotReady");
        assert!(report.text().contains("node a is not ready"));
    }
}
