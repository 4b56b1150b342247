//! Records events: off the loops' path, bounded, best effort. What is alike is counted, not repeated.

mod correlate;

use std::sync::Arc;

use api::op::Regarding;
use api::{Gvr, Op, PatchType};
use base::{Chain, Clock, SmolStr};
use tokio::sync::mpsc;
use tracing::{debug, warn};
use view::{Client, Drain, PatchRequest};

use correlate::{Correlator, Write};

/// Events waiting to be written. Past it they are dropped: an event never holds up a loop.
const EVENTS_WAITING_MAX: usize = 1024;

/// Writes events as they come.
pub struct Recorder {
    client: Client,
    clock: Arc<dyn Clock>,
    correlator: Correlator,
    receiver: mpsc::Receiver<News>,
}

/// Takes events, for one component. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RecorderHandle {
    sender: mpsc::Sender<News>,
    component: SmolStr,
}

/// One event as a loop told it.
#[derive(Clone, Debug)]
pub(crate) struct News {
    pub(crate) component: SmolStr,
    pub(crate) regarding: Regarding,
    pub(crate) warning: bool,
    pub(crate) reason: SmolStr,
    pub(crate) message: String,
}

// === impl RecorderHandle ===

impl RecorderHandle {
    /// Takes an `Op::Event`; any other operation is ignored.
    pub fn record(&self, op: Op) {
        if let Op::Event { regarding, warning, reason, message } = op {
            let news = News { component: self.component.clone(), regarding, warning, reason, message };
            if self.sender.try_send(news).is_err() {
                debug!("an event was dropped: too many are waiting");
            }
        }
    }

    #[must_use]
    pub fn for_component(&self, component: &str) -> RecorderHandle {
        RecorderHandle { sender: self.sender.clone(), component: component.into() }
    }
}

// === impl Recorder ===

impl Recorder {
    /// `host` names the machine the events come from.
    pub fn new(client: Client, clock: Arc<dyn Clock>, host: &str) -> (Recorder, RecorderHandle) {
        let (sender, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
        let recorder = Recorder { client, clock, correlator: Correlator::new(host), receiver };
        (recorder, RecorderHandle { sender, component: SmolStr::default() })
    }

    /// Ends with the drain or with the last handle.
    pub async fn run(mut self, drain: Drain) {
        while let Some(Some(news)) = drain.run_until_cancelled(self.receiver.recv()).await {
            let write = self.correlator.step(&news, self.clock.now());
            // Once: an event that cannot be written is not worth a queue of its own.
            if drain.run_until_cancelled(self.write(write)).await.is_none() {
                return;
            }
        }
    }

    async fn write(&mut self, write: Write) {
        let gvr = Gvr::new("", "v1", "events");
        let outcome = match &write {
            Write::Nothing => return,
            Write::Create { key, object } => self.client.create(&gvr, &key.namespace, object).await,
            Write::Count { key, patch, object } => {
                let request = PatchRequest { gvr: &gvr, key, subresource: None, patch: PatchType::Merge, body: patch };
                match self.client.patch(&request).await {
                    // It expired meanwhile.
                    Err(error) if error.is_not_found() => self.client.create(&gvr, &key.namespace, object).await,
                    outcome => outcome,
                }
            }
        };
        // In a namespace that is going away nothing new is accepted; that is nobody's fault.
        match outcome {
            Ok(_) => {}
            Err(error) if error.is_already_exists() || error.reason() == Some(api::Reason::Forbidden) => {
                debug!(error = %Chain(&error), "event refused");
            }
            Err(error) => warn!(error = %Chain(&error), "event not recorded"),
        }
    }
}
