//! The demo: an ordinary application on a cluster on this machine, from nothing, with progress on the way.
//!
//! Every step looks first whether it is done, so running it again is harmless and takes seconds. Everything lies below
//! one data folder of its own; `down` takes it away.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::process::{cargo, output, run as run_program};
use crate::wait::eventually;
use crate::{host, images, tools};

/// All state of the demo's cluster.
pub const DATA: &str = "/var/lib/evenkeel-demo";
/// Where the application answers from outside; the node port of `examples/saas`.
const NODE_PORT: u16 = 30080;
/// How long the cluster may take to answer, the node to be ready, the application to be healthy.
const READY_BOUND: Duration = Duration::from_secs(90);
const HEALTHY_BOUND: &str = "--timeout=300s";
const SERVE_BOUND: Duration = Duration::from_secs(60);
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);
/// Lines of the server's log that an error shows.
const LOG_LINES: usize = 15;

/// Builds, starts, applies, waits, says what to try.
pub fn run() -> anyhow::Result<()> {
    let start = Instant::now();
    step("packages");
    host::require(&host::NODE_PACKAGES)?;
    host::require(&host::BUILD_PACKAGES)?;
    step("evenkeel");
    run_program(&cargo(), &["build", "--quiet", "--locked", "--package", "evenkeel"])?;
    step("images");
    let archives = images::build()?;
    step("kubectl");
    let kubectl = Kubectl { program: tools::kubectl()? };
    step("cluster");
    start_server(&archives)?;
    wait("the API server", || kubectl.run(&["get", "--raw", "/readyz"]).map(drop))?;
    wait("the node", || node_ready(&kubectl))?;
    step("application");
    kubectl.run(&["apply", "--filename", "examples/saas"])?;
    for workload in ["statefulset/postgres", "deployment/api", "deployment/worker", "deployment/prometheus"] {
        progress(&format!("waiting for {workload}"));
        kubectl.run(&["--namespace=saas", "rollout", "status", workload, HEALTHY_BOUND])?;
    }
    let address = node_address(&kubectl)?;
    let row = serve(address).context("the application does not serve")?;
    farewell(&kubectl, address, row, start.elapsed());
    Ok(())
}

/// Three servers, each on a simulated host of this machine, until somebody presses Enter.
pub fn rack() -> anyhow::Result<()> {
    prepared("rack", &[])
}

/// Builds all that simulated hosts need, and runs a program of the test kit with these words.
pub fn prepared(program: &str, words: &[String]) -> anyhow::Result<()> {
    step("packages");
    host::require(&host::NODE_PACKAGES)?;
    host::require(&host::BUILD_PACKAGES)?;
    host::require(&host::RACK_PACKAGES)?;
    step("evenkeel");
    run_program(&cargo(), &["build", "--quiet", "--locked", "--package", "evenkeel"])?;
    run_program(&cargo(), &["build", "--quiet", "--locked", "--package", "e2e", "--bin", program])?;
    step("images");
    images::build()?;
    step("kubectl");
    tools::kubectl()?;
    run_program(&binary()?.with_file_name(program).display().to_string(), words)
}

/// What brings the three servers up.
pub fn rack_program() -> anyhow::Result<PathBuf> {
    Ok(binary()?.with_file_name("rack"))
}

/// The binary that the demo runs.
pub fn binary() -> anyhow::Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    Ok(std::path::absolute(target.join("debug/evenkeel"))?)
}

/// What the demo's cgroups and rules are named by: `evenkeel` derives it from the data folder.
pub fn instance() -> String {
    let hash = hex::encode(Sha256::digest(DATA));
    format!("evenkeel-{}", &hash[..8])
}

/// The process ids of the demo's server: at most one, thanks to its data lock.
pub fn servers() -> Vec<u32> {
    processes(|line| line.contains(" server ") && line.contains(&format!("--data-dir={DATA} ")))
}

/// Processes whose command line, arguments separated and ended by spaces, fits.
pub fn processes(fits: impl Fn(&str) -> bool) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let line = |pid: u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = |pid: u32| String::from_utf8_lossy(&line(pid)).replace('\0', " ");
    pids.filter(|pid| *pid != std::process::id() && fits(&text(*pid))).collect()
}

/// kubectl as the demo cluster's administrator.
struct Kubectl {
    program: PathBuf,
}

// === impl Kubectl ===

impl Kubectl {
    fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let flags = [format!("--kubeconfig={}", kubeconfig().display()), format!("--cache-dir={DATA}/kube-cache")];
        let flags = flags.each_ref().map(String::as_str);
        output(&self.program.display().to_string(), &[&flags, arguments].concat())
    }
}

fn kubeconfig() -> PathBuf {
    Path::new(DATA).join("kubeconfig.yaml")
}

