//! A rotation works on the control plane as a run of the keeper does, and claims that layer as a run does: neither begins
//! while the other is at work. What waits for a person holds nobody up.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use keeper::{CLAIM_LASTS, Claim, Held, Layer};
use tokio::time::Instant;
use tracing::warn;
use view::Client;

use crate::wire::keeper::layers;

/// A claim is renewed this often. One that nobody renews, because every server is gone, ends by itself.
const AGAIN: Duration = Duration::from_secs(300);
const _: () = assert!(2 * AGAIN.as_secs() < CLAIM_LASTS.as_secs().unsigned_abs());

/// A rotation as others are told of it.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    pub name: &'a str,
    pub by: &'a str,
}

/// What one server has done about the claim last, so that it does not write at every look.
#[derive(Debug, Default)]
pub struct Kept(Option<(bool, Instant)>);

// === impl Work ===

impl Work<'_> {
    /// Before anything is changed; the inner error names who was first.
    pub async fn begin(self, client: &Client, now: Timestamp) -> Result<Result<(), Held>> {
        layers::claim(client, &self.claim(now), now).await
    }

    pub async fn end(self, client: &Client) -> Result<()> {
        layers::release(client, self.name).await
    }

    fn claim(self, now: Timestamp) -> Claim {
        Claim::new(Layer::ControlPlane, self.name, self.by, now)
    }
}

// === impl Kept ===

impl Kept {
    /// Holds the claim while there is work, whoever of the servers began it, and gives it up once there is none.
    pub async fn keep(&mut self, client: &Client, work: Work<'_>, at_work: bool, now: Timestamp) -> Result<()> {
        let is_kept = self.0.is_some_and(|(was, at)| was == at_work && (!at_work || at.elapsed() < AGAIN));
        if is_kept {
            return Ok(());
        }
        match at_work {
            true => {
                // It was begun, and servers that went along do not go back.
                if let Err(held) = work.begin(client, now).await? {
                    warn!(%held, "two layers are changed at once");
                }
            }
            false => work.end(client).await?,
        }
        self.0 = Some((at_work, Instant::now()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Kept, Work};
    use crate::wire::SystemClock;
    use crate::wire::keeper::layers::held;
    use base::Clock;
    use view::fake::FakeApi;

    #[tokio::test]
    async fn it_is_held_while_there_is_work_and_by_whoever_goes_on() {
        let (client, now) = (FakeApi::new().client(), SystemClock.now());
        let work = Work { name: "rotate-ca 1", by: "anna" };
        work.begin(&client, now).await.unwrap().unwrap();
        let (mut first, mut second) = (Kept::default(), Kept::default());
        first.keep(&client, work, true, now).await.unwrap();
        second.keep(&client, Work { by: "ben", ..work }, true, now).await.unwrap();
        let claim = held(&client, now).await.unwrap().unwrap();
        assert_eq!((claim.work.as_str(), claim.by.as_str()), ("rotate-ca 1", "anna"));
        // The server that began it is gone; another one sees the end.
        second.keep(&client, work, false, now).await.unwrap();
        assert_eq!(held(&client, now).await.unwrap(), None);
        second.keep(&client, work, true, now).await.unwrap();
        assert!(held(&client, now).await.unwrap().is_some(), "there is work again");
    }
}
