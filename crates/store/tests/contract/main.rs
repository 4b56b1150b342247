//! One contract for every engine, then the faults of each.
#![allow(clippy::unwrap_used, reason = "tests")]

mod cases;
mod etcd_faults;
mod lab;
mod moves;
mod sqlite_faults;

use store::{CommitId, Engine, Row, etcd, sqlite};

/// Runs every case on every engine. Without an etcd on this machine its half says so and passes.
macro_rules! on_every_engine {
    ($($case:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let lab = crate::lab::Lab::sqlite();
                crate::cases::$case(lab.engine.clone()).await;
            })*
        }
        mod on_etcd {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let Some(lab) = crate::lab::Lab::etcd().await else { return };
                crate::cases::$case(lab.engine.clone()).await;
            })*
        }
    };
}

on_every_engine! {
    a_batch_is_all_or_nothing
    expectations_hold_or_conflict_with_the_current_revision
    the_tail_has_every_commit_once_and_in_order
    a_load_and_its_tail_leave_no_gap
    one_of_many_writers_wins_each_revision
    compaction_ends_old_tails_and_keeps_what_lives
    a_leap_only_goes_forward
    the_barrier_is_not_behind_any_acknowledgement
    large_documents_and_batches_pass
    odd_names_are_kept
}
