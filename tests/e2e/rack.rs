//! Three servers and an agent: joined by one command each, one lost and back, one removed for good.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{Agent, Options, Rack, Tool, eventually, manifests};

const BOUND: Duration = Duration::from_secs(60);
/// Longest that nobody may write when the leader of the store is lost, in a debug build on a busy machine.
const GAP_BOUND: Duration = Duration::from_secs(20);
const HOST: u8 = 22;

pub fn three_servers(_: &()) -> anyhow::Result<()> {
    let mut rack = Rack::start("rack", HOST)?;
    rack.servers[0].kubectl().ok("create configmap early --from-literal=a=1")?;
    for _ in 0..2 {
        println!("join_server_s {:.1}", rack.join()?.as_secs_f64());
    }
    rack.serves(0, 3)?;
    let mut agent = joined(&rack)?;
    let nodes = nodes(&rack, &agent);
    everyone_serves(&rack)?;
    pods(&rack, &nodes)?;
    streams(&rack, &nodes)?;
    leader_is_lost(&mut rack, &nodes)?;
    impostors(&rack, &agent)?;
    old_disk(&mut rack)?;
    agent_leaves(&rack, &mut agent)?;
    removed_alive(&mut rack)?;
    last_is_kept(&rack)
}

fn nodes(rack: &Rack, agent: &Agent) -> Vec<String> {
    rack.servers.iter().map(|server| server.host.name.clone()).chain([agent.host.name.clone()]).collect()
}

/// An agent joins the first server.
fn joined(rack: &Rack) -> anyhow::Result<Agent> {
    let start = Instant::now();
    let agent = Agent::join(&rack.servers[0], Options::lane("", HOST + 3).host)?;
    let kubectl = rack.servers[1].kubectl();
    let name = &agent.host.name;
    eventually("the agent registers", BOUND, || kubectl.ok(&format!("get node {name}")).map(drop))?;
    kubectl.ok(&format!("wait node/{name} --for=condition=Ready --timeout=60s"))?;
    println!("join_agent_s {:.1}", start.elapsed().as_secs_f64());
    kubectl.ok("wait node --all --for=condition=Ready --timeout=60s")?;
    Ok(agent)
}

/// What is written on one server is read on the others, at once.
fn everyone_serves(rack: &Rack) -> anyhow::Result<()> {
    ensure!(rack.servers[2].kubectl().ok("get configmap early -o jsonpath={.data.a}")? == "1", "the state is another");
    for (writer, server) in rack.servers.iter().enumerate() {
        server.kubectl().ok(&format!("create configmap by-{writer} --from-literal=a={writer}"))?;
        for reader in &rack.servers {
            let read = reader.kubectl().ok(&format!("get configmap by-{writer} -o jsonpath={{.data.a}}"))?;
            ensure!(read == writer.to_string(), "{} reads {read:?}", reader.host.name);
        }
    }
    // Tokens are the cluster's.
    rack.servers[1].succeeds("token create --description=spare")?;
    let listed = rack.servers[2].succeeds("token list")?;
    ensure!(listed.contains("spare"), "{listed}");
    Ok(())
}

/// A pod on every node.
fn pods(rack: &Rack, nodes: &[String]) -> anyhow::Result<()> {
    let kubectl = rack.servers[0].kubectl();
    for node in nodes {
        kubectl.ok_fed("apply -f -", &manifests::greeter(node, node))?;
    }
    kubectl.ok("wait pod --all --for=condition=Ready --timeout=120s").map(drop)
}

/// Logs and exec from any server to any node.
fn streams(rack: &Rack, nodes: &[String]) -> anyhow::Result<()> {
    for server in &rack.servers {
        let kubectl = server.kubectl();
        for node in nodes {
            let said = kubectl.ok(&format!("logs {node}"))?;
            ensure!(said.contains(&format!("from {node}")), "{said}");
            ensure!(kubectl.ok(&format!("exec {node} -- hostname"))?.trim() == node);
        }
    }
    Ok(())
}

/// Power off for the server that leads the store, holds the loops, and that the agent joined by.
fn leader_is_lost(rack: &mut Rack, nodes: &[String]) -> anyhow::Result<()> {
    rack.lead(0)?;
    let kubectl = rack.servers[1].kubectl();
    rack.servers[0].power_cut()?;
    let cut = Instant::now();
    eventually("writes are taken again", GAP_BOUND, || {
        kubectl.ok("create configmap meanwhile --from-literal=a=1 --request-timeout=2s").map(drop)
    })?;
    println!("api_gap_leader_killed_ms {}", cut.elapsed().as_millis());
    rack.serves(1, 2)?;
    // The agent goes on with another server, and so do the loops.
    let there = &nodes[3];
    kubectl.ok_fed("apply -f -", &manifests::greeter("after", there))?;
    kubectl.ok("wait pod/after --for=condition=Ready --timeout=60s")?;
    ensure!(rack.servers[2].kubectl().ok("exec after -- hostname")?.trim() == "after");
    let lost = &rack.servers[0].host.name;
    eventually("the loops are led by another", BOUND, || {
        let holder =
            kubectl.ok("-n kube-system get lease kube-controller-manager -o jsonpath={.spec.holderIdentity}")?;
        ensure!(!holder.starts_with(&format!("{lost}_")) && !holder.is_empty(), "it is {holder}");
        Ok(())
    })?;
    rack.servers[0].host.power_on()?;
    rack.servers[0].start_server()?;
    rack.serves(1, 3)?;
    ensure!(
        rack.servers[0].kubectl().ok("get configmap meanwhile -o jsonpath={.data.a}")? == "1",
        "it did not catch up"
    );
    for node in &nodes[1..] {
        let restarts =
            kubectl.ok(&format!("get pod {node} -o jsonpath={{.status.containerStatuses[0].restartCount}}"))?;
        ensure!(restarts == "0", "the pod on {node} was restarted {restarts} times");
    }
    Ok(())
}

