//! A server with an etcd of its own: begun with it or converted to it under writes, its etcd killed, itself killed, the
//! power cut, a bundle restored into it, and its quota reached. An outside log of acknowledged writes is the judge.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{Answer, Cluster, Endpoint, Options, Tool, eventually};
use serde_json::{Value, json};

use super::pods::{self, restarts};

const BOUND: Duration = Duration::from_secs(60);
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Longest the API may be away for a conversion, in a debug build on a busy machine.
const GAP_MAX: Duration = Duration::from_secs(20);
/// Writes before the conversion, and after it.
const WRITES_AFTER: usize = 50;

pub fn lives_and_dies(_: &()) -> anyhow::Result<()> {
    let mut options = Options::lane("etcdown", 34);
    options.arguments = vec!["--cluster-init".to_owned()];
    let mut cluster = Cluster::start(options)?;
    let kubectl = cluster.kubectl();
    ensure!(!cluster.data.join("server/db/state.db").exists(), "the state is in a file after all");
    let mut judge = Judge::default();
    judge.write(&kubectl, "first")?;
    // etcd dies under the server.
    let first = etcd(&cluster)?;
    cluster.host.tool("kill")?.ok(&format!("-9 {first}"))?;
    eventually("writes are taken again", BOUND, || judge.write(&kubectl, "after-etcd"))?;
    let second = etcd(&cluster)?;
    ensure!(first != second, "the killed etcd still runs");
    // The server dies beside its etcd, and stops beside it.
    cluster.kill_server()?;
    cluster.start_server()?;
    judge.write(&kubectl, "after-server")?;
    cluster.stop_server()?;
    cluster.start_server()?;
    ensure!(etcd(&cluster)? == second, "etcd was not adopted");
    cluster.reboot()?;
    judge.write(&kubectl, "after-power")?;
    judge.verdict(&kubectl)?;
    refused(&cluster)?;
    restored(&mut cluster, &mut judge)
}

/// Contradictions are told before anything is touched.
fn refused(cluster: &Cluster) -> anyhow::Result<()> {
    let data = format!("--data-dir={}", cluster.data.join("other").display());
    let words = ["server", &data, "--cluster-init", "--datastore-endpoint=https://192.0.2.1:2379"];
    let said = cluster.evenkeel()?.call(&words, "")?.failed()?;
    ensure!(said.contains("one of them"), "it says {said}");
    Ok(())
}

/// A backup of the running server comes back in an etcd again.
fn restored(cluster: &mut Cluster, judge: &mut Judge) -> anyhow::Result<()> {
    let folder = cluster.data.with_extension("keep");
    std::fs::create_dir_all(&folder)?;
    let (secret, bundle) = (folder.join("passphrase"), folder.join("bundle.tar"));
    std::fs::write(&secret, "correct horse\n")?;
    let data = format!("--data-dir={}", cluster.data.display());
    let with = format!("--file={} --passphrase-file={} {data}", bundle.display(), secret.display());
    cluster.evenkeel()?.ok(&format!("backup {with}"))?;
    let full = cluster.evenkeel()?.call(&["restore", &data, "--file", &bundle.display().to_string()], "")?;
    ensure!(!full.success, "restored over a cluster");
    cluster.power_cycle()?;
    cluster.wipe()?;
    cluster.evenkeel()?.ok(&format!("restore {with}"))?;
    cluster.start_server()?;
    std::fs::remove_dir_all(&folder)?;
    ensure!(!cluster.data.join("server/db/state.db").exists(), "the restored state is in a file");
    judge.verdict(&cluster.kubectl())?;
    judge.write(&cluster.kubectl(), "after-restore")
}

