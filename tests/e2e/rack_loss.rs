//! Three servers, of which two are lost, one is replaced, and in the end all are: each time the cluster comes back by the
//! commands that it prints.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{Cluster, Options, Rack, Tool, eventually, printed};

const BOUND: Duration = Duration::from_secs(60);
const HOST: u8 = 26;

pub fn rack_loss(_: &()) -> anyhow::Result<()> {
    let mut rack = Rack::start("loss", HOST)?;
    rack.join()?;
    rack.join()?;
    rack.serves(0, 3)?;
    let kubectl = rack.servers[0].kubectl();
    rack.servers[0].nodes_ready(3)?;
    kubectl.ok_fed("apply -f -", &pod(&rack.servers[0].host.name))?;
    kubectl.ok("wait pod/keeps --for=condition=Ready --timeout=90s")?;
    sealed_things_are_everywhere(&rack)?;
    nothing_to_recover(&rack)?;
    two_are_lost(&mut rack)?;
    old_disk_comes_back(&mut rack)?;
    replaced(&mut rack)?;
    all_are_lost(&mut rack)?;
    stopped_survivor(&mut rack)
}

fn pod(node: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: keeps\n  annotations:\n    \
         backup.evenkeel.io/name: rows\n    backup.evenkeel.io/take: echo rows\nspec:\n  nodeName: {node}\n  \
         terminationGracePeriodSeconds: 0\n  containers:\n  - name: c\n    image: evenkeel.local/busybox:1\n    \
         command: [sleep, \"9999\"]\n"
    )
}

fn revision(kubectl: &Tool, name: &str) -> anyhow::Result<u64> {
    let words = format!("get configmap {name} -o jsonpath={{.metadata.resourceVersion}}");
    kubectl.ok(&words)?.parse().context("a revision")
}

/// Whichever servers are lost: the bundle, what an application kept beside it, and the kit are on the others.
fn sealed_things_are_everywhere(rack: &Rack) -> anyhow::Result<()> {
    let said = rack.servers[0].succeeds("backup")?;
    ensure!(said.contains("default/rows: ") && said.contains("kept beside it"), "{said}");
    let made = said.split_whitespace().find_map(|word| word.strip_suffix(':').filter(|word| word.ends_with(".bundle")));
    let bundle = made.with_context(|| format!("no bundle in {said}"))?;
    let kit = rack.servers[0].succeeds("backup kit")?;
    let secret = kit.split_whitespace().find(|word| word.starts_with("EVK-SECRET-")).context("no secret in the kit")?;
    for server in &rack.servers {
        eventually("every server has a copy", 3 * BOUND, || {
            for end in ["", ".app-default.rows.00000", ".app-default.rows.json"] {
                let file = server.data.join(format!("backups/{bundle}{end}"));
                ensure!(file.exists(), "{} is not there", file.display());
            }
            let said = server.succeeds("backup kit")?;
            ensure!(said.contains(secret), "another kit");
            Ok(())
        })?;
    }
    Ok(())
}

/// With a quorum it is refused, and says who answers.
fn nothing_to_recover(rack: &Rack) -> anyhow::Result<()> {
    let said = rack.servers[0].call("recover quorum")?;
    ensure!(said.code == 3, "{said:?}");
    ensure!(said.stdout.contains(&rack.servers[1].host.address), "{}", said.stdout);
    Ok(())
}

/// Two of three are gone: the survivor goes on alone, by the command that the first one printed.
fn two_are_lost(rack: &mut Rack) -> anyhow::Result<()> {
    let kubectl = rack.servers[0].kubectl();
    kubectl.ok("create configmap before --from-literal=a=1")?;
    let before = revision(&kubectl, "before")?;
    let container = "get pod keeps -o jsonpath={.status.containerStatuses[0].containerID}";
    let ran = kubectl.ok(container)?;
    rack.servers[1].power_cut()?;
    rack.servers[2].power_cut()?;
    let lost = Instant::now();
    let first = eventually("the loss is seen", BOUND, || {
        let said = rack.servers[0].call("recover quorum")?;
        ensure!(said.code == 2, "{said:?}");
        Ok(said.stdout)
    })?;
    for part in ["1 of 3 servers is left", "ago; what was written after that is lost", &rack.servers[1].host.name] {
        ensure!(first.contains(part), "{part:?} is not in {first}");
    }
    let stale = rack.servers[0].call("recover quorum --confirm=00000000")?;
    ensure!(stale.code == 3 && stale.stdout.contains("was not shown"), "{stale:?}");
    let said = rack.servers[0].succeeds(&printed(&first, "recover quorum")?)?;
    ensure!(said.contains("the API is up"), "{said}");
    println!("recover_quorum_s {:.1}", lost.elapsed().as_secs_f64());
    ensure!(kubectl.ok("get configmap before -o jsonpath={.data.a}")? == "1", "something was lost");
    kubectl.ok("create configmap after --from-literal=a=1")?;
    let after = revision(&kubectl, "after")?;
    ensure!(before + 100_000_000 < after, "revisions could go back: {before}, then {after}");
    rack.serves(0, 1)?;
    kubectl.ok("wait pod/keeps --for=condition=Ready --timeout=60s")?;
    ensure!(kubectl.ok(container)? == ran, "the survivor's pod was restarted");
    let kept = fs::read_dir(rack.servers[0].data.join("server/db"))?.filter_map(Result::ok);
    let kept = kept.filter(|entry| entry.file_name().to_string_lossy().starts_with("etcd-before-recovery-"));
    ensure!(kept.count() == 1, "the data is not kept as it was");
    Ok(())
}

