//! The end-to-end lanes: real kubectl and helm against one real server with real containers, and cases with several
//! machines. A lane names its part; who names cases finds them in both.

mod agent;
mod apply;
mod authorities;
mod basics;
mod certificates;
mod clients;
mod cluster_file;
mod commands;
mod drain;
mod helm;
mod kubectl;
mod names;
mod node;
mod program;
mod rack;
mod rack_loss;
mod saas;
mod segments;
mod session;
mod streams;
mod uniform;
mod upgrade;
mod upgrade_rack;
mod wrong;

use std::sync::{Arc, Mutex};

use anyhow::Context;
use e2e::{Case, Cluster, Options, run_all};
use session::Session;

/// Cases mostly wait; four at once keep two cores busy without starving the node.
const AT_ONCE: usize = 4;

/// Each of these has a cluster of its own, and mostly waits.
const PROGRAMS_AT_ONCE: usize = 3;

/// Cases with several machines each, the longest first.
const RACKS: [Case<()>; 6] = [
    Case { name: "rack_loss", run: rack_loss::rack_loss },
    Case { name: "rack_of_new_authorities", run: authorities::rotation },
    Case { name: "upgrade_story", run: upgrade::story },
    Case { name: "upgrade_of_a_rack", run: upgrade_rack::story },
    Case { name: "rack_of_three_servers", run: rack::three_servers },
    Case { name: "apply_a_cluster_file", run: cluster_file::story },
];
const RACKS_AT_ONCE: usize = 2;

/// What the lanes name.
const PARTS: [&str; 2] = ["--one-server", "--racks"];

fn main() -> anyhow::Result<()> {
    let named = std::env::args().skip(1).find(|word| PARTS.contains(&word.as_str()));
    let wanted = |part: &str| named.as_ref().is_none_or(|named| named == part);
    let [one, racks] = PARTS;
    let mut good = true;
    if wanted(one) {
        good &= one_server()?;
    }
    if wanted(racks) {
        good &= run_all(&(), &RACKS, RACKS_AT_ONCE);
    }
    std::process::exit(i32::from(!good));
}

fn one_server() -> anyhow::Result<bool> {
    let cluster = Arc::new(Cluster::start(Options::lane("e2e", 1))?);
    let ready = [Case { name: "node_is_ready", run: basics::node_is_ready }];
    let mut good = run_all(&*cluster, &ready, 1);
    good &= beside_each_other(&cluster);
    good &= alone(&cluster);
    let last = Mutex::new(Arc::into_inner(cluster).context("a case still holds the cluster")?);
    let stops = |cluster: &Mutex<Cluster>| commands::stops(&mut cluster.lock().expect("it is the only case"));
    good &= run_all(&last, &[Case { name: "cli_stop_pods", run: stops }], 1);
    let names = |cluster: &Mutex<Cluster>| names::outlive(&mut cluster.lock().expect("it is the only case"));
    good &= run_all(&last, &[Case { name: "names_outlive_the_agent", run: names }], 1);
    let story = |cluster: &Mutex<Cluster>| saas::story(&mut cluster.lock().expect("it is the only case"));
    good &= run_all(&last, &[Case { name: "saas_story", run: story }], 1);
    drop(last);
    good &= run_all(&(), &program::ALONE, PROGRAMS_AT_ONCE);
    Ok(good & run_all(&(), &wrong::ALONE, 1))
}

/// Cases that leave each other alone.
fn beside_each_other(cluster: &Arc<Cluster>) -> bool {
    let cases: Vec<Case<Cluster>> =
        basics::CASES.into_iter().chain(helm::CASES).chain(node::CASES).chain(certificates::CASES).collect();
    let mut good = run_all(&**cluster, &cases, AT_ONCE);
    for version in session::VERSIONS {
        println!("with {version}");
        let cases = apply::CASES.into_iter().chain(kubectl::CASES).chain(streams::CASES);
        let cases: Vec<Case<Session>> = cases.collect();
        good &= run_all(&Session::new(cluster, version), &cases, AT_ONCE);
    }
    good
}

/// Cases that others would disturb: the kinds that discovery names must not come and go meanwhile, nor nodes.
fn alone(cluster: &Arc<Cluster>) -> bool {
    let mut good = run_all(&**cluster, &uniform::CASES, 1);
    good &= run_all(&**cluster, &clients::CASES, 1);
    for version in session::VERSIONS {
        let drain = [Case { name: "kubectl_cordon_drain", run: drain::cordon_drain }];
        good &= run_all(&Session::new(cluster, version), &drain, 1);
    }
    good &= run_all(&**cluster, &[Case { name: "cli_commands", run: commands::commands }], 1);
    good &= run_all(&**cluster, &program::BESIDE, 1);
    good &= run_all(&**cluster, &[Case { name: "agent_joins_by_token", run: agent::joins }], 1);
    good & run_all(&**cluster, &[Case { name: "pods_across_segments", run: segments::joined }], 1)
}
