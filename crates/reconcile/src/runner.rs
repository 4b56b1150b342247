//! One loop at work: changes in, turns out. It owns the queue; nothing is shared with other loops but the view.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use api::{Key, Plan, Snapshot};
use base::{Chain, Clock};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, warn};
use view::{Backoff, Change, Changes, Client, ClientError, Drain, Fence, View};

use crate::driver::{Failed, Loop};
use crate::events::RecorderHandle;
use crate::leadership::Leadership;
use crate::office::{Office, Warrant};
use crate::perform::Acting;
use crate::queue::Queue;
use crate::status::LoopStatus;

/// Between failed turns of one key. Upstream's controllers start at 5 ms and end at 1000 s; a small cluster's operator
/// waits no quarter of an hour for a loop to notice that a quota was raised.
const RETRY: Backoff = Backoff { first: Duration::from_millis(50), most: Duration::from_secs(60) };
/// Longest a key waits to see its own writes. Past it the plan must cope, as it copes with any skew.
const FENCE_WAIT_MAX: Duration = Duration::from_secs(10);
/// A far-off look is cut into pieces, so that a wall clock that jumps is noticed.
const LOOK_AHEAD_MAX: Duration = Duration::from_secs(600);
/// Turns in flight may take this long to end after the drain began.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(5);
/// Failures of one key that stay at debug level: conflicts with other writers are everyday.
const FAILURES_QUIET_MAX: u32 = 4;

pub(crate) struct Parts {
    pub(crate) one: Loop,
    pub(crate) failed: Option<Failed>,
    pub(crate) client: Client,
    pub(crate) view: View,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) recorder: RecorderHandle,
    pub(crate) leadership: Option<Leadership>,
    pub(crate) drain: Drain,
    pub(crate) status: watch::Sender<LoopStatus>,
}

pub(crate) struct Runner {
    parts: Arc<Parts>,
    queue: Queue,
    turns: FuturesUnordered<BoxFuture<'static, Turn>>,
    /// Turns that are over but for seeing their own writes: their keys stay busy, their workers are free.
    fenced: FuturesUnordered<BoxFuture<'static, Turn>>,
}

/// What one look at one key came to.
struct Turn {
    key: Key,
    fence: Fence,
    failure: Option<Failure>,
    look_again_at: Option<Timestamp>,
}

struct Failure {
    text: String,
    /// The snapshot was behind the API: to be expected, and over soon.
    stale: bool,
    retry_after: Option<Duration>,
}

// === impl Runner ===

impl Runner {
    pub(crate) fn new(parts: Parts) -> Runner {
        let parts = Arc::new(parts);
        Runner { parts, queue: Queue::default(), turns: FuturesUnordered::new(), fenced: FuturesUnordered::new() }
    }

    pub(crate) async fn run(mut self) {
        let drain = self.parts.drain.clone();
        if drain.run_until_cancelled(self.parts.clone().ready()).await.is_none() {
            return;
        }
        let mut changes = self.parts.view.changes();
        let mut office = self.parts.office();
        while !drain.is_cancelled() {
            let acts = office.warrant().cloned();
            if let Some(warrant) = &acts {
                self.start_turns(warrant);
            }
            self.publish(acts.is_some());
            // Who may not act has nothing due: the queue waits for the lease.
            let due = self.queue.next_due().filter(|_| acts.is_some() && self.turns.len() < self.parts.one.workers);
            tokio::select! { biased;
                () = drain.cancelled() => break,
                () = office.changed() => {}
                Some(turn) = self.turns.next(), if !self.turns.is_empty() => self.fence(turn),
                Some(turn) = self.fenced.next(), if !self.fenced.is_empty() => self.finish(turn),
                change = changes.next() => match change {
                    Some(change) => self.notice(&change, &mut changes),
                    None => break,
                },
                () = sleep_until(due) => {}
            }
        }
        let rest = async { while self.turns.next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_WAIT_MAX, rest).await.is_err() {
            warn!(name = self.parts.one.name, "turns were cut off by the drain");
        }
    }

    /// Enqueues for this change and for those that came with it, on one snapshot that is at least as new.
    fn notice(&mut self, first: &Change, changes: &mut Changes) {
        let snapshot = self.parts.view.snapshot();
        let mut enqueue = |change: &Change| {
            let one = &self.parts.one;
            if one.reads.is_empty() || one.reads.contains(&change.gvr) {
                (one.enqueue)(change, &snapshot).into_iter().for_each(|key| self.queue.add(key));
            }
        };
        enqueue(first);
        // Bounded so that a storm of changes cannot keep turns from starting.
        for _ in 0..512 {
            let Some(change) = changes.try_next() else { break };
            enqueue(&change);
        }
    }