pub fn converted(_: &()) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(Options::lane("etcdconv", 36))?;
    let kubectl = cluster.kubectl();
    kubectl.ok_fed("apply -f -", pods::SLEEPER)?;
    kubectl.ok("wait pod/sleeper --for=condition=Ready --timeout=90s")?;
    let before = revision(&kubectl)?;
    let (done, written, last) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicU64::new(0));
    let endpoint = Endpoint::of(&kubectl)?;
    let (log, watched, said) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let log = write_until(&endpoint, &done, &written);
            // Also where it failed: nobody waits for more.
            let newest = log.as_ref().ok().and_then(|log| log.acknowledged.last());
            last.store(newest.map_or(1, |(_, revision)| *revision), Ordering::SeqCst);
            log
        });
        let watcher = scope.spawn(|| watch_until(&endpoint, before, &last));
        let under_way = eventually("writes are under way", BOUND, || {
            ensure!(WRITES_AFTER <= written.load(Ordering::SeqCst), "too few yet");
            Ok(())
        });
        let data = format!("datastore convert --data-dir={}", cluster.data.display());
        let said = under_way.and_then(|()| cluster.evenkeel()?.ok(&data));
        done.store(true, Ordering::SeqCst);
        (writer.join().expect("the writer"), watcher.join().expect("the watcher"), said)
    });
    let (log, watched, said) = (log?, watched?, said?);
    ensure!(said.contains("the state is in etcd"), "it says {said}");
    eprintln!("conversion: {} writes, longest without one {:?}, {watched:?}", log.acknowledged.len(), log.gap);
    ensure!(log.gap < GAP_MAX, "the API was away for {:?}", log.gap);
    log.verdict(&kubectl)?;
    ensure!(WRITES_AFTER <= watched.events && watched.lists <= 1, "the watcher saw {watched:?}");
    ensure!(restarts(&kubectl, "sleeper")? == "0", "the pod was restarted");
    aside(&cluster)?;
    let again = cluster.evenkeel()?.ok(&format!("datastore convert --data-dir={}", cluster.data.display()))?;
    ensure!(again.contains("already"), "it says {again}");
    let pid = etcd(&cluster)?;
    // Remembered: no flag says so.
    cluster.stop_server()?;
    cluster.start_server()?;
    ensure!(etcd(&cluster)? == pid, "etcd was not adopted");
    log.verdict(&kubectl)
}

/// The file of before is kept, for reading only.
fn aside(cluster: &Cluster) -> anyhow::Result<()> {
    let folder = cluster.data.join("server/db");
    let names = std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    let is = |path: &&std::path::PathBuf, part: &str| path.display().to_string().contains(part);
    ensure!(!folder.join("state.db").exists() && !folder.join("convert-to-etcd").exists(), "left behind: {names:?}");
    let kept = names.iter().find(|path| is(path, "state.db.before-etcd-2")).context("no file is kept")?;
    ensure!(kept.metadata()?.permissions().mode() & 0o777 == 0o400, "{} can be written", kept.display());
    Ok(())
}

pub fn full(_: &()) -> anyhow::Result<()> {
    let mut options = Options::lane("etcdfull", 38);
    options.arguments = vec!["--cluster-init".to_owned(), "--etcd-arg=quota-backend-bytes=16777216".to_owned()];
    let cluster = Cluster::start(options)?;
    let kubectl = cluster.kubectl();
    let mut connection = Endpoint::of(&kubectl)?.connect()?;
    // One object written over and over: all but its last version is history.
    connection.call("POST", MAPS, &map("big", 0))?;
    let path = format!("{MAPS}/big");
    let mut refused = false;
    for number in 1..60 {
        let answer = connection.call("PUT", &path, &map("big", number))?;
        if answer.code != 200 {
            ensure!(500 <= answer.code, "a full etcd answers {}", answer.code);
            refused = true;
            break;
        }
    }
    ensure!(refused, "the quota was never reached");
    // With room to go on, not just for one. While room is made a write may still be refused, which a client repeats.
    eventually("it takes writes again", Duration::from_secs(90), || {
        for number in 60..64 {
            let answer = connection.call("PUT", &path, &map("big", number))?;
            let said = String::from_utf8_lossy(&answer.body);
            ensure!(answer.code == 200, "write {number} after it was full answers {}: {said}", answer.code);
        }
        Ok(())
    })
}

/// A ConfigMap of about 900 KB, different each time.
fn map(name: &str, number: usize) -> String {
    let length = if name == "big" { 900_000 } else { 10 };
    let text: String = (0..length).map(|at| char::from(b'a' + ((at * 7 + number * 13) % 26) as u8)).collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": text}}).to_string()
}

/// Process id of etcd, as the host sees it.
fn etcd(cluster: &Cluster) -> anyhow::Result<String> {
    let pids = cluster.host.tool("pgrep")?.ok("-x etcd")?;
    let mut pids = pids.lines();
    let pid = pids.next().map(str::to_owned).context("etcd does not run")?;
    ensure!(pids.next().is_none(), "two etcd run");
    Ok(pid)
}

fn revision(kubectl: &Tool) -> anyhow::Result<u64> {
    let list: Value = serde_json::from_str(&kubectl.ok("get --raw /api/v1/namespaces")?)?;
    number(&list).context("a list has a revision")
}

