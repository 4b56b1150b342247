//! A set of loops over one view, built first and then run.

use std::sync::Arc;

use api::{Gvr, Key, Op, Plan, Snapshot};
use base::Clock;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;
use view::{Change, Client, ClientError, Drain, View};

use crate::events::Recorder;
use crate::leadership::Leadership;
use crate::runner::Runner;
use crate::status::{Health, LoopStatus};

/// Says which keys a change makes worth a look.
pub type Enqueue = Arc<dyn Fn(&Change, &Snapshot) -> Vec<Key> + Send + Sync>;
/// Decides. Pure in the snapshot, the key and the time.
pub type Decide = Arc<dyn Fn(&Snapshot, &Key, Timestamp) -> Plan + Send + Sync>;

/// Told of an operation that did not hold, in a loop whose operations stand for themselves.
pub type Failed = Arc<dyn Fn(&Op, &ClientError) + Send + Sync>;

/// One loop, as data.
#[derive(Clone)]
pub struct Loop {
    pub name: &'static str,
    /// Source of its events and part of its user agent: `deployment-controller`.
    pub component: &'static str,
    /// The streams it reads: no plan is asked for before they are synced, and other streams' changes are not its
    /// business. Empty means every stream of the view.
    pub reads: Vec<Gvr>,
    pub enqueue: Enqueue,
    pub plan: Decide,
    /// Keys worked on at once.
    pub workers: usize,
}

/// Runs loops until the drain.
pub struct Driver {
    view: View,
    client: Client,
    clock: Arc<dyn Clock>,
    /// `None`: these loops need no lease.
    leadership: Option<Leadership>,
    loops: Vec<(Loop, Option<Failed>, watch::Sender<LoopStatus>)>,
    /// Where events are recorded from: the node's or the server's name.
    host: String,
}

// === impl Driver ===

impl Driver {
    /// A driver that always acts. `client` must have the identity of the loops.
    pub fn new(view: View, client: Client, clock: Arc<dyn Clock>) -> Driver {
        Driver { view, client, clock, leadership: None, loops: Vec::new(), host: String::new() }
    }

    /// Acts only in the terms that [`crate::Leader`] wins.
    #[must_use]
    pub fn led_by(mut self, leadership: Leadership) -> Driver {
        self.leadership = Some(leadership);
        self
    }

    #[must_use]
    pub fn on_host(mut self, host: &str) -> Driver {
        self.host = host.to_owned();
        self
    }

    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "adds a loop to the set, nothing arithmetic about it")]
    pub fn add(mut self, one: Loop) -> Driver {
        self.push(one, None);
        self
    }

    /// Adds a loop whose operations have nothing to do with each other: one that fails stops no other and is told to
    /// `failed`, which decides when to try again. A queue of bindings, not a rollout.
    #[must_use]
    pub fn add_independent(mut self, one: Loop, failed: Failed) -> Driver {
        self.push(one, Some(failed));
        self
    }

    fn push(&mut self, one: Loop, failed: Option<Failed>) {
        let status = watch::Sender::new(LoopStatus { name: one.name, ..LoopStatus::default() });
        self.loops.push((one, failed, status));
    }

    /// Reads the loops' status, before and while they run.
    pub fn health(&self) -> Health {
        Health { loops: self.loops.iter().map(|(.., status)| status.subscribe()).collect() }
    }

    /// Returns when every loop has finished its turns after the drain began.
    pub async fn run(self, drain: Drain) {
        let (recorder, handle) = Recorder::new(self.client.clone(), self.clock.clone(), &self.host);
        let mut tasks = JoinSet::new();
        tasks.spawn(recorder.run(drain.clone()));
        for (one, failed, status) in self.loops {
            let runner = Runner::new(crate::runner::Parts {
                client: self.client.named(&format!("{}/{}", one.component, env!("CARGO_PKG_VERSION"))),
                recorder: handle.for_component(one.component),
                view: self.view.clone(),
                clock: self.clock.clone(),
                leadership: self.leadership.clone(),
                drain: drain.clone(),
                status,
                failed,
                one,
            });
            tasks.spawn(runner.run());
        }
        drop(handle);
        while let Some(ended) = tasks.join_next().await {
            // A task that panicked must not look like one that drained.
            ended.expect("a loop's task runs to its end");
        }
    }
}
