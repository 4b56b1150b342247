//! The end-to-end lane: real kubectl and helm against one real server with real containers.

mod agent;
mod basics;
mod certificates;
mod clients;
mod commands;
mod drain;
mod helm;
mod kubectl;
mod names;
mod node;
mod program;
mod saas;
mod streams;
mod uniform;

use std::sync::Mutex;

use e2e::{Case, Cluster, Options, run_all};

/// Cases mostly wait; four at once keep two cores busy without starving the node.
const AT_ONCE: usize = 4;

/// Each of these has a cluster of its own.
const PROGRAMS_AT_ONCE: usize = 2;

fn main() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::lane("e2e", 1))?;
    let cases = basics::CASES.into_iter().chain(kubectl::CASES).chain(streams::CASES);
    let cases = cases.chain(helm::CASES).chain(node::CASES).chain(certificates::CASES);
    let cases: Vec<Case<Cluster>> = cases.collect();
    let ready = [Case { name: "node_is_ready", run: basics::node_is_ready }];
    let good = run_all(&cluster, &ready, 1);
    let good = run_all(&cluster, &cases, AT_ONCE) && good;
    // Not beside others: the kinds that discovery names must not come and go meanwhile.
    let good = run_all(&cluster, &uniform::CASES, 1) && good;
    let good = run_all(&cluster, &clients::CASES, 1) && good;
    let good = run_all(&cluster, &[Case { name: "kubectl_cordon_drain", run: drain::cordon_drain }], 1) && good;
    let good = run_all(&cluster, &[Case { name: "cli_commands", run: commands::commands }], 1) && good;
    let good = run_all(&cluster, &program::BESIDE, 1) && good;
    let good = run_all(&cluster, &[Case { name: "agent_joins_by_token", run: agent::joins }], 1) && good;
    let alone = Mutex::new(cluster);
    let stops = |cluster: &Mutex<Cluster>| commands::stops(&mut cluster.lock().expect("it is the only case"));
    let good = run_all(&alone, &[Case { name: "cli_stop_pods", run: stops }], 1) && good;
    let names = |cluster: &Mutex<Cluster>| names::outlive(&mut cluster.lock().expect("it is the only case"));
    let good = run_all(&alone, &[Case { name: "names_outlive_the_agent", run: names }], 1) && good;
    let story = |cluster: &Mutex<Cluster>| saas::story(&mut cluster.lock().expect("it is the only case"));
    let good = run_all(&alone, &[Case { name: "saas_story", run: story }], 1) && good;
    drop(alone);
    let good = run_all(&(), &program::ALONE, PROGRAMS_AT_ONCE) && good;
    std::process::exit(i32::from(!good));
}
