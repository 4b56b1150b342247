//! Three members on three loopback addresses, with TLS both ways: real processes, killed and removed.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use admit::{Batch, Change, Expect, Place, Write};
use api::Key;
use base::Clock;
use container::child;
use jiff::SignedDuration;
use rustix::process::{Pid, Signal, kill_process};
use store::etcd::{Members, MembersError};
use store::{CommitId, Engine, Row};
use tokio::task::JoinSet;
use tokio::time::Instant;
use view::Drain;

use super::convert::Intent;
use super::managed::Running;
use super::member::Files;
use super::member::peer_url;
use super::{EngineKind, Managed, Settings, attend, open, stop};
use crate::cli::DatastoreArgs;
use crate::layout::Layout;
use crate::pki::ServerPki;
use crate::wire::SystemClock;

/// Longest any level may take to be reached.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster's folder, with one below it per server. What runs when it is dropped is killed.
struct Lab {
    folder: tempfile::TempDir,
    pki: Arc<ServerPki>,
    tasks: JoinSet<()>,
    drain: Drain,
}

impl Lab {
    /// None, with a line that says so, where there is no etcd.
    fn new() -> Option<Lab> {
        if !Path::new("/usr/bin/etcd").exists() {
            println!("SKIPPED: no /usr/bin/etcd on this machine (apt-get install etcd-server)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let life = SignedDuration::from_hours(1);
        // One authority for all, as if it had been handed over at the join.
        let pki = ServerPki::load_or_make(&Layout::new(folder.path().join("a")), life, SystemClock.now()).unwrap();
        Some(Lab { folder, pki: Arc::new(pki), tasks: JoinSet::new(), drain: Drain::new() })
    }

    fn layout(&self, name: &str) -> Layout {
        Layout::new(self.folder.path().join(name))
    }

    /// Of this test process alone: the ports are the same for everybody.
    fn address(name: &str) -> IpAddr {
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let last = 1 + (name.as_bytes()[0] - b'a');
        Ipv4Addr::new(127, 128 | high >> 1, low, last).into()
    }

    fn settings(&self, name: &str) -> Settings {
        let layout = self.layout(name);
        let (from, to) = (self.layout("a").server_tls(), layout.server_tls());
        if from != to {
            std::fs::create_dir_all(&to).unwrap();
            for file in ["etcd-ca.crt", "etcd-ca.key"] {
                std::fs::copy(from.join(file), to.join(file)).unwrap();
            }
        }
        let life = SignedDuration::from_hours(1);
        let pki = Arc::new(ServerPki::load_or_make(&layout, life, SystemClock.now()).unwrap());
        assert_eq!(pki.current().etcd.pem, self.pki.current().etcd.pem);
        let addresses = vec![Lab::address(name)];
        Settings { layout, name: name.to_owned(), addresses, pki, arguments: Vec::new() }
    }

    fn attend(&mut self, running: Running) -> Managed {
        attend(running, &mut self.tasks, &self.drain).unwrap()
    }

    fn pid(&self, name: &str) -> Option<u32> {
        child::running(&Files::new(&self.layout(name)).record())
    }

    fn kill(&self, name: &str) {
        let pid = self.pid(name).and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let _ = kill_process(pid.unwrap(), Signal::KILL);
    }

    /// Adds a member as an administrator would, up to its vote.
    async fn grow(&mut self, members: &Members, name: &str) -> Managed {
        let (_, all) = healthy(async || members.add_learner(&peer_url(Lab::address(name))).await).await;
        let known = all.into_iter().map(|one| (one.name, one.peer_urls[0].clone())).collect::<Vec<_>>();
        let running = Managed::join(self.settings(name), &known).await.unwrap();
        let joined = self.attend(running);
        let status = members.status(&joined.client_url()).await.unwrap();
        assert!(status.learner, "{status:?}");
        let start = Instant::now();
        loop {
            match members.promote(status.id).await {
                Ok(_) => break,
                Err(MembersError::NotCaughtUp | MembersError::Unavailable(_) | MembersError::Margin(_)) => {}
                Err(error) => panic!("{error:?}"),
            }
            assert!(start.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        joined.serves().await;
        joined
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Nobody starts again what is killed now.
        self.drain.cancel();
        self.tasks.abort_all();
        for name in ["a", "b", "c"].into_iter().filter(|name| self.pid(name).is_some()) {
            self.kill(name);
        }
    }
}

/// etcd changes its members only when all have been connected for some seconds.
async fn healthy<T>(change: impl AsyncFn() -> Result<T, MembersError>) -> T {
    let start = Instant::now();
    loop {
        match change().await {
            Ok(done) => return done,
            Err(MembersError::Margin(_)) if start.elapsed() < PATIENCE => {}
            Err(error) => panic!("{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn write(engine: &Arc<dyn Engine>, number: u128) {
    write_as(engine, number, b"x").await;
}

async fn write_as(engine: &Arc<dyn Engine>, number: u128, value: &'static [u8]) {
    let start = Instant::now();
    let place = Place { storage: "things".into(), key: Key::new("", &number.to_string()) };
    loop {
        let change = Change { place: place.clone(), expect: Expect::Absent, write: Write::Put(value.into()) };
        match engine.commit(CommitId(number), Batch { changes: vec![change] }).await {
            // An answer that was lost.
            Ok(_) | Err(store::WriteError::Conflict { .. }) => return,
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_join_fail_and_leave_under_writes() {
    let Some(mut lab) = Lab::new() else { return };
    let running = Managed::init(lab.settings("a")).await.unwrap();
    assert!(Managed::found(&lab.layout("a")));
    let first = lab.attend(running);
    let engine = store::etcd::connect(first.config()).unwrap();
    write(&engine, 1).await;
    let members = first.members().unwrap();
    let second = lab.grow(&members, "b").await;
    let third = lab.grow(&members, "c").await;
    let list = members.list().await.unwrap();
    assert_eq!(
        list.iter().map(|one| (one.name.as_str(), one.learner)).collect::<Vec<_>>(),
        [("a", false), ("b", false), ("c", false)]
    );
    first.note_others(list.iter().flat_map(|one| one.client_urls.clone()).collect()).unwrap();
    assert!(matches!(members.promote(list[1].id).await, Err(MembersError::Refused(_))), "it votes already");
    assert!(matches!(members.remove(7).await, Err(MembersError::NotFound)));
    // The leader dies: another one leads, and the dead one comes back.
    let leader = members.status(&first.own_url()).await.unwrap().leader;
    let (name, id) = list.iter().find(|one| one.id == leader).map(|one| (one.name.clone(), one.id)).unwrap();
    let before = lab.pid(&name);
    lab.kill(&name);
    write(&engine, 2).await;
    let start = Instant::now();
    while lab.pid(&name).is_none_or(|now| Some(now) == before) {
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for managed in [&first, &second, &third] {
        managed.serves().await;
        members.defragment(&managed.client_url()).await.unwrap();
    }
    differing_copies(&lab, &members, &engine).await;
    // Leading is handed over.
    let now = members.status(&second.client_url()).await.unwrap().leader;
    let leading = list.iter().find(|one| one.id == now).unwrap();
    let target = list.iter().find(|one| one.id != now).unwrap();
    members.move_leader(&leading.client_urls[0], target.id).await.unwrap();
    assert_eq!(members.status(&target.client_urls[0]).await.unwrap().leader, target.id);
    assert_eq!(members.alarms().await.unwrap(), []);
    let gone = if name == "a" { list[2].id } else { id };
    assert_eq!(healthy(async || members.remove(gone).await).await.len(), 2);
    write(&engine, 3).await;
    lab.drain.cancel();
    while lab.tasks.join_next().await.is_some() {}
    for name in ["a", "b", "c"] {
        stop(&lab.layout(name)).await.unwrap();
    }
}

/// Copies hold the same until a disk turns a byte of one, which nothing else notices.
async fn differing_copies(lab: &Lab, members: &Members, engine: &Arc<dyn Engine>) {
    let marker = b"a value of the only copy that reads so";
    write_as(engine, 9, marker).await;
    let list = members.list().await.unwrap();
    let revision = members.status(&list[0].client_urls[0]).await.unwrap().revision;
    // One that was started again just now has to catch up.
    let print = async |url: &str| {
        let start = Instant::now();
        loop {
            match members.fingerprint(url, revision).await {
                Ok(print) => return print,
                Err(error) => assert!(start.elapsed() < PATIENCE, "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let prints = async || {
        let mut all = Vec::new();
        for one in &list {
            all.push(print(&one.client_urls[0]).await);
        }
        all
    };
    let before = prints().await;
    assert!(before.iter().all(|print| *print == before[0]), "{before:?}");
    assert!(members.fingerprint(&list[0].client_urls[0], revision + 1_000).await.is_err());
    let path = Managed::data(&lab.layout("c")).join("member/snap/db");
    // Until it writes them there, etcd has values in its log and in its memory.
    let start = Instant::now();
    let places = loop {
        let bytes = std::fs::read(&path).unwrap();
        let places: Vec<usize> =
            (0..bytes.len() - marker.len()).filter(|at| bytes[*at..].starts_with(marker)).collect();
        if !places.is_empty() {
            break places;
        }
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    for place in places {
        file.write_all_at(b"A", place as u64).unwrap();
    }
    let after = prints().await;
    assert_eq!(after[..2], before[..2]);
    assert_ne!(after[2], before[2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_adopted_and_found_again() {
    let Some(lab) = Lab::new() else { return };
    let mut settings = lab.settings("a");
    // Beside the other test.
    settings.addresses = vec![Lab::address("d")];
    let running = Managed::init(settings.clone()).await.unwrap();
    let pid = lab.pid("a").unwrap();
    drop(running);
    let (managed, _child) = Managed::resume(settings.clone()).await.unwrap();
    assert_eq!(lab.pid("a"), Some(pid), "it was started anew");
    assert!(Managed::init(settings.clone()).await.is_err(), "there is one already");
    // A renewed certificate is taken without a restart.
    let certificate = settings.layout.server_tls().join("etcd-member.crt");
    let old = std::fs::read_to_string(&certificate).unwrap();
    std::fs::remove_file(&certificate).unwrap();
    managed.renew(SystemClock.now()).unwrap();
    assert_ne!(std::fs::read_to_string(&certificate).unwrap(), old);
    store::etcd::reach(&managed.config()).await.unwrap();
    assert_eq!(lab.pid("a"), Some(pid));
    assert!(stop(&settings.layout).await.unwrap());
    assert_eq!(lab.pid("a"), None);
}

async fn rows(engine: &Arc<dyn Engine>) -> Vec<Row> {
    let mut load = engine.load().await.unwrap();
    let mut all = Vec::new();
    while let Some(rows) = load.rows.recv().await {
        all.extend(rows.unwrap());
    }
    all
}

/// No flag says where the state is.
async fn opened(settings: &Settings) -> (EngineKind, Arc<dyn Engine>) {
    let datastore = DatastoreArgs {
        datastore_endpoint: None,
        datastore_cafile: None,
        datastore_certfile: None,
        datastore_keyfile: None,
    };
    let opened = open(&datastore, false, settings.clone()).await.unwrap();
    (opened.kind, opened.engine)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversion_ends_well_wherever_it_was_cut() {
    let Some(lab) = Lab::new() else { return };
    let mut settings = lab.settings("a");
    settings.addresses = vec![Lab::address("e")];
    let layout = settings.layout.clone();
    layout.make().unwrap();
    let file = store::sqlite::open(&layout.database()).unwrap();
    for number in 0..5 {
        write(&file, number).await;
    }
    let before = rows(&file).await;
    drop(file);
    // It cannot be done: the file goes on, and why is noted.
    Intent::new().write(&layout).unwrap();
    let odd = Settings { arguments: vec!["no-such-flag=1".to_owned()], ..settings.clone() };
    assert_eq!(opened(&odd).await.0, EngineKind::Sqlite);
    let failed = Intent::read(&layout).unwrap().unwrap().failed.unwrap();
    assert!(failed.contains("etcd ended at once"), "{failed}");
    // A failed one is not tried again by itself.
    assert_eq!(opened(&settings).await.0, EngineKind::Sqlite);
    // Cut while it was filled: the member still runs, and what is in it is nobody's.
    let ((half, child), _) = Managed::begin(settings.clone()).await.unwrap();
    half.serves().await;
    write(&store::etcd::connect(half.config()).unwrap(), 7).await;
    drop((half, child));
    Intent::new().write(&layout).unwrap();
    let (kind, engine) = opened(&settings).await;
    let plain = |rows: &[Row]| rows.iter().map(|row| (row.place.clone(), row.value.clone())).collect::<Vec<_>>();
    assert_eq!((kind, plain(&rows(&engine).await)), (EngineKind::ManagedEtcd, plain(&before)));
    let newest = before.iter().map(|row| row.revision).max().unwrap();
    assert!(rows(&engine).await.iter().all(|row| newest < row.revision));
    write(&engine, 6).await;
    // Cut before the file was put aside: the etcd is the state. An engine that was dropped closes its file a moment later;
    // until then its log was put aside with it.
    let kept = || {
        let entries = std::fs::read_dir(layout.server().join("db")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path().display().to_string());
        paths.filter(|path| path.contains("state.db") && !path.ends_with("-wal")).collect::<Vec<_>>()
    };
    let aside = kept();
    assert!(!layout.database().exists() && aside.len() == 1, "{aside:?}");
    std::fs::copy(&aside[0], layout.database()).unwrap();
    let (kind, engine) = opened(&settings).await;
    assert_eq!((kind, rows(&engine).await.len()), (EngineKind::ManagedEtcd, 6));
    assert!(!layout.database().exists() && kept() == aside);
    assert!(!layout.convert_intent().exists());
    stop(&layout).await.unwrap();
}
