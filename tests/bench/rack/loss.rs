//! The server is lost whose etcd leads, that runs the loops and has the virtual address: first only its processes, then
//! with its machine, and then another takes its place.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{Agent, Cluster, Endpoint, Options, Rack, Tool, eventually, pause};
use serde_json::json;

use super::gap::Writer;
use super::{BOUND, Figures, HOST, seconds};

/// Stateless pods, more than one on each node.
const REPLICAS: usize = 8;
/// Writes go on for a while, so that a long gap, and a second one, are seen as well.
const AFTER: Duration = Duration::from_secs(8);

pub fn measure(rack: &mut Rack, agent: &Agent) -> anyhow::Result<Figures> {
    let address = virtual_address(rack)?;
    let processes = processes_killed(rack)?;
    let mut figures = vec![("api_gap_processes_killed_ms", json!(processes.as_millis() as u64))];
    figures.extend(power_cut(rack, agent, &address)?);
    figures.push(("replace_s", seconds(replaced(rack)?)));
    Ok(figures)
}

/// Starts the servers with an address that they share; the first of them gets it.
fn virtual_address(rack: &mut Rack) -> anyhow::Result<String> {
    // Below all hosts' addresses; people who measure at once have different ones.
    let address = format!("172.31.77.{}", 2 + Options::lane("", HOST).host / 30);
    for server in &mut rack.servers {
        server.set_arguments(vec![format!("--virtual-address={address}")]);
    }
    rack.servers[0].stop_server()?;
    rack.servers[0].start_server()?;
    leads_all(rack)?;
    Ok(address)
}

/// Has the first server lead: its etcd, the loops, the virtual address. The etcd of one that is stopped goes on, so that the
/// first can be the only one for a moment.
fn leads_all(rack: &mut Rack) -> anyhow::Result<()> {
    for other in &mut rack.servers[1..] {
        other.stop_server()?;
    }
    let (first, kubectl) = (rack.servers[0].host.name.clone(), rack.servers[0].kubectl());
    eventually("the first server leads all", BOUND, || {
        for lease in LEASES {
            let holder = holder(&kubectl, lease)?;
            ensure!(holder == first, "{holder:?} holds {lease}");
        }
        Ok(())
    })?;
    for other in &mut rack.servers[1..] {
        other.start_server()?;
    }
    rack.serves(0, 3)?;
    rack.lead(0)
}

const LEASES: [&str; 2] = ["kube-controller-manager", "evenkeel-virtual-address"];

fn holder(kubectl: &Tool, lease: &str) -> anyhow::Result<String> {
    let holder = kubectl.ok(&format!("-n kube-system get lease {lease} -o jsonpath={{.spec.holderIdentity}}"))?;
    // The loops' holder has a word of its authority behind its name.
    Ok(holder.split('_').next().unwrap_or_default().to_owned())
}

/// All servers, beginning with the one that is to be lost.
fn list(rack: &Rack) -> anyhow::Result<Vec<Endpoint>> {
    rack.servers.iter().map(|server| Endpoint::of(&server.kubectl())).collect()
}

/// `kill -9` of Evenkeel and its etcd: the machine goes on and refuses connections.
fn processes_killed(rack: &mut Rack) -> anyhow::Result<Duration> {
    let writer = Writer::start(list(rack)?)?;
    let etcd = rack.servers[0].host.tool("pkill")?;
    rack.servers[0].kill_server()?;
    etcd.ok("-9 -x etcd")?;
    pause(AFTER);
    let gap = writer.longest();
    rack.servers[0].start_server()?;
    rack.serves(1, 3)?;
    leads_all(rack)?;
    Ok(gap)
}

/// The machine is gone, and what it does not even refuse.
fn power_cut(rack: &mut Rack, agent: &Agent, address: &str) -> anyhow::Result<Figures> {
    let nodes: Vec<String> = rack.servers.iter().map(|server| server.host.name.clone()).collect();
    deploy(&rack.servers[1].kubectl(), &nodes[0], &agent.host.name)?;
    let servers = list(rack)?;
    let shared = servers[0].at(address);
    let (listed, shared) = (Writer::start(servers)?, Writer::start(vec![shared])?);
    rack.servers[0].host.unplug()?;
    let cut = Instant::now();
    rack.servers[0].power_cut()?;
    elsewhere(&rack.servers[1], &nodes[0])?;
    let moved = cut.elapsed();
    let millis = |writer: Writer| json!(writer.longest().as_millis() as u64);
    Ok(vec![
        ("api_gap_leader_killed_ms", millis(listed)),
        ("api_gap_virtual_address_ms", millis(shared)),
        ("dead_node_pods_elsewhere_s", seconds(moved)),
    ])
}

/// Pods of a Deployment that says nothing about nodes, some of them on the node that is to be lost.
fn deploy(kubectl: &Tool, lost: &str, agent: &str) -> anyhow::Result<()> {
    kubectl
        .ok(&format!("create deployment web --image=evenkeel.local/busybox:1 --replicas={REPLICAS} -- sleep 36000"))?;
    kubectl.ok("rollout status deployment/web --timeout=120s")?;
    let nodes = kubectl.ok("get pods -l app=web -o jsonpath={.items[*].spec.nodeName}")?;
    ensure!(nodes.contains(lost), "no pod is on {lost}: {nodes}");
    ensure!(nodes.contains(agent), "no pod is on {agent}: {nodes}");
    Ok(())
}

/// All pods that are wanted are ready, none of them on the lost node.
fn elsewhere(server: &Cluster, lost: &str) -> anyhow::Result<()> {
    let kubectl = server.kubectl();
    let path = r#"{range .items[*]}{.spec.nodeName}/{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
    eventually("the pods are elsewhere", BOUND, || {
        let listed = kubectl.ok_with(&["get", "pods", "-l", "app=web", "-o", &format!("jsonpath={path}")])?;
        let ready = listed.lines().filter_map(|line| line.strip_suffix("/True")).filter(|node| *node != lost).count();
        ensure!(ready == REPLICAS, "{ready} of {REPLICAS} are: {listed}");
        Ok(())
    })
}

/// From the command until the new machine is verified, the new machine's start included.
fn replaced(rack: &mut Rack) -> anyhow::Result<Duration> {
    let name = rack.servers[0].host.name.clone();
    rack.serves(1, 2)?;
    let begin = Instant::now();
    let words = format!("replace {name} --data-dir={}", rack.servers[1].data.display());
    let evenkeel = rack.servers[1].evenkeel()?;
    let said = evenkeel.ok(&format!("{words} --no-wait"))?;
    let command = said.lines().find_map(|line| line.trim().strip_prefix("evenkeel server ")).context("no command")?;
    rack.servers[0].start_blank(command.split_whitespace().map(str::to_owned).collect())?;
    let card = evenkeel.ok(&format!("{words} --timeout=3m"))?;
    ensure!(card.contains(&format!("scorecard: {name} replaced in")), "{card}");
    Ok(begin.elapsed())
}
