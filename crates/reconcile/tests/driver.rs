//! The driver against a fake API server: goals are reached once, through lost replies, skewed streams and refusals.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use api::op::Regarding;
use api::{Gvr, Key, Op, Plan, Preconditions, Reason, Snapshot, Status};
use base::ManualClock;
use jiff::{SignedDuration, Timestamp};
use reconcile::{Driver, Health, Leader, LeaderConfig, Loop};
use serde_json::json;
use view::fake::{FakeApi, Fault};
use view::{Change, Drain, View, Watched};

const BOUND: Duration = Duration::from_secs(10);

fn wanted() -> Gvr {
    Gvr::new("", "v1", "configmaps")
}

fn made() -> Gvr {
    Gvr::new("", "v1", "secrets")
}

fn named(name: &str) -> api::Tree {
    json!({"metadata": {"name": name, "namespace": "n"}})
}

/// Every ConfigMap gets a Secret of its name; a Secret without its ConfigMap goes.
fn mirror(snapshot: &Snapshot, key: &Key, _: Timestamp) -> Plan {
    assert_ne!(key.name, "poison", "a plan with a bug");
    let want = snapshot.stream(&wanted()).get(key).cloned();
    let have = snapshot.stream(&made()).get(key).cloned();
    match (want, have) {
        (Some(_), None) => {
            let regarding = Regarding {
                api_version: "v1".into(),
                kind: "ConfigMap".into(),
                key: key.clone(),
                uid: "u".into(),
                field_path: "".into(),
            };
            let event = Op::Event { regarding, warning: false, reason: "Mirrored".into(), message: "made".to_owned() };
            let create = Op::Create { gvr: made(), namespace: key.namespace.clone(), object: named(&key.name) };
            Plan::step(vec![create, event])
        }
        (None, Some(have)) => {
            let when = Preconditions { uid: Some(have.header.uid.clone()), revision: None };
            Plan::step(vec![Op::Delete { gvr: made(), key: key.clone(), when, propagation: None, grace_seconds: None }])
        }
        (Some(_), Some(_)) | (None, None) => Plan::NOTHING,
    }
}

struct World {
    server: FakeApi,
    health: Health,
    drain: Drain,
    task: tokio::task::JoinHandle<()>,
}

impl World {
    fn start(server: FakeApi, adjust: impl FnOnce(Driver) -> Driver) -> World {
        let drain = Drain::new();
        let client = server.client();
        let watched = vec![Watched::all(wanted(), &[]), Watched::all(made(), &[])];
        let view = View::start(&client, watched, &drain);
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let one = Loop {
            name: "mirror",
            component: "mirror-controller",
            reads: vec![wanted(), made()],
            enqueue: Arc::new(|change: &Change, _: &Snapshot| vec![change.key.clone()]),
            plan: Arc::new(mirror),
            workers: 2,
        };
        let driver = adjust(Driver::new(view, client, clock).add(one));
        let health = driver.health();
        let task = tokio::spawn(driver.run(drain.clone()));
        World { server, health, drain, task }
    }

    /// Waits until the mirror holds exactly these and the loop is idle.
    async fn settles(&self, expect: &[&str]) {
        let mut status = self.health.of("mirror").unwrap();
        let settled = async {
            loop {
                let idle = status.borrow_and_update().is_idle();
                let have = self.server.list(&made());
                if idle && have.iter().map(|o| o["metadata"]["name"].as_str().unwrap()).eq(expect.iter().copied()) {
                    return;
                }
                let _ = tokio::time::timeout(Duration::from_millis(20), status.changed()).await;
            }
        };
        let waited = tokio::time::timeout(BOUND, settled).await;
        assert!(waited.is_ok(), "want {expect:?}, have {:?}, {:?}", self.server.list(&made()), self.health.read());
    }

    fn writes(&self, verb: &str) -> usize {
        self.server.writes().iter().filter(|line| line.starts_with(verb) && line.contains("secrets")).count()
    }
}