fn number(object: &Value) -> Option<u64> {
    object["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

/// Acknowledged writes, in their order.
#[derive(Debug, Default)]
struct Judge {
    acknowledged: Vec<(String, u64)>,
    /// Longest time between two of them.
    gap: Duration,
}

impl Judge {
    fn write(&mut self, kubectl: &Tool, name: &str) -> anyhow::Result<()> {
        let made = kubectl.ok(&format!("create configmap {name} -o json"))?;
        self.note(name, &serde_json::from_str(&made)?)
    }

    /// No revision comes twice or goes back.
    fn note(&mut self, name: &str, made: &Value) -> anyhow::Result<()> {
        let revision = number(made).context("a written object has a revision")?;
        let last = self.acknowledged.last().map_or(0, |(_, revision)| *revision);
        ensure!(last < revision, "revision {revision} of {name} is not after {last}");
        self.acknowledged.push((name.to_owned(), revision));
        Ok(())
    }

    /// Everything that was acknowledged is there.
    fn verdict(&self, kubectl: &Tool) -> anyhow::Result<()> {
        let list: Value = serde_json::from_str(&kubectl.ok(&format!("get --raw {MAPS}"))?)?;
        let newest = number(&list).context("a list has a revision")?;
        let there: Vec<&str> =
            list["items"].as_array().into_iter().flatten().filter_map(|one| one["metadata"]["name"].as_str()).collect();
        for (name, revision) in &self.acknowledged {
            ensure!(there.contains(&name.as_str()), "{name}, acknowledged at {revision}, is lost");
        }
        let last = self.acknowledged.last().map_or(0, |(_, revision)| *revision);
        ensure!(last <= newest, "the newest revision {newest} is before {last}");
        Ok(())
    }
}

/// Writes one after the other, over a new connection where one broke, until some came after the end of the conversion.
fn write_until(endpoint: &Endpoint, done: &AtomicBool, written: &AtomicUsize) -> anyhow::Result<Judge> {
    let (mut judge, mut last, mut after) = (Judge::default(), Instant::now(), 0);
    let mut connection = None;
    for count in 0.. {
        let name = format!("n-{count}");
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}).to_string();
        let answer = (|| {
            if connection.is_none() {
                connection = Some(endpoint.connect()?);
            }
            connection.as_mut().context("connected above")?.call("POST", MAPS, &body)
        })();
        match answer {
            Ok(Answer { code: 201, body, .. }) => {
                judge.note(&name, &serde_json::from_slice(&body)?)?;
                judge.gap = judge.gap.max(last.elapsed());
                last = Instant::now();
                written.fetch_add(1, Ordering::SeqCst);
                after += usize::from(done.load(Ordering::SeqCst));
            }
            // Refused, or its answer was lost.
            _ => {
                connection = None;
                ensure!(last.elapsed() < BOUND, "no write was taken for {BOUND:?}");
                e2e::pause(Duration::from_millis(20));
            }
        }
        if WRITES_AFTER <= after {
            return Ok(judge);
        }
    }
    unreachable!("the count has no end")
}

/// What a watcher went through.
#[derive(Debug, Default)]
struct Watched {
    events: usize,
    /// Times it had to list again, being told 410.
    lists: usize,
}

/// Watches as clients do, up to the last write: goes on where the stream ended, lists again when it is told 410.
fn watch_until(endpoint: &Endpoint, from: u64, last: &AtomicU64) -> anyhow::Result<Watched> {
    let (mut watched, mut revision, mut since) = (Watched::default(), from, Instant::now());
    while last.load(Ordering::SeqCst) == 0 || revision < last.load(Ordering::SeqCst) {
        let events = match stream(endpoint, revision) {
            Ok(events) => events,
            // The server is away.
            Err(error) => {
                ensure!(since.elapsed() < BOUND, "the watch does not come back: {error:#}");
                e2e::pause(Duration::from_millis(50));
                continue;
            }
        };
        since = Instant::now();
        for event in events {
            if event["type"] == "ERROR" {
                ensure!(event["object"]["code"] == 410, "in a stream: {event}");
                let list: Value = serde_json::from_slice(&endpoint.connect()?.call("GET", MAPS, "")?.body)?;
                let newest = number(&list).context("a list has a revision")?;
                ensure!(revision <= newest, "the list at {newest} is before the watch at {revision}");
                (watched.lists, revision) = (watched.lists + 1, newest);
                continue;
            }
            let at = number(&event["object"]).context("an event has a revision")?;
            ensure!(revision < at, "the event at {at} is not after {revision}");
            (watched.events, revision) = (watched.events + 1, at);
        }
    }
    Ok(watched)
}

/// What one short watch tells. Of one that breaks, nothing counts.
fn stream(endpoint: &Endpoint, after: u64) -> anyhow::Result<Vec<Value>> {
    let path = format!("{MAPS}?watch=1&resourceVersion={after}&timeoutSeconds=2");
    let answer = endpoint.connect()?.call("GET", &path, "")?;
    ensure!(answer.code == 200, "the watch answered {}", answer.code);
    let lines = answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| Ok(serde_json::from_slice(line)?)).collect()
}
