//! What every engine does. See the contract on `store::Engine`.

use std::sync::Arc;

use admit::{Expect, Place, Write};
use api::Key;
use base::Revision;
use bytes::Bytes;
use store::{CommitId, Engine, Entry, TailError, WriteError};

use crate::lab::{batch, commit, delete, keep, place, put, rows};

const ABSENT: Expect = Expect::Absent;

fn at(revision: Revision) -> Expect {
    Expect::At(revision)
}

async fn names(engine: &Arc<dyn Engine>) -> Vec<String> {
    rows(engine).await.into_iter().map(|row| row.place.key.name.to_string()).collect()
}

async fn entries(engine: &Arc<dyn Engine>, after: Revision, count: usize) -> Vec<Entry> {
    let mut tail = engine.tail(after).await.unwrap();
    let mut all = Vec::new();
    while all.len() < count {
        let group = tokio::time::timeout(crate::lab::PATIENCE, tail.next()).await.expect("the tail goes on");
        all.extend(group.unwrap().unwrap());
    }
    all
}

pub async fn a_batch_is_all_or_nothing(engine: Arc<dyn Engine>) {
    let first = engine.commit(CommitId(1), batch(vec![put("a", ABSENT, "1"), put("b", ABSENT, "1")])).await.unwrap();
    let all = rows(&engine).await;
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|row| row.revision == first), "one revision for the whole batch: {all:?}");
    let changes = vec![put("c", ABSENT, "2"), delete("a", at(first)), put("b", ABSENT, "2")];
    let error = engine.commit(CommitId(2), batch(changes)).await.unwrap_err();
    assert!(
        matches!(&error, WriteError::Conflict { place: at, current: Some(found) }
        if *at == place("things", "b") && *found == first),
        "{error:?}"
    );
    assert_eq!(rows(&engine).await, all);
}

pub async fn expectations_hold_or_conflict_with_the_current_revision(engine: Arc<dyn Engine>) {
    let first = commit(&engine, 1, put("a", ABSENT, "1")).await;
    let second = commit(&engine, 2, put("a", at(first), "2")).await;
    assert!(first < second);
    for (wrong, found) in [(at(first), Some(second)), (ABSENT, Some(second)), (at(Revision(99_999)), Some(second))] {
        let error = engine.commit(CommitId(3), batch(vec![put("a", wrong, "3")])).await.unwrap_err();
        assert!(matches!(error, WriteError::Conflict { current, .. } if current == found), "{error:?}");
    }
    let error = engine.commit(CommitId(4), batch(vec![delete("b", at(first))])).await.unwrap_err();
    assert!(matches!(error, WriteError::Conflict { current: None, .. }), "{error:?}");
    // A guard: nothing is written unless it holds, and it writes nothing itself.
    let error = engine.commit(CommitId(5), batch(vec![keep("a", at(first)), put("b", ABSENT, "1")])).await.unwrap_err();
    assert!(matches!(error, WriteError::Conflict { .. }), "{error:?}");
    engine.commit(CommitId(6), batch(vec![keep("a", at(second)), put("b", ABSENT, "1")])).await.unwrap();
    assert_eq!(rows(&engine).await[0].revision, second);
    commit(&engine, 7, delete("a", at(second))).await;
    assert_eq!(names(&engine).await, ["b"]);
    let again = commit(&engine, 8, put("a", ABSENT, "4")).await;
    assert!(second < again);
}

pub async fn the_tail_has_every_commit_once_and_in_order(engine: Arc<dyn Engine>) {
    let start = engine.load().await.unwrap().revision;
    let first = engine.commit(CommitId(1), batch(vec![put("a", ABSENT, "1"), put("b", ABSENT, "1")])).await.unwrap();
    let _ = engine.commit(CommitId(2), batch(vec![put("a", ABSENT, "conflict")])).await.unwrap_err();
    engine.commit(CommitId(3), batch(vec![keep("a", at(first))])).await.unwrap();
    let second = commit(&engine, 4, delete("a", at(first))).await;
    let third = commit(&engine, 5, put("b", at(first), "2")).await;
    let all = entries(&engine, start, 3).await;
    let text: Vec<String> = all
        .iter()
        .flat_map(|entry| {
            entry.changes.iter().map(move |change| {
                let value = change.value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned());
                format!("{} {} {}", entry.id.0, change.place.key.name, value.unwrap_or("-".into()))
            })
        })
        .collect();
    assert_eq!(text, ["1 a 1", "1 b 1", "4 a -", "5 b 2"]);
    assert_eq!(all.iter().map(|entry| entry.revision).collect::<Vec<_>>(), [first, second, third]);
    // A later start has only the rest.
    assert_eq!(entries(&engine, second, 1).await, all[2..]);
}

pub async fn a_load_and_its_tail_leave_no_gap(engine: Arc<dyn Engine>) {
    const WRITERS: u128 = 4;
    const EACH: u128 = 40;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let engine = engine.clone();
        writers.spawn(async move {
            for count in 0..EACH {
                commit(&engine, writer * EACH + count + 1, put(&format!("{writer}-{count}"), ABSENT, "v")).await;
            }
        });
    }
    let mut load = engine.load().await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while let Some(chunk) = load.rows.recv().await {
        for row in chunk.unwrap() {
            assert!(row.revision <= load.revision && seen.insert(row.place.key.name.clone()));
        }
    }
    let mut tail = engine.tail(load.revision).await.unwrap();
    let mut newest = load.revision;
    while seen.len() < usize::try_from(WRITERS * EACH).unwrap() {
        let group = tokio::time::timeout(crate::lab::PATIENCE, tail.next()).await.expect("the tail goes on");
        for entry in group.unwrap().unwrap() {
            assert!(newest < entry.revision, "in order");
            newest = entry.revision;
            assert!(seen.insert(entry.changes[0].place.key.name.clone()), "once");
        }
    }
    writers.join_all().await;
}