    fn start_turns(&mut self, warrant: &Warrant) {
        while self.turns.len() < self.parts.one.workers {
            let Some(key) = self.queue.take(Instant::now()) else { return };
            self.turns.push(self.parts.clone().turn(key, warrant.clone()).boxed());
        }
    }

    fn fence(&mut self, turn: Turn) {
        if turn.fence.is_empty() {
            return self.finish(turn);
        }
        let view = self.parts.view.clone();
        let name = self.parts.one.name;
        let waiting = async move {
            if let Err(late) = view.wait_fence(&turn.fence, FENCE_WAIT_MAX).await {
                warn!(name, key = %turn.key, error = %Chain(&late), "looking again all the same");
            }
            turn
        };
        self.fenced.push(waiting.boxed());
    }

    fn finish(&mut self, turn: Turn) {
        let failures = self.queue.done(&turn.key, turn.failure.is_some());
        let name = self.parts.one.name;
        let now = Instant::now();
        if let Some(failure) = &turn.failure {
            let pause = failure.retry_after.unwrap_or_else(|| RETRY.pause(failures, self.parts.client.rng()));
            if failure.stale && failures <= FAILURES_QUIET_MAX {
                debug!(name, key = %turn.key, error = failure.text, "the plan was behind the API");
            } else {
                warn!(name, key = %turn.key, failures, error = failure.text, "turn failed");
            }
            self.queue.add_at(turn.key.clone(), now + pause);
        } else if let Some(at) = turn.look_again_at {
            let ahead = at.duration_since(self.parts.clock.now());
            let ahead = Duration::try_from(ahead).unwrap_or(Duration::ZERO).min(LOOK_AHEAD_MAX);
            self.queue.add_at(turn.key.clone(), now + ahead);
        }
        self.parts.status.send_modify(|status| {
            status.turns += 1;
            status.last_turn = Some(self.parts.clock.now());
            if let Some(failure) = turn.failure {
                status.errors += 1;
                status.last_error = Some(format!("{}: {}", turn.key, failure.text));
            }
        });
    }

    fn publish(&self, acts: bool) {
        let next = |status: &mut LoopStatus| {
            status.synced = true;
            status.leading = acts;
            status.waiting = self.queue.len();
            status.busy = self.queue.busy();
            status.failing = self.queue.failing();
            if status.failing == 0 {
                status.last_error = None;
            }
        };
        self.parts.status.send_if_modified(|status| {
            let before = status.clone();
            next(status);
            *status != before
        });
    }
}

// === impl Parts ===

impl Parts {
    async fn ready(self: Arc<Self>) {
        self.view.wait_for(|snapshot| is_synced(&self.one, snapshot)).await;
    }

    fn office(&self) -> Office {
        Office::new(self.leadership.as_ref(), self.client.clone(), self.view.clone(), self.one.reads.clone())
    }

    async fn turn(self: Arc<Self>, key: Key, warrant: Warrant) -> Turn {
        let snapshot = self.view.snapshot();
        let plan = match self.decide(&snapshot, &key) {
            Ok(plan) => plan,
            Err(text) => {
                let failure = Failure { text, stale: false, retry_after: None };
                return Turn { key, fence: Fence::default(), failure: Some(failure), look_again_at: None };
            }
        };
        let look_again_at = plan.look_again_at;
        if plan.steps.is_empty() {
            return Turn { key, fence: Fence::default(), failure: None, look_again_at };
        }
        let acting = Acting {
            client: &warrant.client,
            view: &self.view,
            recorder: &self.recorder,
            planned_on: &snapshot,
            failed: self.failed.as_ref(),
        };
        let performed = acting.perform(plan).await;
        if let (Some(leadership), Some(term)) = (&self.leadership, warrant.term.filter(|_| performed.open)) {
            leadership.give_up(&term);
        }
        // What a namespace that goes refuses is not needed any more; what is in it goes without this loop.
        let error = performed.error.filter(|error| !error.is_namespace_terminating());
        Turn { key, fence: performed.fence, failure: error.map(Failure::from), look_again_at }
    }

    /// A plan that panics fails its own key only.
    fn decide(&self, snapshot: &Snapshot, key: &Key) -> Result<Plan, String> {
        let now = self.clock.now();
        catch_unwind(AssertUnwindSafe(|| (self.one.plan)(snapshot, key, now))).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            format!("the plan panicked: {text}")
        })
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let stale = error.is_conflict() || error.is_not_found();
        Failure { text: Chain(&error).to_string(), stale, retry_after: error.retry_after() }
    }
}

fn is_synced(one: &Loop, snapshot: &Snapshot) -> bool {
    if one.reads.is_empty() { snapshot.synced() } else { one.reads.iter().all(|gvr| snapshot.stream(gvr).synced) }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
