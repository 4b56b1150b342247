//! Machines that are lost, come back, or are others than they say.

use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::eventually;

use crate::Fault;
use crate::shell::Said;
use crate::world::{AT_ONCE, At, NOTICED, PASSED, WELL, World};

pub const FAULTS: [Fault; 9] = [
    Fault { numbers: &[54], name: "impostor", run: impostor },
    Fault { numbers: &[64], name: "version_skew", run: skew },
    Fault { numbers: &[7, 40], name: "power_lost_with_a_volume", run: power },
    Fault { numbers: &[41], name: "power_lost_everywhere", run: everywhere },
    Fault { numbers: &[31], name: "quorum_lost_and_back", run: quorum },
    Fault { numbers: &[34], name: "old_disk", run: old_disk },
    Fault { numbers: &[3, 40], name: "disk_fails_and_is_replaced", run: replaced },
    Fault { numbers: &[31], name: "quorum_lost_for_good", run: alone },
    Fault { numbers: &[39], name: "restored", run: restored },
];

const HERE: At = At::Server(0);
const REPLACED: Duration = Duration::from_secs(300);

const CLAIMED: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], storageClassName: local-path, resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: db}
spec:
  terminationGracePeriodSeconds: 0
  nodeSelector: {kubernetes.io/hostname: THERE}
  volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]
  containers: [{name: c, image: "evenkeel.local/busybox:1", command: [sleep, "9999"], volumeMounts: [{name: v, mountPath: /v}]}]
"#;

/// Another machine under the agent's name, with a token that is good.
fn impostor(world: &mut World) -> anyhow::Result<()> {
    let there = At::Server(1);
    let token = world.run(HERE, "evenkeel token create")?.out;
    let data = world.data(there).join("impostor");
    let join = format!(
        "evenkeel agent --server=https://{}:6443 --token={} --data-dir={} --node-name={}",
        world.host(HERE).address,
        token.trim(),
        data.display(),
        world.name(At::Agent)
    );
    let said = world.run(there, &join)?;
    ensure!(said.code == Some(1) && said.out.contains("is another one than the machine that joined"), "{said:?}");
    std::fs::remove_dir_all(&data).context("remove the impostor's folder")?;
    let cause = world.says(At::Server(2), "NODE_IMPOSTOR", AT_ONCE)?;
    world.follow(&cause)?;
    world.is_well(PASSED)
}

