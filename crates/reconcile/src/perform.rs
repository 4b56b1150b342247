//! Performs a plan: steps in order, the operations of a step in parallel with slow start.
//!
//! Slow start (1, 2, 4, ...) means that a quota or a webhook that refuses everything costs one request, not a thousand.

use api::{Key, Op, Plan, Snapshot};
use base::Chain;
use futures::future::join_all;
use tracing::debug;
use view::{Client, ClientError, Fence, View};

use crate::driver::Failed;
use crate::events::RecorderHandle;

/// Most operations of one step under way at once.
const PARALLEL_MAX: usize = 32;

/// What performing a plan left behind: what must be seen before the key is looked at again, and what went wrong.
#[derive(Debug, Default)]
pub(crate) struct Performed {
    pub(crate) fence: Fence,
    pub(crate) error: Option<ClientError>,
    /// An operation had no answer: it may happen when other things are planned already.
    pub(crate) open: bool,
}

/// What performing needs, for one plan.
pub(crate) struct Acting<'a> {
    pub(crate) client: &'a Client,
    pub(crate) view: &'a View,
    pub(crate) recorder: &'a RecorderHandle,
    pub(crate) planned_on: &'a Snapshot,
    /// Set where operations stand for themselves: one that fails stops no other.
    pub(crate) failed: Option<&'a Failed>,
}

impl Acting<'_> {
    pub(crate) async fn perform(&self, plan: Plan) -> Performed {
        let mut performed = Performed::default();
        for step in plan.steps {
            let (events, writes): (Vec<Op>, Vec<Op>) = step.into_iter().partition(|op| matches!(op, Op::Event { .. }));
            self.writes(&writes, &mut performed).await;
            // An event tells what happened, so it is recorded only when it did; one beside no write stands for itself.
            if performed.error.is_some() {
                break;
            }
            for event in events {
                self.recorder.record(event);
            }
        }
        performed
    }

    async fn writes(&self, writes: &[Op], performed: &mut Performed) {
        let mut rest = writes;
        let mut size = if self.failed.is_some() { PARALLEL_MAX } else { 1 };
        while !rest.is_empty() && performed.error.is_none() {
            let (batch, later) = rest.split_at(size.min(rest.len()));
            let outcomes = join_all(batch.iter().map(|op| self.client.perform(op))).await;
            for (op, outcome) in batch.iter().zip(outcomes) {
                performed.open |= outcome.as_ref().is_err_and(|error| error.is_open());
                match (outcome, self.failed) {
                    (Ok(revision), _) => raise(&mut performed.fence, self.view, self.planned_on, op, revision),
                    (Err(error), Some(failed)) => {
                        debug!(error = %Chain(&error), "an operation did not hold");
                        failed(op, &error);
                    }
                    (Err(error), None) => performed.error = performed.error.take().or(Some(error)),
                }
            }
            rest = later;
            size = (size * 2).min(PARALLEL_MAX);
        }
    }
}

/// What the view must show before the key is planned again.
fn raise(fence: &mut Fence, view: &View, planned_on: &Snapshot, op: &Op, revision: Option<base::Revision>) {
    let Some((gvr, key)) = target(op) else { return };
    if !view.shows(gvr, &key) {
        return;
    }
    let known = planned_on.stream(gvr).get(&key).map(|object| object.revision);
    match revision {
        Some(revision) => fence.raise(gvr, revision),
        None if key.name.is_empty() => {}
        None => fence.await_news(gvr, &key, known),
    }
}

fn target(op: &Op) -> Option<(&api::Gvr, Key)> {
    match op {
        Op::Create { gvr, namespace, object } => {
            // Without a name the server makes one; the fence then rests on the revision alone.
            let name = object.get("metadata").and_then(|metadata| metadata.get("name")).and_then(api::Tree::as_str);
            Some((gvr, Key::new(namespace, name.unwrap_or_default())))
        }
        Op::Patch { gvr, key, .. }
        | Op::Delete { gvr, key, .. }
        | Op::Post { gvr, key, .. }
        | Op::Put { gvr, key, .. } => Some((gvr, key.clone())),
        Op::Event { .. } => None,
    }
}
