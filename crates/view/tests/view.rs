//! The view against a fake API server: it stays equal to its collections through every fault.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use api::{Gvr, Index, Key, Op, Preconditions};
use serde_json::json;
use view::fake::{FakeApi, Fault};
use view::{Drain, View, Watched};

const BOUND: Duration = Duration::from_secs(10);

fn pods() -> Gvr {
    Gvr::new("", "v1", "pods")
}

fn pod(name: &str) -> api::Tree {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "n"}})
}

fn view(server: &FakeApi) -> View {
    View::start(&server.client(), vec![Watched::all(pods(), &[Index::UID])], &Drain::new())
}

async fn names(view: &View, expect: &[&str]) {
    let same = |snapshot: &api::Snapshot| {
        snapshot.stream(&pods()).iter().map(|pod| pod.key.name.as_str()).eq(expect.iter().copied())
    };
    let waited = tokio::time::timeout(BOUND, view.wait_for(same)).await;
    assert!(waited.is_ok(), "{expect:?}, have {:?}", view.snapshot().stream(&pods()).iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn lists_then_follows() {
    let server = FakeApi::new();
    server.put(&pods(), pod("a"));
    let view = view(&server);
    names(&view, &["a"]).await;
    server.put(&pods(), pod("b"));
    server.remove(&pods(), &Key::new("n", "a"));
    names(&view, &["b"]).await;
    let stream = view.snapshot().stream(&pods());
    assert_eq!(stream.by("uid", "uid-2").count(), 1, "indexes follow");
    assert_eq!(stream.by("uid", "uid-1").count(), 0);
}

#[tokio::test]
async fn gone_history_is_listed_again_and_deletions_are_noticed() {
    let server = FakeApi::new();
    server.put(&pods(), pod("a"));
    server.put(&pods(), pod("b"));
    let view = view(&server);
    names(&view, &["a", "b"]).await;
    let mut changes = view.changes();
    server.hold(&pods());
    server.remove(&pods(), &Key::new("n", "a"));
    server.put(&pods(), pod("c"));
    server.compact();
    server.release(&pods());
    names(&view, &["b", "c"]).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let change = tokio::time::timeout(BOUND, changes.next()).await.unwrap().unwrap();
        seen.push(format!("{} {}{}", change.key.name, u8::from(change.old.is_some()), u8::from(change.new.is_some())));
    }
    assert_eq!(seen, ["a 01", "b 01", "a 10", "c 01"], "two that were there, then the difference");
}

#[tokio::test]
async fn a_fence_waits_for_the_writers_own_event() {
    let server = FakeApi::new();
    let view = view(&server);
    view.synced().await;
    let client = server.client();
    server.hold(&pods());
    let op = Op::Create { gvr: pods(), namespace: "n".into(), object: pod("mine") };
    let revision = client.perform(&op).await.unwrap().unwrap();
    assert!(view.wait_revision(&pods(), revision, Duration::from_millis(20)).await.is_err());
    server.release(&pods());
    let snapshot = view.wait_revision(&pods(), revision, BOUND).await.unwrap();
    assert_eq!(snapshot.stream(&pods()).len(), 1);
    let when = Preconditions { uid: Some("uid-1".into()), revision: None };
    let op = Op::Delete { gvr: pods(), key: Key::new("n", "mine"), when, propagation: None, grace_seconds: None };
    let revision = client.perform(&op).await.unwrap().expect("a deletion has a revision");
    let snapshot = view.wait_revision(&pods(), revision, BOUND).await.unwrap();
    assert!(snapshot.stream(&pods()).is_empty());
    assert_eq!(client.perform(&op).await.unwrap(), None, "gone already counts as done");
}

#[tokio::test]
async fn a_lost_reply_is_an_unknown_outcome_that_repeating_resolves() {
    let server = FakeApi::new();
    let client = server.client();
    server.inject([Fault::LoseReply]);
    let op = Op::Create { gvr: pods(), namespace: "n".into(), object: pod("once") };
    assert!(client.perform(&op).await.unwrap_err().retryable());
    assert_eq!(client.perform(&op).await.unwrap(), None);
    assert_eq!(server.list(&pods()).len(), 1);
}
