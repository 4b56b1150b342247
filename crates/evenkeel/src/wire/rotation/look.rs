//! The loop of every rotation: a server follows the record as it changes, and looks by itself while one is open.

use std::future::Future;
use std::time::Duration;

use anyhow::Result;
use base::{Chain, Clock};
use jiff::Timestamp;
use tracing::{error, warn};
use view::{Client, Drain, View};

use super::claim::Kept;
use super::record::{Record, Recorded};
use crate::wire::SystemClock;
use crate::wire::join::records::secrets;

/// Between two looks at what others say, while a rotation is open.
pub const LOOK: Duration = Duration::from_secs(2);

/// One server's part in a rotation.
pub trait Part: Send {
    type Record: Record;
    /// What changes, for the log.
    const WHAT: &'static str;

    /// When to look again without news, if ever.
    fn pause(&self, rotation: &Self::Record, now: Timestamp) -> Option<Duration>;

    /// Does what is to be done now. Any number of times.
    fn turn(&mut self, recorded: &Recorded<Self::Record>, layer: &mut Kept) -> impl Future<Output = Result<()>> + Send;
}

/// Until the drain.
pub async fn follow<P: Part>(mut part: P, client: Client, drain: Drain) {
    let view = View::start(&client, vec![Recorded::<P::Record>::watched()], &drain);
    let mut snapshots = view.subscribe();
    let mut layer = Kept::default();
    loop {
        let key = Recorded::<P::Record>::key();
        let found = snapshots.borrow_and_update().stream(&secrets()).get(&key).cloned();
        let recorded = match found.map(|object| Recorded::of(&object)).transpose() {
            Ok(recorded) => recorded,
            Err(failure) => {
                error!(error = %Chain(&failure), "how far {} is cannot be read", P::WHAT);
                None
            }
        };
        let mut pause = None;
        if let Some(recorded) = recorded {
            pause = part.pause(&recorded.rotation, SystemClock.now());
            if let Err(failure) = part.turn(&recorded, &mut layer).await {
                warn!(error = %Chain(failure.as_ref()), "{} did not change yet", P::WHAT);
                pause = Some(LOOK);
            }
        }
        let news = async {
            tokio::select! {
                changed = snapshots.changed() => changed.is_ok(),
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => true,
            }
        };
        if drain.run_until_cancelled(news).await != Some(true) {
            return;
        }
    }
}
