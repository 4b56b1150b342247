//! The store over each engine, and over engines that misbehave.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use admit::{Batch, Change, Expect, Place, Write};
use api::{Key, Object};
use base::{ManualClock, Revision};
use bytes::Bytes;

use super::{CommitError, Engine, Keyring, ListQuery, OpenError, Store, Watch, WatchEvent, import, survey};
use crate::faulty::Faulty;
use crate::lab::Lab;
use crate::memory::{HISTORY_BYTES_MAX, HISTORY_SECONDS_MIN};

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap()))
}

async fn open(engine: Arc<dyn Engine>) -> Store {
    Store::open(engine, Keyring::plain(), clock()).await.unwrap()
}

fn at(storage: &str, namespace: &str, name: &str) -> Place {
    Place { storage: storage.into(), key: Key::new(namespace, name) }
}

fn document(place: &Place, data: &str) -> Bytes {
    let (namespace, name) = (&place.key.namespace, &place.key.name);
    format!(r#"{{"data":{{"metadata":"{data}"}},"metadata":{{"labels":{{"v":"{data}"}},"name":"{name}","namespace":"{namespace}"}}}}"#)
        .into()
}

fn put(place: &Place, expect: Expect, data: &str) -> Change {
    Change { place: place.clone(), expect, write: Write::Put(document(place, data)) }
}

async fn commit(store: &Store, changes: Vec<Change>) -> Revision {
    store.commit_batch(&Batch { changes }).await.unwrap().revision
}

async fn create(store: &Store, place: &Place, data: &str) -> Revision {
    commit(store, vec![put(place, Expect::Absent, data)]).await
}

async fn delete(store: &Store, place: &Place) -> Revision {
    let expect = Expect::At(store.get(place).unwrap().revision);
    commit(store, vec![Change { place: place.clone(), expect, write: Write::Delete }]).await
}

fn names(objects: &[Arc<Object>]) -> String {
    objects.iter().map(|object| object.key.to_string()).collect::<Vec<_>>().join(" ")
}

async fn next(watch: &mut Watch) -> String {
    match tokio::time::timeout(Duration::from_secs(20), watch.next()).await.expect("an event") {
        Ok(WatchEvent::Change(event)) => format!("{} {} {}", event.verb(), event.place.key, event.revision),
        Ok(WatchEvent::Bookmark(revision)) => format!("BOOKMARK {revision}"),
        Err(gone) => gone.to_string(),
    }
}

/// Runs a case over both engines; without an etcd its half says so and passes.
macro_rules! over_every_engine {
    ($($case:ident)*) => {
        mod over_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let lab = crate::lab::Lab::sqlite();
                super::$case(lab.engine.clone()).await;
            })*
        }
        mod over_etcd {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let Some(lab) = crate::lab::Lab::etcd().await else { return };
                super::$case(lab.engine.clone()).await;
            })*
        }
    };
}

over_every_engine! {
    an_acknowledged_write_is_visible_and_served_with_its_revision
    a_conflict_is_told_once_its_cause_is_visible
    lists_serve_the_past_by_undoing_history
    watchers_share_events_and_frames
    a_lost_reply_is_resolved_by_the_tail
    a_loss_whose_outcome_stands_is_one_write
    a_batch_moves_every_storage_at_one_revision
    secrets_are_sealed_below_and_keys_rotate_online
    a_snapshot_restores_into_an_empty_engine_and_revisions_go_on
}

async fn an_acknowledged_write_is_visible_and_served_with_its_revision(engine: Arc<dyn Engine>) {
    let store = open(engine).await;
    let a = at("configmaps", "default", "a");
    let done = store.commit_batch(&Batch { changes: vec![put(&a, Expect::Absent, "1")] }).await.unwrap();
    let object = store.get(&a).unwrap();
    assert!(Arc::ptr_eq(done.objects[0].as_ref().unwrap(), &object));
    assert_eq!((object.revision, store.revision()), (done.revision, done.revision));
    assert_eq!(object.tree()["metadata"]["resourceVersion"], done.revision.to_string());
    assert_eq!(object.header.labels["v"], "1");
    let error = store.commit_batch(&Batch { changes: vec![put(&a, Expect::Absent, "2")] }).await.unwrap_err();
    assert!(matches!(error, CommitError::Conflict { current, .. } if current == Some(done.revision)), "{error:?}");
    let deleted = delete(&store, &a).await;
    assert!(store.get(&a).is_none());
    assert_eq!(store.read_barrier().await.unwrap(), deleted);
    let malformed = Change { place: a, expect: Expect::Absent, write: Write::Put(Bytes::from_static(b"{}")) };
    let error = store.commit_batch(&Batch { changes: vec![malformed] }).await.unwrap_err();
    assert!(matches!(error, CommitError::Malformed { .. }), "{error:?}");
}