#[tokio::test]
async fn makes_and_removes_each_child_once_and_records_it() {
    let server = FakeApi::new();
    server.put(&wanted(), named("a"));
    let world = World::start(server, |driver| driver);
    world.settles(&["a"]).await;
    world.server.put(&wanted(), named("b"));
    world.settles(&["a", "b"]).await;
    world.server.remove(&wanted(), &Key::new("n", "a"));
    world.settles(&["b"]).await;
    assert_eq!((world.writes("POST"), world.writes("DELETE")), (2, 1));
    let events = Gvr::new("", "v1", "events");
    let recorded = async {
        while world.server.list(&events).len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(BOUND, recorded).await.is_ok(), "{:?}", world.server.writes());
    world.drain.cancel();
    tokio::time::timeout(BOUND, world.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn its_own_writes_are_seen_before_the_next_look() {
    let server = FakeApi::new();
    let world = World::start(server, |driver| driver);
    world.settles(&[]).await;
    world.server.hold(&made());
    world.server.put(&wanted(), named("a"));
    let mut status = world.health.of("mirror").unwrap();
    tokio::time::timeout(BOUND, status.wait_for(|s| s.busy == 1)).await.unwrap().unwrap();
    // News of the parent, while the child's event is held back: a plan now would make it again.
    for _ in 0..3 {
        let mut again = named("a");
        again["data"] = json!({"n": world.server.writes().len()});
        world.server.put(&wanted(), again);
        tokio::task::yield_now().await;
    }
    world.server.release(&made());
    world.settles(&["a"]).await;
    assert_eq!(world.writes("POST"), 1);
}

#[tokio::test]
async fn converges_through_lost_replies_and_refusals() {
    let server = FakeApi::new();
    let refused = || Fault::Refuse(Status::new(Reason::InternalError, "etcd is away"));
    server.inject([Fault::LoseReply, refused(), refused(), Fault::LoseReply, refused()]);
    for name in ["a", "b", "c"] {
        server.put(&wanted(), named(name));
    }
    let world = World::start(server, |driver| driver);
    world.settles(&["a", "b", "c"]).await;
    world.server.inject([Fault::LoseReply, refused()]);
    world.server.remove(&wanted(), &Key::new("n", "b"));
    world.settles(&["a", "c"]).await;
    assert!(world.health.read()[0].errors >= 1);
    assert_eq!(world.health.read()[0].failing, 0, "every key recovered");
}

#[tokio::test]
async fn a_plan_that_panics_fails_its_own_key_only() {
    let server = FakeApi::new();
    server.put(&wanted(), named("poison"));
    server.put(&wanted(), named("sound"));
    let world = World::start(server, |driver| driver);
    let mut status = world.health.of("mirror").unwrap();
    let failed = status.wait_for(|s| s.last_error.as_ref().is_some_and(|text| text.contains("a plan with a bug")));
    tokio::time::timeout(BOUND, failed).await.unwrap().unwrap();
    world.settles(&["sound"]).await;
}

#[tokio::test]
async fn only_the_leader_acts_and_a_free_lease_is_taken_at_once() {
    let server = FakeApi::new();
    let leases = Gvr::new("coordination.k8s.io", "v1", "leases");
    server.put(&wanted(), named("a"));
    server.put(
        &leases,
        json!({"metadata": {"name": "evenkeel", "namespace": "kube-system"},
               "spec": {"holderIdentity": "other", "leaseDurationSeconds": 60}}),
    );
    let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1)));
    let config = LeaderConfig { renew: Duration::from_millis(50), ..LeaderConfig::new("evenkeel", "me") };
    let (leader, _) = Leader::new(config, server.client(), clock);
    let leadership = leader.leadership();
    let world = World::start(server, |driver| driver.led_by(leadership));
    let leader = tokio::spawn(leader.run(world.drain.clone()));
    let mut status = world.health.of("mirror").unwrap();
    tokio::time::timeout(BOUND, status.wait_for(|s| s.synced)).await.unwrap().unwrap();
    assert_eq!(world.writes("POST"), 0);
    let mut free = world.server.get(&leases, &Key::new("kube-system", "evenkeel")).unwrap();
    free["spec"]["holderIdentity"] = json!(null);
    world.server.put(&leases, free);
    world.settles(&["a"]).await;
    assert_eq!(world.writes("POST"), 1);
    world.drain.cancel();
    tokio::time::timeout(BOUND, leader).await.unwrap().unwrap();
    let lease = world.server.get(&leases, &Key::new("kube-system", "evenkeel")).unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "", "released: {lease}");
}

/// Work that waits for the lease is not looked at again and again.
#[test]
fn who_leads_no_more_is_idle() {
    let (done, waited) = std::sync::mpsc::channel();
    let life = async {
        let server = FakeApi::new();
        server.put(&wanted(), named("poison"));
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let (leader, _) = Leader::new(LeaderConfig::new("evenkeel", "me"), server.client(), clock);
        let leadership = leader.leadership();
        let leads = Drain::new();
        let leader = tokio::spawn(leader.run(leads.clone()));
        let world = World::start(server, |driver| driver.led_by(leadership));
        let mut status = world.health.of("mirror").unwrap();
        // It is to be tried again in a moment.
        status.wait_for(|status| status.failing == 1).await.unwrap();
        leads.cancel();
        leader.await.unwrap();
        let pauses = || tokio::runtime::Handle::current().metrics().worker_park_count(0);
        let before = pauses();
        tokio::time::sleep(Duration::from_secs(60)).await;
        (world.writes("POST"), pauses() - before)
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        done.send(runtime.block_on(life)).unwrap();
    });
    let (writes, pauses) = waited.recv_timeout(BOUND).unwrap();
    assert_eq!(writes, 0);
    assert!(pauses < 100, "woken {pauses} times in a minute without anything to do");
}