/// Starts the server in a session of its own, unless it runs.
fn start_server(archives: &Path) -> anyhow::Result<()> {
    if let Some(pid) = servers().first() {
        progress(&format!("runs already, process {pid}"));
        return Ok(());
    }
    link_images(archives)?;
    let binary = binary()?;
    let path = Path::new(DATA).join("server.log");
    let log =
        File::options().create(true).append(true).open(&path).with_context(|| format!("open {}", path.display()))?;
    let mut command = Command::new("setsid");
    command.arg(&binary).arg("server").arg(format!("--data-dir={DATA}"));
    command.arg(format!("--write-kubeconfig={}", kubeconfig().display()));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
    // The child outlives this program and its terminal.
    let child = command.process_group(0).spawn().with_context(|| format!("start {}", binary.display()))?;
    progress(&format!("started, process {}; log {}", child.id(), path.display()));
    Ok(())
}

/// Puts the images where the node imports them from at start.
fn link_images(archives: &Path) -> anyhow::Result<()> {
    let folder = Path::new(DATA).join("agent/images");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    for entry in fs::read_dir(archives).with_context(|| format!("read {}", archives.display()))? {
        let from = entry?.path();
        let Some(name) = from.file_name().filter(|_| from.extension().is_some_and(|extension| extension == "tar"))
        else {
            continue;
        };
        let to = folder.join(name);
        let _ = fs::remove_file(&to);
        fs::hard_link(&from, &to)
            .or_else(|_| fs::copy(&from, &to).map(drop))
            .with_context(|| format!("copy to {}", to.display()))?;
    }
    Ok(())
}

/// Tries until it works; shows the end of the server's log when it does not in time or when the server is gone.
fn wait(what: &str, mut reached: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    progress(&format!("waiting for {what}"));
    let outcome = eventually(READY_BOUND, || match reached() {
        Ok(()) => Ok(Ok(())),
        // Without a server there is nothing to wait for.
        Err(error) if servers().is_empty() => Ok(Err(error.context("the server ended"))),
        Err(error) => Err(error),
    });
    outcome
        .and_then(|reached| reached)
        .with_context(|| format!("waiting for {what}; the end of the log:\n{}", log_end()))
}

fn log_end() -> String {
    let text = fs::read_to_string(Path::new(DATA).join("server.log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

fn node_ready(kubectl: &Kubectl) -> anyhow::Result<()> {
    let path = r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
    let ready = kubectl.run(&["get", "nodes", "--output", path])?;
    ensure!(ready.split_whitespace().any(|status| status == "True"), "no node is ready");
    Ok(())
}

fn node_address(kubectl: &Kubectl) -> anyhow::Result<SocketAddr> {
    let path = r#"jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}"#;
    let text = kubectl.run(&["get", "nodes", "--output", path])?;
    let first = text.split_whitespace().next().context("the node has no address")?;
    Ok(SocketAddr::new(first.parse().with_context(|| format!("the node's address {first:?}"))?, NODE_PORT))
}

/// Stores a row through the Service and waits until the worker has marked it; returns its path.
fn serve(address: SocketAddr) -> anyhow::Result<String> {
    progress("storing a row through the Service");
    let answer = eventually(SERVE_BOUND, || http(address, "POST", "/items", "hello"))?;
    let tree: Value = serde_json::from_str(&answer).with_context(|| format!("the answer {answer:?}"))?;
    let path = format!("/items/{}", tree["id"]);
    eventually(SERVE_BOUND, || {
        let row: Value = serde_json::from_str(&http(address, "GET", &path, "")?)?;
        ensure!(row["done"] == true, "the worker did not mark {row}");
        Ok(())
    })?;
    Ok(path)
}

/// One request on a connection of its own; the body of a good answer.
fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
    let mut stream =
        TcpStream::connect_timeout(&address, HTTP_TIMEOUT).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("read the answer")?;
    let (head, body) = text.split_once("\r\n\r\n").context("an answer without a body")?;
    ensure!(head.split(' ').nth(1).is_some_and(|code| code.starts_with('2')), "{method} {path}: {text}");
    Ok(body.to_owned())
}

fn farewell(kubectl: &Kubectl, address: SocketAddr, row: String, took: Duration) {
    let program = kubectl.program.display();
    println!(
        "
The demo serves, after {:.0} s.

  address     http://{address}{row}
  kubeconfig  {}

Try next:

  export KUBECONFIG={}
  curl -d 'a row of mine' http://{address}/items
  {program} get pods,services -n saas -o wide
  {program} logs -n saas deployment/worker
  {program} scale -n saas deployment/api --replicas=3
  {program} port-forward -n saas service/prometheus 9090
  {} status --data-dir={DATA}
  cargo xtask down",
        took.as_secs_f64(),
        kubeconfig().display(),
        kubeconfig().display(),
        binary().map(|path| path.display().to_string()).unwrap_or_default(),
    );
}

fn step(what: &str) {
    eprintln!("== {what}");
}

fn progress(what: &str) {
    eprintln!("   {what}");
}