async fn a_conflict_is_told_once_its_cause_is_visible(engine: Arc<dyn Engine>) {
    let store = open(engine).await;
    let contested = at("configmaps", "default", "contested");
    create(&store, &contested, "0").await;
    let rival = |data: &'static str| {
        let (store, contested) = (store.clone(), contested.clone());
        tokio::spawn(async move {
            for _ in 0..50 {
                let seen = store.get(&contested).unwrap().revision;
                let batch = Batch { changes: vec![put(&contested, Expect::At(seen), data)] };
                match store.commit_batch(&batch).await {
                    Ok(_) => {}
                    Err(CommitError::Conflict { .. }) => assert!(seen < store.get(&contested).unwrap().revision),
                    Err(error) => panic!("{error:?}"),
                }
            }
        })
    };
    for task in [rival("1"), rival("2"), rival("3")] {
        task.await.unwrap();
    }
}

async fn lists_serve_the_past_by_undoing_history(engine: Arc<dyn Engine>) {
    let store = open(engine).await;
    for (namespace, name) in [("a", "1"), ("b", "1"), ("b", "2"), ("b", "3"), ("c", "1")] {
        create(&store, &at("pods", namespace, name), "old").await;
    }
    let then = store.revision();
    let first = store.list("pods", &ListQuery { limit: Some(2), ..ListQuery::default() }).unwrap();
    assert_eq!((names(&first.objects).as_str(), first.more, first.remaining), ("a/1 b/1", true, Some(3)));
    delete(&store, &at("pods", "b", "2")).await;
    create(&store, &at("pods", "b", "1a"), "new").await;
    let old = store.get(&at("pods", "b", "3")).unwrap().revision;
    commit(&store, vec![put(&at("pods", "b", "3"), Expect::At(old), "new")]).await;
    let rest = ListQuery { after: Some(Key::new("b", "1")), at: Some(then), ..ListQuery::default() };
    let rest = store.list("pods", &rest).unwrap();
    assert_eq!((names(&rest.objects).as_str(), rest.more, rest.revision), ("b/2 b/3 c/1", false, then));
    assert_eq!(rest.objects[1].header.labels["v"], "old");
    let now = store.list("pods", &ListQuery { namespace: Some("b".into()), ..ListQuery::default() }).unwrap();
    assert_eq!((names(&now.objects).as_str(), now.revision), ("b/1 b/1a b/3", store.revision()));
    let accept: &dyn Fn(&Object) -> bool = &|object| object.header.labels["v"] == "new";
    let query = ListQuery { accept: Some(accept), limit: Some(1), ..ListQuery::default() };
    let page = store.list("pods", &query).unwrap();
    assert_eq!((names(&page.objects).as_str(), page.more, page.remaining), ("b/1a", true, None));
    let before = ListQuery { at: Some(Revision::ZERO), ..ListQuery::default() };
    assert!(store.list("pods", &before).is_err());
    assert!(store.list("nothing", &before).is_err());
    assert_eq!(store.list("nothing", &ListQuery::default()).unwrap().revision, store.revision());
}