/// Others under a name that is taken, and a token for something else.
fn impostors(rack: &Rack, agent: &Agent) -> anyhow::Result<()> {
    let (first, third) = (&rack.servers[0], &rack.servers[2]);
    let evenkeel = third.evenkeel()?;
    let token =
        |role: &str| Ok::<_, anyhow::Error>(first.succeeds(&format!("token create --role={role}"))?.trim().to_owned());
    let data = third.data.join("impostor");
    let common = |token: &str| {
        format!("--server=https://{}:6443 --token={token} --data-dir={}", first.host.address, data.display())
    };
    let agents = common(&token("agent")?);
    for name in [&agent.host.name, &first.host.name] {
        let said = fails(&evenkeel, &format!("agent {agents} --node-name={name}"))?;
        ensure!(said.contains(&format!("the machine calling itself {name} is another one")), "{said}");
    }
    let said = fails(&evenkeel, &format!("server {agents} --node-name=new --https-listen-port=7443"))?;
    ensure!(said.contains("lets agents join, and no servers"), "{said}");
    let servers = common(&token("server")?);
    let other = format!("server {servers} --node-name={} --https-listen-port=7443", agent.host.name);
    let said = fails(&evenkeel, &other)?;
    ensure!(said.contains("is another one than the machine that joined"), "{said}");
    std::fs::remove_dir_all(&data).context("remove the impostor's folder")
}

fn fails(evenkeel: &Tool, words: &str) -> anyhow::Result<String> {
    let words: Vec<&str> = words.split_whitespace().collect();
    evenkeel.call(&words, "")?.failed()
}

/// The third server is lost and removed; its disk comes back, is refused, forgets, and joins anew.
fn old_disk(rack: &mut Rack) -> anyhow::Result<()> {
    let name = rack.servers[2].host.name.clone();
    rack.servers[2].power_cut()?;
    let first = &rack.servers[0];
    let removed = first.succeeds(&format!("node remove {name} --now"))?;
    ensure!(removed.contains("is no node of this cluster any more"), "{removed}");
    rack.serves(0, 2)?;
    let listed = first.kubectl().ok("get nodes -o name")?;
    ensure!(!listed.contains(&name), "{listed}");
    let join = first.joining()?;
    let third = &mut rack.servers[2];
    third.host.power_on()?;
    let said = third.refused(&[])?;
    ensure!(said.contains(&format!("was removed from the cluster as {name}")), "{said}");
    third.succeeds("leave --local")?;
    third.set_arguments(join);
    // Half a join is gone on with.
    third.cut_when("server/joining.json", "https://")?;
    third.cut_when("server/joining.json", "2379")?;
    third.start_server()?;
    rack.serves(0, 3)?;
    let kubectl = rack.servers[2].kubectl();
    ensure!(kubectl.ok("get configmap meanwhile -o jsonpath={.data.a}")? == "1");
    Ok(())
}

/// Leaving empties the node first, and leaves nothing behind on either side.
fn agent_leaves(rack: &Rack, agent: &mut Agent) -> anyhow::Result<()> {
    let name = agent.host.name.clone();
    let said = agent.evenkeel()?.ok(&format!("leave --data-dir={}", agent.data().display()))?;
    ensure!(said.contains("belongs to no cluster now"), "{said}");
    agent.ended(BOUND)?;
    let kubectl = rack.servers[1].kubectl();
    let nodes = kubectl.ok("get nodes -o name")?;
    ensure!(!nodes.contains(&name), "{nodes}");
    let pods = kubectl.ok(&format!("get pods -A --field-selector=spec.nodeName={name} -o name"))?;
    ensure!(pods.is_empty(), "{pods}");
    let processes = agent.host.tool("ps")?.ok("-eo args")?;
    ensure!(!processes.contains("containerd"), "{processes}");
    Ok(())
}

/// A server that runs and is removed ends by itself; the others go on.
fn removed_alive(rack: &mut Rack) -> anyhow::Result<()> {
    let name = rack.servers[1].host.name.clone();
    rack.servers[0].succeeds(&format!("node remove {name}"))?;
    let log = rack.servers[1].ended(BOUND)?;
    ensure!(log.contains(&format!("was removed from the cluster as {name}")), "{log}");
    rack.serves(0, 2)?;
    rack.servers[2].kubectl().ok("create configmap of-two --from-literal=a=1")?;
    rack.servers[0].kubectl().ok("get configmap of-two").map(drop)
}

/// The third one leaves in good order; the last one cannot.
fn last_is_kept(rack: &Rack) -> anyhow::Result<()> {
    let (first, third) = (&rack.servers[0], &rack.servers[2]);
    let said = third.succeeds("leave")?;
    ensure!(said.contains("belongs to no cluster now"), "{said}");
    rack.serves(0, 1)?;
    ensure!(first.kubectl().ok("get configmap of-two -o jsonpath={.data.a}")? == "1", "the last one lost something");
    let said = first.call(&format!("node remove {}", first.host.name))?.failed()?;
    ensure!(said.contains("the only server of this cluster"), "{said}");
    Ok(())
}
