//! People: two at once, half an upgrade, a wrong file, a wrong cluster, one person alone.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Tool, eventually};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use crate::Fault;
use crate::world::{AT_ONCE, At, CONFIG, NOTICED, WELL, World};

pub const FAULTS: [Fault; 4] = [
    Fault { numbers: &[66], name: "one_administrator", run: alone },
    Fault { numbers: &[65], name: "config_bad", run: config },
    Fault { numbers: &[65], name: "wrong_cluster", run: wrong_cluster },
    Fault { numbers: &[62, 63], name: "upgrade_half_done", run: half_done },
];

/// Four nodes, one after the other, in a debug build on a busy machine.
const RUN_BOUND: Duration = Duration::from_secs(400);

/// To know, and no cause of anything: it stands beside what is wrong, or alone.
fn alone(world: &mut World) -> anyhow::Result<()> {
    world.tells(At::Server(1), "ONE_ADMINISTRATOR", AT_ONCE)?;
    let kubectl = world.kubectl();
    kubectl.ok("create clusterrolebinding anna --clusterrole=cluster-admin --user=anna")?;
    eventually("a second one is seen", AT_ONCE, || {
        let (_, said) = world.wrong(At::Server(1), &[])?;
        ensure!(!said["others"].to_string().contains("ONE_ADMINISTRATOR"), "still alone");
        Ok(())
    })?;
    kubectl.ok("delete clusterrolebinding anna").map(drop)
}

fn config(world: &mut World) -> anyhow::Result<()> {
    let there = At::Server(1);
    world.sh(there, &format!("echo 'no-such-key: 1' > {CONFIG}"))?;
    let outcome = world.says(At::Server(0), "CONFIG_BAD", AT_ONCE);
    let outcome = outcome.and_then(|cause| Ok((world.says(there, "CONFIG_BAD", AT_ONCE)?, cause)));
    let said = outcome.and_then(|(_, cause)| world.follow(&cause));
    world.sh(there, &format!("rm {CONFIG}"))?;
    let said = said?;
    ensure!(said.out.contains("no-such-key"), "{said:?}");
    world.is_well(WELL)
}

/// A kubeconfig that trusts another authority.
fn wrong_cluster(world: &mut World) -> anyhow::Result<()> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let ca = params.self_signed(&key)?.pem();
    let there = At::Server(1);
    let (ca_file, config) = (world.data(there).join("other.crt"), world.data(there).join("other.kubeconfig"));
    fs::write(&ca_file, ca)?;
    fs::copy(world.data(there).join("kubeconfig.yaml"), &config)
        .or_else(|_| fs::copy(world.rack.servers[1].kubeconfig(), &config))?;
    let mut kubectl = Tool::new(world.kubectl().program);
    kubectl.environment = vec![("KUBECONFIG".into(), config.clone().into())];
    let name = kubectl.ok("config view -o jsonpath={.clusters[0].name}")?;
    kubectl
        .ok(&format!("config set-cluster {name} --certificate-authority={} --embed-certs=true", ca_file.display()))?;
    let other = format!("--kubeconfig={}", config.display());
    let cause = world.says_with(there, "WRONG_CLUSTER", AT_ONCE, &[&other])?;
    let said = world.follow(&cause)?;
    ensure!(said.out.contains("certificate-authority-data"), "{said:?}");
    fs::remove_file(&ca_file).and_then(|()| fs::remove_file(&config)).context("tidy up")?;
    world.is_well(WELL)
}

/// A run that waits, a second person who is told of it, and the first one's run that goes on.
fn half_done(world: &mut World) -> anyhow::Result<()> {
    let build = world.data(At::Server(0)).join("next");
    let mut program = fs::read(&world.rack.servers[0].binary)?;
    program.extend_from_slice(b"next");
    fs::write(&build, program)?;
    Tool::new("chmod").ok(&format!("755 {}", build.display()))?;
    let upgrade = format!("evenkeel upgrade --yes --no-watch --bake=2s --to={}", build.display());
    let said = world.run(At::Server(0), &upgrade)?;
    ensure!(said.code == Some(0), "{said:?}");
    let said = world.run(At::Server(1), "evenkeel pause")?;
    ensure!(said.code == Some(0), "{said:?}");
    let cause = world.says(At::Server(1), "UPGRADE_HALF_DONE", NOTICED)?;
    let second = world.run(At::Server(0), &upgrade)?;
    ensure!(second.code == Some(3) && second.out.contains("you can watch it: `evenkeel watch`"), "{second:?}");
    let said = world.follow(&cause)?;
    ensure!(said.code == Some(0), "{said:?}");
    let said = world.run_with(At::Server(1), "evenkeel watch", RUN_BOUND, |_, _| Ok(()))?;
    ensure!(said.code == Some(0), "{said:?}");
    world.is_well(WELL)
}