async fn watchers_share_events_and_frames(engine: Arc<dyn Engine>) {
    let store = open(engine).await;
    let a = at("pods", "default", "a");
    let start = store.revision();
    let mut early = store.watch("pods", start).unwrap();
    let added = create(&store, &a, "1").await;
    create(&store, &at("configmaps", "default", "x"), "1").await;
    let modified = commit(&store, vec![put(&a, Expect::At(added), "2")]).await;
    let deleted = delete(&store, &a).await;
    let mut late = store.watch("pods", added).unwrap();
    assert_eq!(next(&mut early).await, format!("ADDED default/a {added}"));
    assert_eq!(early.progress().unwrap(), None, "more is waiting");
    let (one, other) = (early.next().await.unwrap(), late.next().await.unwrap());
    let (WatchEvent::Change(one), WatchEvent::Change(other)) = (one, other) else { panic!("changes") };
    assert!(Arc::ptr_eq(&one, &other));
    assert_eq!(one.revision, modified);
    assert_eq!(one.frame_json().as_ptr(), other.frame_json().as_ptr());
    assert_eq!(one.former().unwrap().revision, modified);
    let WatchEvent::Change(last) = early.next().await.unwrap() else { panic!("a change") };
    let frame: serde_json::Value = serde_json::from_slice(&last.frame_json()).unwrap();
    assert_eq!(frame["type"], "DELETED");
    assert_eq!(frame["object"]["metadata"]["resourceVersion"], deleted.to_string());
    assert_eq!(frame["object"]["metadata"]["labels"]["v"], "2");
    assert_eq!(early.progress().unwrap(), Some(deleted));
    create(&store, &at("configmaps", "default", "y"), "1").await;
    assert_eq!(early.progress().unwrap(), Some(store.revision()), "other storages count as progress");
}

async fn a_lost_reply_is_resolved_by_the_tail(engine: Arc<dyn Engine>) {
    let faulty = Arc::new(Faulty::over(engine));
    let store = open(faulty.clone()).await;
    faulty.lose_replies.store(true, Ordering::Relaxed);
    let a = at("pods", "default", "a");
    let created = create(&store, &a, "1").await;
    assert_eq!(store.get(&a).unwrap().revision, created);
    delete(&store, &a).await;
    assert!(store.get(&a).is_none());
}

async fn a_loss_whose_outcome_stands_is_one_write(engine: Arc<dyn Engine>) {
    let faulty = Arc::new(Faulty::over(engine));
    let store = open(faulty.clone()).await;
    let before = store.revision();
    for (lost, name) in faulty.settle.iter().zip(["a", "b"]) {
        lost.store(2, Ordering::Relaxed);
        let place = at("pods", "default", name);
        let created = create(&store, &place, "1").await;
        assert_eq!(store.get(&place).unwrap().revision, created);
        lost.store(0, Ordering::Relaxed);
    }
    assert_eq!(store.revision().0, before.0 + 2, "each was written once");
    faulty.settle[0].store(usize::MAX, Ordering::Relaxed);
    let change = put(&at("pods", "default", "c"), Expect::Absent, "1");
    let error = store.commit_batch(&Batch { changes: vec![change] }).await.unwrap_err();
    assert!(matches!(error, CommitError::Unavailable(_)), "{error:?}");
}

async fn a_batch_moves_every_storage_at_one_revision(engine: Arc<dyn Engine>) {
    let store = open(engine).await;
    let service = at("services", "default", "web");
    let claim = at("_addresses", "", "10.43.0.7");
    let claimed =
        Change { place: claim.clone(), expect: Expect::Absent, write: Write::Put(Bytes::from_static(b"web")) };
    let revision = commit(&store, vec![put(&service, Expect::Absent, "1"), claimed]).await;
    assert_eq!(store.get(&claim).unwrap().revision, revision);
    assert_eq!(store.get(&claim).unwrap().bytes, &b"web"[..]);
    let guard = Change { place: service.clone(), expect: Expect::At(revision), write: Write::Keep };
    let done = store.commit_batch(&Batch { changes: vec![guard] }).await.unwrap();
    assert!(done.objects[0].is_none());
    assert_eq!(store.revision(), revision, "a guard writes nothing");
}

