//! A server to which the writes of another come late answers as if they had come in time.

use std::sync::Arc;

use admit::Batch;
use apiserver::NoNodes;
use async_trait::async_trait;
use base::Revision;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use store::{CommitId, Engine, EngineError, Load, Tail, TailError, WriteError};
use tokio::sync::{mpsc, watch};

use crate::kit::{Client, Cluster};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// An engine whose tail is held back while the gate is closed. Whoever asks how new he must be opens it.
struct Behind {
    engine: Arc<dyn Engine>,
    gate: Arc<watch::Sender<bool>>,
}

#[async_trait]
impl Engine for Behind {
    async fn load(&self) -> Result<Load, EngineError> {
        self.engine.load().await
    }

    async fn commit(&self, id: CommitId, batch: Batch) -> Result<Revision, WriteError> {
        self.engine.commit(id, batch).await
    }

    async fn read_barrier(&self) -> Result<Revision, EngineError> {
        self.gate.send_replace(true);
        self.engine.read_barrier().await
    }

    async fn tail(&self, after: Revision) -> Result<Tail, TailError> {
        let (mut tail, mut open) = (self.engine.tail(after).await?, self.gate.subscribe());
        let (groups, late) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Some(group) = tail.next().await {
                if open.wait_for(|open| *open).await.is_err() || groups.send(group).await.is_err() {
                    return;
                }
            }
        });
        Ok(Tail(late))
    }

    async fn compact(&self, through: Revision) -> Result<(), EngineError> {
        self.engine.compact(through).await
    }

    async fn leap(&self, beyond: Revision) -> Result<(), EngineError> {
        self.engine.leap(beyond).await
    }
}

/// Administrators of a server that is up to date and of one that is not while the gate is closed.
struct Two {
    first: Client,
    second: Client,
    gate: Arc<watch::Sender<bool>>,
    _servers: [Cluster; 2],
}

async fn two() -> Two {
    let folder = tempfile::tempdir().unwrap();
    let engine = store::sqlite::open(&folder.path().join("state.db")).unwrap();
    let gate = Arc::new(watch::Sender::new(true));
    let first = Cluster::on(engine.clone(), folder, Arc::new(NoNodes)).await;
    let behind = Arc::new(Behind { engine, gate: gate.clone() });
    let second = Cluster::on(behind, tempfile::tempdir().unwrap(), Arc::new(NoNodes)).await;
    Two { first: first.admin().await, second: second.admin().await, gate, _servers: [first, second] }
}

#[tokio::test]
async fn what_has_not_arrived_yet_is_not_called_missing() {
    let Two { first, second, gate, _servers } = two().await;
    gate.send_replace(false);
    first.post(MAPS, &json!({"metadata": {"name": "m"}, "data": {"a": "1"}})).await.ok();
    let answer = second.delete(&format!("{MAPS}/m")).await;
    assert_eq!(answer.code, StatusCode::OK, "{}", answer.json());
}

#[tokio::test]
async fn a_change_that_was_undone_elsewhere_is_made_again() {
    let Two { first, second, gate, _servers } = two().await;
    let (map, path) = (json!({"metadata": {"name": "m"}, "data": {"a": "1"}}), format!("{MAPS}/m"));
    second.post(MAPS, &map).await.ok();
    gate.send_replace(false);
    first.merge(&path, &json!({"data": {"a": "2"}})).await.ok();
    // To the second server it looks as if nothing were to change.
    second.put(&path, &map).await.ok();
    assert_eq!(first.get(&path).await.ok()["data"]["a"], "1");
}

fn lease(transitions: u64) -> Value {
    let spec = json!({"holderIdentity": "me", "leaseTransitions": transitions});
    json!({"metadata": {"name": "loops", "namespace": "default"}, "spec": spec})
}

/// A write that was decided under a lease, and arrives at a server that does not know yet that the lease was lost.
#[tokio::test]
async fn a_write_of_a_term_that_is_over_does_not_happen() {
    let Two { first, second, gate, _servers } = two().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let held = first.post(leases, &lease(3)).await.ok();
    let term = api::Term::of(&held).unwrap().to_string();
    let headers = [("content-type", "application/json"), (api::term::TERM_HEADER, term.as_str())];
    let write = |name: &str| {
        let map = json!({"metadata": {"name": name}});
        second.send(Method::POST, MAPS, &headers, map.to_string())
    };
    write("in-time").await.ok();
    gate.send_replace(false);
    // A renewal is not another term.
    first.merge(&format!("{leases}/loops"), &json!({"spec": {"leaseDurationSeconds": 9}})).await.ok();
    write("renewed").await.ok();
    gate.send_replace(false);
    first.merge(&format!("{leases}/loops"), &json!({"spec": {"leaseTransitions": 4}})).await.ok();
    let late = write("late").await;
    assert_eq!(late.code, StatusCode::CONFLICT, "{}", late.json());
    assert_eq!(late.json()["details"]["causes"][0]["reason"], api::term::TERM_OVER);
    let options = [(api::term::TERM_HEADER, term.as_str())];
    let late = second.send(Method::DELETE, &format!("{MAPS}/renewed"), &options, "").await;
    assert_eq!(late.code, StatusCode::CONFLICT, "{}", late.json());
    let maps = first.get(MAPS).await.ok();
    let names: Vec<_> = maps["items"].as_array().unwrap().iter().map(|map| &map["metadata"]["name"]).collect();
    assert_eq!(names, ["in-time", "renewed"]);
}