/// The agent runs a program that calls itself an older one.
fn skew(world: &mut World) -> anyhow::Result<()> {
    let version = "get node -o jsonpath={.items[0].status.nodeInfo.kubeletVersion}";
    let own = world.kubectl().ok(version)?;
    // Without the program's own version, which is put behind it when it is asked for.
    let own = own.split('+').next().unwrap_or_default().to_owned();
    let older = own.replacen("v1.36", "v1.35", 1);
    ensure!(own != older, "the version is {own}");
    let program = world.agent.data.join("bin/evenkeel");
    let bytes = std::fs::read(&program)?;
    let mut changed = bytes.clone();
    let (from, to) = (own.as_bytes(), older.as_bytes());
    let places: Vec<usize> = (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
    for at in &places {
        changed[*at..*at + to.len()].copy_from_slice(to);
    }
    ensure!(!places.is_empty(), "{own} is not in the program");
    put_program(world, &changed)?;
    let cause = world.says(HERE, "VERSION_SKEW", NOTICED);
    let said = cause.and_then(|cause| world.follow(&cause));
    put_program(world, &bytes)?;
    ensure!(said?.out.contains(&older));
    world.is_well(WELL)
}

fn put_program(world: &mut World, bytes: &[u8]) -> anyhow::Result<()> {
    let program = world.agent.data.join("bin/evenkeel");
    std::fs::remove_file(&program)?;
    std::fs::write(&program, bytes)?;
    e2e::Tool::new("chmod").ok(&format!("755 {}", program.display()))?;
    world.agent.start_again()
}

/// A machine without power, and an application whose data is only there.
fn power(world: &mut World) -> anyhow::Result<()> {
    let kubectl = world.kubectl();
    kubectl.ok_fed("apply -f -", &CLAIMED.replace("THERE", world.name(At::Agent)))?;
    kubectl.ok("wait pod/db --for=condition=Ready --timeout=90s")?;
    world.power_cut(At::Agent)?;
    world.says(At::Server(1), "NODE_DOWN", NOTICED)?;
    // What somebody tries who wants it elsewhere.
    kubectl.ok("delete pod db --force --grace-period=0")?;
    kubectl.ok_fed("apply -f -", &CLAIMED.replace("THERE", world.name(At::Agent)))?;
    let told = world.tells(At::Server(1), "VOLUME_STUCK", NOTICED);
    // What the sentence says comes first: power.
    world.power_on(At::Agent)?;
    world.start_program(At::Agent)?;
    told?;
    kubectl.ok("wait pod/db --for=condition=Ready --timeout=120s")?;
    kubectl.ok("delete pod/db pvc/data")?;
    world.is_well(WELL)
}

fn everywhere(world: &mut World) -> anyhow::Result<()> {
    let all = [At::Server(0), At::Server(1), At::Server(2), At::Agent];
    for at in all {
        world.power_cut(at)?;
    }
    for at in all {
        world.power_on(at)?;
    }
    // None of them is ready without the others.
    std::thread::scope(|scope| {
        let started: Vec<_> =
            world.rack.servers.iter_mut().map(|server| scope.spawn(|| server.start_server())).collect();
        started.into_iter().try_for_each(|one| one.join().expect("a start does not panic"))
    })?;
    world.start_program(At::Agent)?;
    let cause = world.says(At::Server(1), "ALL_RESTARTED", NOTICED)?;
    world.follow(&cause)?;
    world.is_well(PASSED)
}

/// Two of three without power: seen by the third and by the agent. Power is what is tried first.
fn quorum(world: &mut World) -> anyhow::Result<()> {
    let lost = [At::Server(1), At::Server(2)];
    for at in lost {
        world.power_cut(at)?;
    }
    let cause = world.says(HERE, "QUORUM_LOST", NOTICED);
    let outcome = cause.and_then(|cause| {
        ensure!(cause.command == "evenkeel recover quorum" && cause.on == HERE, "{cause:?}");
        world.says(At::Agent, "QUORUM_LOST", AT_ONCE)?;
        let said = world.follow(&cause)?;
        ensure!(said.code == Some(2) && confirmation(&said).is_some(), "{said:?}");
        Ok(())
    });
    for at in lost {
        world.power_on(at)?;
    }
    for at in lost {
        world.start_program(at)?;
    }
    outcome?;
    // With the case before it all servers have been started within minutes.
    world.is_well(PASSED)
}

/// A disk that was away while its machine was removed.
fn old_disk(world: &mut World) -> anyhow::Result<()> {
    let name = world.name(At::Agent).to_owned();
    world.power_cut(At::Agent)?;
    let said = world.run(HERE, &format!("evenkeel node remove {name} --now"))?;
    ensure!(said.code == Some(0), "{said:?}");
    world.power_on(At::Agent)?;
    world.start_program(At::Agent)?;
    let cause = world.says(At::Server(1), "OLD_MEMBER", NOTICED)?;
    ensure!(cause.on == At::Agent && cause.command == "evenkeel leave --local", "{cause:?}");
    let said = world.follow(&cause)?;
    ensure!(said.code == Some(0), "{said:?}");
    joins(world, At::Agent)
}

/// A machine that belongs to no cluster joins with a token, as at the first time.
fn joins(world: &mut World, at: At) -> anyhow::Result<()> {
    let token = world.run(HERE, "evenkeel token create")?.out;
    ensure!(at == At::Agent, "servers join by the rack");
    world.agent.command.retain(|word| !word.starts_with("--token="));
    world.agent.command.push(format!("--token={}", token.trim()));
    world.agent.start_again()?;
    let name = world.name(at).to_owned();
    eventually("it registers", NOTICED, || world.kubectl().ok(&format!("get node {name}")).map(drop))?;
    world.is_well(WELL)
}

/// I/O errors; the machine gets a new disk, and a new machine's place.
fn replaced(world: &mut World) -> anyhow::Result<()> {
    let there = At::Server(2);
    world.rack.servers[2].disk().destroy()?;
    let cause = world.says(HERE, "DISK_FAILING", NOTICED)?;
    let said = world.follow(&cause)?;
    ensure!(said.code == Some(0), "{said:?}");
    world.power_cut(there)?;
    let cause = world.says(HERE, "NODE_DOWN", NOTICED)?;
    let name = world.name(there).to_owned();
    ensure!(cause.command == format!("evenkeel replace {name}"), "{cause:?}");
    let mut joined = false;
    let command = cause.command.clone();
    let said = world.run_with(cause.on, &command, REPLACED, |world, said| {
        let Some(line) = said.lines().find_map(|line| line.trim().strip_prefix("evenkeel server ")) else {
            return Ok(());
        };
        if joined {
            return Ok(());
        }
        joined = true;
        world.rack.servers[2].wipe()?;
        world.power_on(At::Server(2))?;
        world.start_with(2, line.split_whitespace().map(str::to_owned).collect())
    })?;
    ensure!(said.code == Some(0) && said.out.contains("scorecard"), "{said:?}");
    world.kubectl().ok(&format!("uncordon {name}"))?;
    world.is_well(WELL)
}

/// Two of three are gone for good: the second line that is printed goes on with one.
fn alone(world: &mut World) -> anyhow::Result<()> {
    let lost = [At::Server(1), At::Server(2)];
    // One that has just been replaced is known to the others with their next look.
    let known = world.data(HERE).join("server/db/etcd/others.json");
    eventually("it knows both others", AT_ONCE, || {
        let known: Vec<String> = serde_json::from_str(&std::fs::read_to_string(&known)?)?;
        ensure!(known.len() == lost.len(), "{known:?}");
        Ok(())
    })?;
    for at in lost {
        world.power_cut(at)?;
    }
    let cause = world.says(HERE, "QUORUM_LOST", NOTICED)?;
    let said = world.follow(&cause)?;
    let confirm = confirmation(&said).with_context(|| format!("no second line in {said:?}"))?.to_owned();
    let said = world.run(HERE, &confirm)?;
    ensure!(said.code == Some(0), "{said:?}");
    // Those that do not come back are machines that are lost.
    world.says(HERE, "NODE_DOWN", NOTICED)?;
    for at in lost {
        let said = world.run(HERE, &format!("evenkeel node remove {} --now", world.name(at)))?;
        ensure!(said.code == Some(0), "{said:?}");
    }
    world.is_well(WELL)
}

/// The line that was printed for who has read what it would do.
fn confirmation(said: &Said) -> Option<&str> {
    let mut lines = said.out.lines().map(str::trim);
    lines.find(|line| line.starts_with("evenkeel recover quorum ") && line.contains(" --confirm "))
}

/// Back to a bundle: what is gone is said for a day, and nothing is to be done about it.
fn restored(world: &mut World) -> anyhow::Result<()> {
    let folder = world.data(HERE).join("kept");
    std::fs::create_dir_all(&folder)?;
    std::fs::copy(world.data(HERE).join("server/recovery-kit.txt"), folder.join("kit"))
        .context("carry the kit away")?;
    let (bundle, kit) = (folder.join("bundle"), folder.join("kit"));
    let said = world.run(HERE, &format!("evenkeel backup --file={}", bundle.display()))?;
    ensure!(said.code == Some(0), "{said:?}");
    world.kubectl().ok("create configmap after")?;
    let said = world.run(HERE, "evenkeel leave --local")?;
    ensure!(said.code == Some(0), "{said:?}");
    world.rack.servers[0].ended(AT_ONCE)?;
    let restore = format!("evenkeel restore {} --secret-file={}", bundle.display(), kit.display());
    let said = world.run(HERE, &restore)?;
    ensure!(said.code == Some(0) && said.out.contains("changes after that are gone"), "{said:?}");
    world.start_program(HERE)?;
    world.tells(HERE, "RESTORED", NOTICED)?;
    world.is_well(PASSED)?;
    let after = world.kubectl().ok("get configmap after --ignore-not-found")?;
    ensure!(after.is_empty(), "what came after the bundle is there: {after}");
    Ok(())
}