async fn secrets_are_sealed_below_and_keys_rotate_online(engine: Arc<dyn Engine>) {
    let keys = Keyring::generate().unwrap();
    let store = Store::open(engine.clone(), keys.clone(), clock()).await.unwrap();
    let secret = at("/secrets", "default", "s");
    create(&store, &secret, "aHVudGVyMg").await;
    create(&store, &at("pods", "default", "p"), "aHVudGVyMg").await;
    let shown = async |needle: &[u8]| {
        let rows = crate::lab::rows(&engine).await;
        rows.iter().filter(|row| row.value.windows(needle.len()).any(|window| window == needle)).count()
    };
    assert_eq!(shown(b"aHVudGVyMg").await, 1, "the pod alone is in the clear");
    let next = keys.rotated().unwrap().sealing_only();
    // Another server encrypts with it already: this one only has to open it.
    store.set_keyring(keys.opening(&next).unwrap());
    let other = Store::open(engine.clone(), next.opening(&keys).unwrap(), clock()).await.unwrap();
    let theirs = at("/secrets", "default", "theirs");
    let revision = create(&other, &theirs, "new").await;
    store.wait_for(revision).await.unwrap();
    assert_eq!(store.get(&theirs).unwrap().header.labels["v"], "new");
    let keys = next.opening(&keys).unwrap();
    store.set_keyring(keys.clone());
    assert_eq!(store.reencrypt().await.unwrap(), 1);
    assert_eq!(store.reencrypt().await.unwrap(), 0);
    store.read_barrier().await.unwrap();
    let only_new = keys.sealing_only();
    store.set_keyring(only_new.clone());
    create(&store, &at("/secrets", "default", "t"), "more").await;
    let again = Store::open(engine.clone(), only_new, clock()).await.unwrap();
    assert_eq!(again.get(&secret).unwrap().header.labels["v"], "aHVudGVyMg");
    let foreign = Store::open(engine, Keyring::generate().unwrap(), clock()).await.err().unwrap();
    assert!(matches!(foreign, OpenError::Envelope { .. }), "{foreign:?}");
}

async fn a_snapshot_restores_into_an_empty_engine_and_revisions_go_on(engine: Arc<dyn Engine>) {
    // From the embedded engine into the one under test: restore for one, conversion for the other.
    let from = Lab::sqlite();
    let keys = Keyring::generate().unwrap();
    let store = Store::open(from.engine.clone(), keys.clone(), clock()).await.unwrap();
    for count in 0..250 {
        create(&store, &at("configmaps", "default", &format!("c{count}")), "1").await;
    }
    create(&store, &at("/secrets", "default", "s"), "aHVudGVyMg").await;
    let claim = at("_addresses", "", "10.43.0.7");
    let claimed =
        Change { place: claim.clone(), expect: Expect::Absent, write: Write::Put(Bytes::from_static(b"web")) };
    commit(&store, vec![claimed]).await;
    let mut file = Vec::new();
    let summary = store.export(&mut file).unwrap();
    assert_eq!((summary.revision, summary.records), (store.revision(), 252));
    assert!(!file.windows(10).any(|window| window == b"aHVudGVyMg"), "secrets stay sealed");
    let surveyed = survey(&file[..], &["configmaps"]).unwrap();
    let counts: Vec<(&str, u64)> = surveyed.counts.iter().map(|(storage, count)| (storage.as_str(), *count)).collect();
    assert_eq!(surveyed.keys, BTreeSet::from([1]));
    assert_eq!((surveyed.revision, counts), (summary.revision, vec![("/secrets", 1), ("configmaps", 250)]));
    assert_eq!(surveyed.documents.len(), 250);
    assert!(survey(&file[..], &["/secrets"]).is_err(), "a Secret was read without its key");
    assert!(survey(&file[..file.len() - 1], &[]).is_err(), "cut off");
    assert_eq!(import(engine.as_ref(), &file[..]).await.unwrap(), summary);
    let restored = Store::open(engine.clone(), keys, clock()).await.unwrap();
    assert!(store.revision() < restored.revision());
    assert_eq!(restored.list("configmaps", &ListQuery::default()).unwrap().objects.len(), 250);
    assert_eq!(restored.get(&at("/secrets", "default", "s")).unwrap().header.labels["v"], "aHVudGVyMg");
    assert_eq!(restored.get(&claim).unwrap().bytes, &b"web"[..]);
    let before = restored.revision();
    assert!(before < create(&restored, &at("pods", "default", "p"), "1").await);
    assert!(matches!(import(engine.as_ref(), &file[..]).await, Err(crate::ImportError::NotEmpty)));
}

