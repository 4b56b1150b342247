//! etcd killed and started again, and etcd full: the engine goes on by itself and tells the truth meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use admit::Expect;
use base::Revision;
use store::etcd::{Config, Members};
use store::{CommitId, Engine, Entry, TailError, WriteError};

use crate::lab::{Etcd, Lab, batch, commit, put, rows, until};

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

/// Sent to one that still believes in a leader that is gone, a write is lost; etcd itself says so after seven seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_leader_costs_a_write_an_election_and_not_its_certainty() {
    let Some(lab) = Lab::etcd().await else { return };
    let mut members = Etcd::several(&lab.folder.path().join("three"), 3);
    let engines: Vec<_> = members.iter().map(Etcd::connect).collect();
    for engine in &engines {
        until("every member answers", async || engine.read_barrier().await.is_ok()).await;
    }
    commit(&engines[0], 1, put("before", Expect::Absent, "v")).await;
    let leader = leader(&members).await;
    let follower = &engines[(leader + 1) % 3];
    let start = follower.load().await.unwrap().revision;
    let mut tail = follower.tail(start).await.unwrap();
    members[leader].kill();
    let begin = Instant::now();
    let lost = follower.commit(CommitId(2), batch(vec![put("lost", Expect::Absent, "v")])).await;
    // On a machine that is slow enough the others have elected already, and nothing is lost.
    let Err(WriteError::Settled(_)) = lost else { return assert!(lost.is_ok(), "{lost:?}") };
    let barrier = follower.read_barrier().await.unwrap();
    assert_eq!(barrier, start, "what is lost is not written, and a fence is no commit of anybody's");
    let again = commit(follower, 3, put("lost", Expect::Absent, "v")).await;
    assert!(begin.elapsed() < Duration::from_secs(6), "it took {:?}", begin.elapsed());
    commit(&engines[(leader + 2) % 3], 4, put("other", Expect::Absent, "v")).await;
    let entry = tail.next().await.unwrap().unwrap().remove(0);
    assert_eq!((entry.revision, entry.id), (again, CommitId(3)));
}

/// The member that leads, by its place in the list.
async fn leader(members: &[Etcd]) -> usize {
    for (place, member) in members.iter().enumerate() {
        let config = Config { endpoints: vec![member.endpoint()], others: None, prefix: "/x".into(), tls: None };
        let endpoint = member.endpoint();
        let status = Members::new(config).unwrap().status(&endpoint).await.unwrap();
        if status.leader == status.id {
            return place;
        }
    }
    panic!("nobody leads");
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
