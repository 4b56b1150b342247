//! etcd killed and started again, and etcd full: the engine goes on by itself and tells the truth meanwhile.

use std::sync::Arc;

use admit::Expect;
use base::Revision;
use store::{CommitId, Engine, Entry, TailError, WriteError};

use crate::lab::{Lab, batch, commit, put, rows, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_etcd_loses_nothing_acknowledged_and_the_tail_goes_on() {
    let Some(mut lab) = Lab::etcd().await else { return };
    let engine = lab.engine.clone();
    let start = engine.load().await.unwrap().revision;
    let mut tail = engine.tail(start).await.unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..3_u128 {
        for count in 0..10 {
            let name = format!("{round}-{count}");
            acknowledged.push((commit(&engine, round * 100 + count, put(&name, Expect::Absent, "v")).await, name));
        }
        lab.etcd.as_mut().unwrap().kill();
        let down = engine.commit(CommitId(9999), batch(vec![put("down", Expect::Absent, "v")])).await;
        assert!(matches!(down, Err(WriteError::Unavailable(_) | WriteError::Unknown(_))), "{down:?}");
        assert!(engine.read_barrier().await.is_err());
        lab.etcd.as_mut().unwrap().restart();
        until("etcd answers again", async || engine.read_barrier().await.is_ok()).await;
    }
    for row in rows(&engine).await.iter().filter(|row| row.place.key.name != "down") {
        assert!(acknowledged.contains(&(row.revision, row.place.key.name.to_string())));
    }
    let mut tailed = Vec::new();
    while tailed.len() < acknowledged.len() {
        let group = tokio::time::timeout(crate::lab::PATIENCE, tail.next()).await.expect("the tail goes on");
        let group = group.unwrap().unwrap().into_iter();
        tailed.extend(group.map(|entry| (entry.revision, entry.changes[0].place.key.name.to_string())));
        tailed.retain(|(_, name)| name != "down");
    }
    assert_eq!(tailed, acknowledged);
}

/// The first commits that a tail tells.
async fn oldest(engine: &Arc<dyn Engine>, after: Revision) -> Result<Vec<Entry>, TailError> {
    engine.tail(after).await?.next().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_several_servers_forgets_and_the_others_leave_it() {
    let Some(lab) = Lab::etcd().await else { return };
    let (one, two) = (lab.engine.clone(), lab.etcd.as_ref().unwrap().connect());
    let first = commit(&one, 1, put("a", Expect::Absent, "v")).await;
    let second = commit(&one, 2, put("b", Expect::Absent, "v")).await;
    commit(&one, 3, put("c", Expect::Absent, "v")).await;
    one.compact(first).await.unwrap();
    // Forgotten after that was written: enough for this period.
    two.compact(second).await.unwrap();
    let goes_on = oldest(&two, first).await;
    assert!(goes_on.is_ok(), "it was forgotten twice: {goes_on:?}");
    let fourth = commit(&two, 4, put("d", Expect::Absent, "v")).await;
    two.compact(fourth).await.unwrap();
    assert!(matches!(oldest(&one, first).await, Err(TailError::Compacted { .. })));
    assert_eq!(rows(&one).await.len(), 4);
}