#[tokio::test]
async fn a_damaged_snapshot_leaves_an_engine_that_does_not_open() {
    let from = Lab::sqlite();
    let store = open(from.engine.clone()).await;
    create(&store, &at("pods", "default", "p"), "1").await;
    let mut file = Vec::new();
    store.export(&mut file).unwrap();
    for damage in [file.len() / 2, file.len() - 1] {
        let mut damaged = file.clone();
        damaged[damage] ^= 1;
        let to = Lab::sqlite();
        assert!(import(to.engine.as_ref(), &damaged[..]).await.is_err());
        let opened = Store::open(to.engine.clone(), Keyring::plain(), clock()).await;
        assert!(matches!(opened.err().unwrap(), OpenError::HalfImported));
    }
    let to = Lab::sqlite();
    assert!(import(to.engine.as_ref(), &file[..file.len() - 40]).await.is_err());
}

#[tokio::test]
async fn a_restart_keeps_watches_of_quiet_storages() {
    let lab = Lab::sqlite();
    let store = open(lab.engine.clone()).await;
    let quiet = create(&store, &at("nodes", "", "n"), "1").await;
    let busy = create(&store, &at("pods", "default", "a"), "1").await;
    create(&store, &at("pods", "default", "b"), "1").await;
    let again = open(lab.engine.clone()).await;
    let mut watch = again.watch("nodes", quiet).unwrap();
    assert!(again.watch("pods", busy).is_err(), "its history died with the process");
    let deleted = delete(&again, &at("nodes", "", "n")).await;
    assert_eq!(next(&mut watch).await, format!("DELETED n {deleted}"));
}

#[tokio::test]
async fn a_slow_watcher_is_told_gone_and_history_is_bounded() {
    let lab = Lab::sqlite();
    let clock = clock();
    let store = Store::open(lab.engine.clone(), Keyring::plain(), clock.clone()).await.unwrap();
    let start = store.revision();
    let mut slow = store.watch("configmaps", start).unwrap();
    let filling = "x".repeat(1 << 19);
    for count in 0..HISTORY_BYTES_MAX / filling.len() {
        create(&store, &at("configmaps", "default", &format!("c{count}")), &filling).await;
    }
    let gone = slow.next().await.unwrap_err();
    assert!(start < gone.oldest);
    assert_eq!(store.watch("configmaps", start).err().unwrap(), gone);
    let mut again = store.watch("configmaps", gone.oldest).unwrap();
    assert!(next(&mut again).await.starts_with("ADDED"));
    // Below the bound, history lasts five minutes and not much longer.
    let first = create(&store, &at("pods", "default", "a"), "1").await;
    clock.advance(Duration::from_secs(HISTORY_SECONDS_MIN.unsigned_abs()));
    create(&store, &at("pods", "default", "b"), "1").await;
    assert!(store.watch("pods", start).is_ok());
    clock.advance(Duration::from_secs(1));
    create(&store, &at("pods", "default", "c"), "1").await;
    assert_eq!(store.watch("pods", start).err().unwrap().oldest, first);
}

#[tokio::test]
async fn idle_watchers_get_bookmarks_of_progress() {
    let lab = Lab::sqlite();
    let store = open(lab.engine.clone()).await;
    let mut watch = store.watch("pods", store.revision()).unwrap();
    let other = create(&store, &at("configmaps", "default", "a"), "1").await;
    tokio::time::pause();
    let WatchEvent::Bookmark(revision) = watch.next().await.unwrap() else { panic!("a bookmark") };
    assert_eq!(revision, other);
    let silent = tokio::time::timeout(Duration::from_secs(600), watch.next()).await;
    assert!(silent.is_err(), "no bookmark without progress");
}

#[tokio::test]
async fn a_write_that_never_arrived_stays_unknown() {
    let lab = Lab::sqlite();
    let faulty = Arc::new(Faulty::over(lab.engine.clone()));
    let store = open(faulty.clone()).await;
    faulty.lose_requests.store(true, Ordering::Relaxed);
    tokio::time::pause();
    let a = at("pods", "default", "a");
    let error = store.commit_batch(&Batch { changes: vec![put(&a, Expect::Absent, "1")] }).await.unwrap_err();
    assert!(matches!(error, CommitError::Unknown(_)), "{error:?}");
    assert!(store.get(&a).is_none());
}