#[tokio::test]
async fn independent_operations_fail_one_by_one() {
    let server = FakeApi::new();
    server.put(&wanted(), named("go"));
    server.inject([Fault::Refuse(Status::new(Reason::Conflict, "somebody was faster"))]);
    let drain = Drain::new();
    let client = server.client();
    let view = View::start(&client, vec![Watched::all(wanted(), &[])], &drain);
    let one = Loop {
        name: "binder",
        component: "binder",
        reads: vec![wanted()],
        enqueue: Arc::new(|_: &Change, _: &Snapshot| vec![Key::cluster("all")]),
        plan: Arc::new(|_: &Snapshot, _: &Key, _: Timestamp| {
            let create = |name: &str| Op::Create { gvr: made(), namespace: "n".into(), object: named(name) };
            Plan::step(["a", "b", "c"].map(create).to_vec())
        }),
        workers: 1,
    };
    let told = Arc::new(std::sync::Mutex::new(0));
    let counted = told.clone();
    let failed = Arc::new(move |_: &Op, _: &view::ClientError| *counted.lock().unwrap() += 1);
    let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
    let driver = Driver::new(view, client, clock).add_independent(one, failed);
    let mut status = driver.health().of("binder").unwrap();
    let task = tokio::spawn(driver.run(drain.clone()));
    tokio::time::timeout(BOUND, status.wait_for(|s| s.turns >= 1)).await.unwrap().unwrap();
    assert_eq!(server.list(&made()).len(), 2, "the others went on");
    assert_eq!((*told.lock().unwrap(), status.borrow().errors), (1, 0), "told, not counted as a failed turn");
    drain.cancel();
    tokio::time::timeout(BOUND, task).await.unwrap().unwrap();
}

fn leases() -> Gvr {
    Gvr::new("coordination.k8s.io", "v1", "leases")
}

/// A world whose loop is led, with what leads it.
fn led(server: FakeApi, renew: Duration) -> (World, tokio::task::JoinHandle<()>) {
    let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
    let config = LeaderConfig { renew, ..LeaderConfig::new("evenkeel", "me") };
    let (leader, _) = Leader::new(config, server.client(), clock);
    let leadership = leader.leadership();
    let world = World::start(server, |driver| driver.led_by(leadership));
    let leader = tokio::spawn(leader.run(world.drain.clone()));
    (world, leader)
}

/// What the leader before made last is not made again by one whose stream has not shown it yet.
#[tokio::test]
async fn who_begins_to_lead_first_sees_what_was_done_before() {
    let server = FakeApi::new();
    server.put(
        &leases(),
        json!({"metadata": {"name": "evenkeel", "namespace": "kube-system"},
               "spec": {"holderIdentity": "other", "leaseDurationSeconds": 60}}),
    );
    let (world, _leader) = led(server, Duration::from_millis(50));
    let mut status = world.health.of("mirror").unwrap();
    tokio::time::timeout(BOUND, status.wait_for(|s| s.synced)).await.unwrap().unwrap();
    world.server.hold(&made());
    world.server.put(&wanted(), named("a"));
    world.server.put(&made(), named("a"));
    tokio::time::timeout(BOUND, status.wait_for(|s| s.waiting == 1)).await.unwrap().unwrap();
    let mut free = world.server.get(&leases(), &Key::new("kube-system", "evenkeel")).unwrap();
    free["spec"]["holderIdentity"] = json!("");
    world.server.put(&leases(), free);
    let taken = async {
        while world.server.get(&leases(), &Key::new("kube-system", "evenkeel")).unwrap()["spec"]["holderIdentity"]
            != "me"
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(BOUND, taken).await.unwrap();
    assert!(!status.borrow().leading, "it holds the lease and has not seen everything");
    world.server.release(&made());
    tokio::time::timeout(BOUND, status.wait_for(|s| s.leading)).await.unwrap().unwrap();
    world.settles(&["a"]).await;
    assert_eq!(world.writes("POST"), 0);
}

/// A write without an answer may happen at any later time: it belongs to a term that ends with it.
#[tokio::test]
async fn a_write_without_an_answer_ends_the_term() {
    let server = FakeApi::new();
    // Renewed so rarely that the next write is the loop's.
    let (world, _leader) = led(server, Duration::from_secs(5));
    let transitions = || {
        let lease = world.server.get(&leases(), &Key::new("kube-system", "evenkeel"));
        lease.map(|lease| lease["spec"]["leaseTransitions"].as_u64().unwrap())
    };
    let mut status = world.health.of("mirror").unwrap();
    tokio::time::timeout(BOUND, status.wait_for(|s| s.leading)).await.unwrap().unwrap();
    assert_eq!(transitions(), Some(0));
    world.server.inject([Fault::LoseReply]);
    world.server.put(&wanted(), named("a"));
    world.settles(&["a"]).await;
    let terms = || world.server.terms("secrets");
    tokio::time::timeout(BOUND, status.wait_for(|s| s.leading)).await.unwrap().unwrap();
    world.server.put(&wanted(), named("b"));
    world.settles(&["a", "b"]).await;
    assert_eq!(transitions(), Some(1));
    let (first, last) = (terms().first().cloned().unwrap(), terms().last().cloned().unwrap());
    assert!(first.ends_with(" 0 me") && last.ends_with(" 1 me"), "{:?}", terms());
}