/// One lost server comes back with its old disk, is told what to do, and does it; the other has a new one.
fn old_disk_comes_back(rack: &mut Rack) -> anyhow::Result<()> {
    let join = rack.servers[0].joining()?;
    rejoins(&mut rack.servers[1], &join)?;
    rack.serves(0, 2)?;
    rack.servers[2].start_blank(join)?;
    rack.serves(0, 3)?;
    ensure!(rack.servers[2].kubectl().ok("get configmap after -o jsonpath={.data.a}")? == "1");
    rack.servers[0].kubectl().ok("wait node --all --for=condition=Ready --timeout=60s").map(drop)
}

fn rejoins(server: &mut Cluster, join: &[String]) -> anyhow::Result<()> {
    server.host.power_on()?;
    let said = server.refused(&[])?;
    let sentence = format!("this machine was removed from the cluster as {}", server.host.name);
    ensure!(said.contains(&sentence) && said.contains("evenkeel leave --local"), "{said}");
    server.succeeds("leave --local")?;
    server.set_arguments(join.to_vec());
    server.start_server()?;
    server.set_arguments(Vec::new());
    Ok(())
}

/// A blank machine takes a lost one's place: what the node was called and marked with is there again.
fn replaced(rack: &mut Rack) -> anyhow::Result<()> {
    let name = rack.servers[2].host.name.clone();
    let kubectl = rack.servers[0].kubectl();
    kubectl.ok(&format!("label node {name} shelf=seven"))?;
    kubectl.ok(&format!("taint node {name} db=only:NoSchedule"))?;
    kubectl.ok("create deployment web --image=evenkeel.local/busybox:1 --replicas=2 -- sleep 9999")?;
    kubectl.ok("wait deployment/web --for=condition=Available --timeout=60s")?;
    let words = format!("replace {name}");
    let said = rack.servers[0].call(&words)?;
    ensure!(said.code == 3 && said.stdout.contains("still answers"), "{said:?}");
    rack.servers[2].power_cut()?;
    rack.servers[2].host.unplug()?;
    rack.serves(0, 2)?;
    given_up(&kubectl, &name)?;
    let begin = Instant::now();
    eventually("the margin is gone", BOUND, || {
        let dry = rack.servers[0].succeeds(&format!("{words} --dry-run"))?;
        ensure!(dry.starts_with("cluster ") && dry.contains("2 of 3 servers are there, 0 more"), "{dry}");
        Ok(())
    })?;
    let said = rack.servers[0].succeeds(&format!("{words} --no-wait"))?;
    let command = printed(&said, "server")?;
    ensure!(command.ends_with(&format!("--node-name={name}")), "{command}");
    rack.servers[2].start_blank(command.split_whitespace().skip(1).map(str::to_owned).collect())?;
    // Another server goes on with what the first one began.
    let card = rack.servers[1].succeeds(&format!("{words} --timeout=3m"))?;
    println!("replace_s {:.1}", begin.elapsed().as_secs_f64());
    ensure!(card.contains(&format!("scorecard: {name} replaced in")) && card.contains("2 of 2 pods"), "{card}");
    let node =
        kubectl.ok(&format!("get node {name} -o jsonpath={{.metadata.labels.shelf}}/{{.spec.taints[*].key}}"))?;
    ensure!(node == "seven/db", "labels and taints are {node}");
    kubectl.tells("-n kube-system get configmap evenkeel-scorecards -o yaml", &[&name, "catch-up"])?;
    rack.serves(0, 3)
}