#[tokio::test]
async fn a_tail_compacted_away_means_gone_for_watchers_and_the_right_state_for_readers() {
    let lab = Lab::sqlite();
    let faulty = Arc::new(Faulty::over(lab.engine.clone()));
    let store = open(faulty.clone()).await;
    let (a, b) = (at("pods", "default", "a"), at("pods", "default", "b"));
    create(&store, &a, "1").await;
    let mut watch = store.watch("pods", store.revision()).unwrap();
    let behind = open(lab.engine.clone()).await;
    // The tail breaks; meanwhile another server writes, and the engine compacts past it.
    faulty.cut_tail();
    delete(&behind, &a).await;
    create(&behind, &b, "2").await;
    lab.engine.compact(behind.revision()).await.unwrap();
    faulty.mend_tail();
    let gone = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap();
    assert_eq!(gone.unwrap_err().oldest, behind.revision());
    let page = store.list("pods", &ListQuery::default()).unwrap();
    assert_eq!((names(&page.objects).as_str(), page.revision), ("default/b", behind.revision()));
    let mut watch = store.watch("pods", page.revision).unwrap();
    let revision = create(&store, &a, "3").await;
    assert_eq!(next(&mut watch).await, format!("ADDED default/a {revision}"));
}

#[tokio::test]
async fn unreadable_data_in_the_tail_stops_writes_and_keeps_reads() {
    let lab = Lab::sqlite();
    let store = open(lab.engine.clone()).await;
    let a = at("pods", "default", "a");
    create(&store, &a, "1").await;
    let foreign = Store::open(lab.engine.clone(), Keyring::generate().unwrap(), clock()).await.unwrap();
    create(&foreign, &at("/secrets", "default", "s"), "1").await;
    let mut failure = store.shared.failure.subscribe();
    tokio::time::timeout(Duration::from_secs(20), failure.wait_for(Option::is_some)).await.unwrap().unwrap();
    assert!(store.failure().unwrap().contains("encryption key 1"));
    assert!(store.get(&a).is_some());
    let b = at("pods", "default", "b");
    let error = store.commit_batch(&Batch { changes: vec![put(&b, Expect::Absent, "1")] }).await.unwrap_err();
    assert!(matches!(error, CommitError::Unavailable(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_watchers_see_every_event_in_order() {
    let lab = Lab::sqlite();
    let store = open(lab.engine.clone()).await;
    let start = store.revision();
    let seen = Arc::new(AtomicUsize::new(0));
    let mut watchers = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let mut watch = store.watch("pods", start).unwrap();
        let seen = seen.clone();
        watchers.spawn(async move {
            let mut newest = Revision::ZERO;
            for _ in 0..50 {
                let WatchEvent::Change(event) = watch.next().await.unwrap() else { panic!("a change") };
                assert!(newest < event.revision);
                newest = event.revision;
                seen.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for count in 0..50 {
        create(&store, &at("pods", "default", &format!("p{count}")), "1").await;
    }
    tokio::time::timeout(Duration::from_secs(20), watchers.join_all()).await.unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 200 * 50);
}

/// `cargo test --release -p store -- --ignored --nocapture measure`: durable creations of 1 KiB a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_creations() {
    let filling = "x".repeat(1 << 9);
    for committers in [1, 16] {
        let lab = Lab::sqlite();
        let store = open(lab.engine.clone()).await;
        let each = 8000 / committers;
        let start = std::time::Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for committer in 0..committers {
            let (store, filling) = (store.clone(), filling.clone());
            tasks.spawn(async move {
                for count in 0..each {
                    create(&store, &at("configmaps", "default", &format!("c{committer}-{count}")), &filling).await;
                }
            });
        }
        tasks.join_all().await;
        let rate = f64::from(each * committers) / start.elapsed().as_secs_f64();
        println!("{committers} committers: {rate:.0} durable creations/s");
    }
}