pub async fn one_of_many_writers_wins_each_revision(engine: Arc<dyn Engine>) {
    const ROUNDS: usize = 10;
    let mut current = commit(&engine, 1, put("a", ABSENT, "0")).await;
    for round in 0..ROUNDS {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8_u128 {
            let engine = engine.clone();
            let value = format!("{round} {writer}");
            let batch = batch(vec![put("a", at(current), &value)]);
            writers.spawn(async move { (engine.commit(CommitId(writer + 2), batch).await, value) });
        }
        let mut won = None;
        for (result, value) in writers.join_all().await {
            match result {
                Ok(revision) => assert!(won.replace((revision, value)).is_none(), "two winners"),
                Err(error) => assert!(matches!(error, WriteError::Conflict { .. }), "{error:?}"),
            }
        }
        let (revision, value) = won.expect("one winner");
        let row = rows(&engine).await.remove(0);
        assert_eq!((row.revision, row.value), (revision, Bytes::from(value)));
        current = revision;
    }
}

pub async fn compaction_ends_old_tails_and_keeps_what_lives(engine: Arc<dyn Engine>) {
    let start = engine.load().await.unwrap().revision;
    let first = commit(&engine, 1, put("a", ABSENT, "1")).await;
    let second = commit(&engine, 2, put("a", at(first), "2")).await;
    let third = commit(&engine, 3, put("a", at(second), "3")).await;
    engine.compact(second).await.unwrap();
    engine.compact(first).await.unwrap();
    let mut gone = engine.tail(start).await;
    if let Ok(tail) = &mut gone {
        // An engine may tell it with the first entry as well.
        let told = tokio::time::timeout(crate::lab::PATIENCE, tail.next()).await.unwrap().unwrap();
        gone = Err(told.unwrap_err());
    }
    assert!(matches!(gone, Err(TailError::Compacted { .. })));
    assert_eq!(entries(&engine, second, 1).await[0].revision, third);
    assert_eq!(rows(&engine).await[0].revision, third);
}

pub async fn a_leap_only_goes_forward(engine: Arc<dyn Engine>) {
    engine.leap(Revision(5_000)).await.unwrap();
    engine.leap(Revision(10)).await.unwrap();
    let first = commit(&engine, 1, put("a", ABSENT, "1")).await;
    assert!(Revision(5_000) < first && first < Revision(5_010), "{first}");
    assert!(first <= engine.read_barrier().await.unwrap());
    let second = commit(&engine, 2, put("a", at(first), "2")).await;
    assert_eq!(entries(&engine, first, 1).await[0].revision, second);
    // A revision of the epoch before cannot be current.
    let error = engine.commit(CommitId(3), batch(vec![put("a", at(Revision(3)), "3")])).await.unwrap_err();
    assert!(matches!(error, WriteError::Conflict { current, .. } if current == Some(second)), "{error:?}");
}

pub async fn the_barrier_is_not_behind_any_acknowledgement(engine: Arc<dyn Engine>) {
    let mut current = ABSENT;
    for count in 0..20 {
        let revision = commit(&engine, count, put("a", current, "v")).await;
        assert!(revision <= engine.read_barrier().await.unwrap());
        current = at(revision);
    }
    let Expect::At(revision) = current else { unreachable!() };
    let deleted = commit(&engine, 99, delete("a", at(revision))).await;
    assert_eq!(engine.read_barrier().await.unwrap(), deleted, "deletions count");
}

pub async fn large_documents_and_batches_pass(engine: Arc<dyn Engine>) {
    let large = "x".repeat(base::limits::OBJECT_BYTES_MAX - 4096);
    let start = commit(&engine, 1, put("large", ABSENT, &large)).await;
    assert_eq!(rows(&engine).await[0].value.len(), large.len());
    let many = (0..store::BATCH_CHANGES_MAX).map(|count| put(&format!("m{count}"), ABSENT, "v")).collect();
    engine.commit(CommitId(2), batch(many)).await.unwrap();
    let entry = entries(&engine, start, 1).await.remove(0);
    assert_eq!(entry.changes.len(), store::BATCH_CHANGES_MAX);
    let expected = (0..store::BATCH_CHANGES_MAX).map(|count| format!("m{count}"));
    assert!(entry.changes.iter().map(|change| change.place.key.name.to_string()).eq(expected), "in the batch's order");
    // Ten of the largest are more than one page while loading.
    for count in 0..10 {
        commit(&engine, 10 + count, put(&format!("large{count}"), ABSENT, &large)).await;
    }
    assert_eq!(rows(&engine).await.len(), store::BATCH_CHANGES_MAX + 11);
}

pub async fn odd_names_are_kept(engine: Arc<dyn Engine>) {
    let odd = ["system:node:a", "a/b", "100%", "%2F", "ünïcode", "with space"];
    for (id, name) in odd.iter().enumerate() {
        let place = Place { storage: "_claims".into(), key: Key::cluster(name) };
        let change = admit::Change { place, expect: ABSENT, write: Write::Put(Bytes::new()) };
        commit(&engine, id as u128, change).await;
    }
    let mut expected: Vec<String> = odd.iter().map(|name| (*name).to_owned()).collect();
    expected.sort();
    assert_eq!(names(&engine).await, expected);
}