/// The others confirm that the node is lost, and what it ran for a Deployment is elsewhere long before pods would leave by
/// their tolerations.
fn given_up(kubectl: &Tool, name: &str) -> anyhow::Result<()> {
    kubectl.ok(&format!("wait node/{name} --for=condition=evenkeel.io/Lost --timeout=60s"))?;
    eventually("the pods are elsewhere", BOUND, || {
        let path = "jsonpath={.items[?(@.status.containerStatuses[0].ready==true)].spec.nodeName}";
        let nodes = kubectl.ok(&format!("get pods -l app=web -o {path}"))?;
        ensure!(nodes.split(' ').filter(|node| *node != name).count() == 2, "they are on {nodes}");
        Ok(())
    })
}

/// Nothing is left but a bundle and its key.
fn all_are_lost(rack: &mut Rack) -> anyhow::Result<()> {
    let keep = PathBuf::from("/var/tmp/evenkeel-e2e").join(Options::lane("loss-bundle-", HOST).name);
    fs::create_dir_all(&keep)?;
    let outcome = restored(rack, &keep);
    fs::remove_dir_all(&keep).context("remove the bundle")?;
    outcome
}

fn restored(rack: &mut Rack, keep: &std::path::Path) -> anyhow::Result<()> {
    fs::write(keep.join("passphrase"), "a long enough passphrase\n")?;
    let sealed = format!("--file={0}/bundle --passphrase-file={0}/passphrase", keep.display());
    rack.servers[1].succeeds(&format!("backup {sealed}"))?;
    let before = revision(&rack.servers[1].kubectl(), "after")?;
    for server in &mut rack.servers {
        server.power_cut()?;
    }
    let begin = Instant::now();
    let first = &mut rack.servers[0];
    first.wipe()?;
    first.host.power_on()?;
    first.succeeds(&format!("restore {sealed}"))?;
    first.start_server()?;
    println!("restore_from_nothing_s {:.1}", begin.elapsed().as_secs_f64());
    let kubectl = first.kubectl();
    ensure!(kubectl.ok("get configmap before -o jsonpath={.data.a}")? == "1", "the bundle lacks something");
    kubectl.ok("create configmap restored --from-literal=a=1")?;
    ensure!(before < revision(&kubectl, "restored")?, "revisions went back");
    let ghosts = first.call("recover ghosts")?;
    ensure!(ghosts.code == 2 && ghosts.stdout.contains("given up, has not joined anew"), "{ghosts:?}");
    ensure!(ghosts.stdout.contains(&rack.servers[1].host.name), "{ghosts:?}");
    // One with its old disk, one without.
    let join = rack.servers[0].joining()?;
    rejoins(&mut rack.servers[1], &join)?;
    rack.servers[2].start_blank(join)?;
    rack.serves(0, 3)?;
    println!("restore_all_joined_s {:.1}", begin.elapsed().as_secs_f64());
    ensure!(rack.servers[2].kubectl().ok("get configmap restored -o jsonpath={.data.a}")? == "1");
    let none = rack.servers[0].succeeds("recover ghosts")?;
    ensure!(none.contains("no node is left"), "{none}");
    let none = rack.servers[0].succeeds("restore --prune --yes")?;
    ensure!(none.contains("nothing is to be pruned"), "{none}");
    rack.servers[0].kubectl().ok("wait node --all --for=condition=Ready --timeout=60s").map(drop)
}

/// Two are lost and no server runs on the third: the command does it all by itself.
fn stopped_survivor(rack: &mut Rack) -> anyhow::Result<()> {
    rack.servers[0].power_cut()?;
    rack.servers[1].power_cut()?;
    rack.servers[2].kill_server()?;
    let survivor = &mut rack.servers[2];
    let first = survivor.call("recover quorum --json")?;
    ensure!(first.code == 2, "{first:?}");
    let found: serde_json::Value = serde_json::from_str(&first.stdout)?;
    ensure!(found["members"] == 3 && found["givenUp"].as_array().is_some_and(|names| names.len() == 2), "{found}");
    let next = found["next"].as_str().context("no next command")?;
    let said = survivor.succeeds(&printed(next, "recover quorum")?)?;
    ensure!(said.contains("start the server as ever"), "{said}");
    survivor.start_server()?;
    let kubectl = survivor.kubectl();
    ensure!(kubectl.ok("get configmap restored -o jsonpath={.data.a}")? == "1", "something was lost");
    kubectl.ok("create configmap last --from-literal=a=1")?;
    rack.serves(2, 1)
}
