//! What a person asks of a rotation: to begin, to wait, to go on, to end. Each is one change of the record.

use anyhow::Result;
use base::Chain;
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use view::{Client, ClientError};

use super::claim::Work;
use super::gather;
use super::judge::{Verdict, judge};
use super::record::{Recorded, Rotation};
use crate::pki::{Phase, ServerPki, Succession};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wish {
    Start,
    Pause,
    Resume,
    Finish,
    /// The tokens that an earlier key signed hold no longer.
    Tokens,
}

#[derive(Debug, thiserror::Error)]
pub enum WishError {
    #[error("{0}")]
    Refused(String),
    #[error("somebody else changed it at the same moment; look again")]
    Race,
    #[error("{0}")]
    Failed(String),
}

// === impl WishError ===

impl WishError {
    /// How a server answers.
    pub fn code(&self) -> StatusCode {
        match self {
            WishError::Refused(_) | WishError::Race => StatusCode::CONFLICT,
            WishError::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Changes the record as somebody wishes. The same wish again changes nothing.
pub async fn grant(wish: Wish, by: &str, client: &Client, pki: &ServerPki, now: Timestamp) -> Result<(), WishError> {
    let recorded = Recorded::<Rotation>::read(client).await.map_err(failed)?;
    let open = recorded.as_ref().map(|recorded| &recorded.rotation).filter(|rotation| rotation.is_open());
    let wanted = match (wish, open) {
        (Wish::Start, Some(_)) => return Ok(()),
        (Wish::Start, None) => {
            let last = recorded.as_ref().map(|recorded| recorded.rotation.succession.number);
            // Where the record was deleted, the servers remember it.
            let noted = pki.noted().map_err(|error| failed(error.into()))?.map(|noted| noted.number);
            let number = last.max(noted).unwrap_or_default() + 1;
            let drawn = Succession::draw(number, &pki.current(), now);
            Rotation::new(drawn.map_err(|error| failed(error.into()))?, by, now)
        }
        (Wish::Tokens, _) => end_tokens(recorded.as_ref(), now)?,
        (Wish::Pause | Wish::Resume | Wish::Finish, None) => {
            return Err(WishError::Refused("no rotation of the authorities is open".to_owned()));
        }
        (Wish::Pause | Wish::Resume, Some(rotation)) => Rotation { paused: wish == Wish::Pause, ..rotation.clone() },
        (Wish::Finish, Some(rotation)) if Phase::Finish <= rotation.succession.phase => return Ok(()),
        (Wish::Finish, Some(rotation)) => {
            let machines = gather::machines(client, Some(&rotation.succession), now).await.map_err(failed)?;
            may_finish(&judge(rotation.succession.phase, rotation.paused, &machines))?;
            rotation.clone().advanced(Phase::Finish, now)
        }
    };
    if recorded.as_ref().is_some_and(|recorded| recorded.rotation == wanted) {
        return Ok(());
    }
    let record = Recorded::write(client, &wanted, recorded.as_ref());
    if !matches!(wish, Wish::Start | Wish::Finish) {
        return written(record.await);
    }
    let name = wanted.work();
    begun(Work { name: &name, by }, client, now, record).await
}

/// Claims the layer, then records what begins there. What goes on alone is not asked again: only a person begins beside
/// other work, or does not.
pub async fn begun(
    work: Work<'_>,
    client: &Client,
    now: Timestamp,
    record: impl Future<Output = Result<(), ClientError>>,
) -> Result<(), WishError> {
    let claimed = work.begin(client, now).await.map_err(failed)?;
    claimed.map_err(|held| WishError::Refused(held.to_string()))?;
    let recorded = written(record.await);
    if matches!(recorded, Err(WishError::Failed(_))) {
        // Nobody follows what was not recorded.
        work.end(client).await.map_err(failed)?;
    }
    recorded
}

pub fn written(outcome: Result<(), ClientError>) -> Result<(), WishError> {
    outcome.map_err(|error| {
        let race = error.is_conflict() || error.is_already_exists();
        if race { WishError::Race } else { failed(ClientError::into(error)) }
    })
}

pub fn failed(failure: anyhow::Error) -> WishError {
    WishError::Failed(Chain(failure.as_ref()).to_string())
}

/// Of a rotation that is over, or about to be.
fn end_tokens(recorded: Option<&Recorded<Rotation>>, now: Timestamp) -> Result<Rotation, WishError> {
    let rotation = recorded.map(|recorded| &recorded.rotation);
    let Some(rotation) = rotation.filter(|rotation| Phase::Finish <= rotation.succession.phase) else {
        let why = "no earlier key is about to end: the authorities have not been changed, or not to the end";
        return Err(WishError::Refused(why.to_owned()));
    };
    let mut rotation = rotation.clone();
    let until = rotation.succession.tokens_until;
    rotation.succession.tokens_until = Some(until.map_or(now, |until| until.min(now)));
    Ok(rotation)
}

fn may_finish(verdict: &Verdict) -> Result<(), WishError> {
    let why = match verdict {
        Verdict::Decide => return Ok(()),
        Verdict::Wait(names) => format!("machines that are there have not come along yet: {}", names.join(", ")),
        Verdict::Paused => "it is paused; `evenkeel certificate rotate-ca resume` first".to_owned(),
        Verdict::Advance(_) | Verdict::Over => "the new authorities do not sign yet".to_owned(),
    };
    Err(WishError::Refused(why))
}

#[cfg(test)]
mod tests {
    use super::{Wish, WishError, grant};
    use crate::layout::Layout;
    use crate::pki::{Phase, ServerPki, leaf::LEAF_LIFE};
    use crate::wire::SystemClock;
    use crate::wire::keeper::layers;
    use crate::wire::rotation::record::{Recorded, Rotation};
    use base::Clock;
    use jiff::SignedDuration;
    use keeper::{Claim, Layer};
    use view::fake::FakeApi;

    #[tokio::test]
    async fn a_run_and_a_rotation_exclude_each_other() {
        let (folder, client, now) = (tempfile::tempdir().unwrap(), FakeApi::new().client(), SystemClock.now());
        let pki = ServerPki::load_or_make(&Layout::new(folder.path()), LEAF_LIFE, now).unwrap();
        let run = Claim::new(Layer::ControlPlane, "run-7", "anna", now);
        layers::claim(&client, &run, now).await.unwrap().unwrap();
        let refused = grant(Wish::Start, "ben", &client, &pki, now).await.unwrap_err();
        let WishError::Refused(why) = refused else { panic!("{refused}") };
        assert!(why.starts_with("anna works on the control plane (run-7) since "), "{why}");
        assert!(Recorded::<Rotation>::read(&client).await.unwrap().is_none(), "something was begun all the same");
        layers::release(&client, "run-7").await.unwrap();
        for _ in 0..2 {
            grant(Wish::Start, "ben", &client, &pki, now).await.unwrap();
        }
        let told = layers::claim(&client, &run, now).await.unwrap().unwrap_err().to_string();
        assert!(told.starts_with("ben works on the control plane (rotate-ca 1) since "), "{told}");
        let early = grant(Wish::Finish, "ben", &client, &pki, now).await.unwrap_err();
        assert!(early.to_string().contains("do not sign yet"), "{early}");
    }

    #[tokio::test]
    async fn tokens_of_before_hold_until_they_expire_or_somebody_ends_them() {
        let (folder, client, now) = (tempfile::tempdir().unwrap(), FakeApi::new().client(), SystemClock.now());
        let pki = ServerPki::load_or_make(&Layout::new(folder.path()), LEAF_LIFE, now).unwrap();
        grant(Wish::Start, "ben", &client, &pki, now).await.unwrap();
        let early = grant(Wish::Tokens, "ben", &client, &pki, now).await.unwrap_err();
        assert!(early.to_string().contains("not to the end"), "{early}");
        grant(Wish::Resume, "ben", &client, &pki, now).await.unwrap();
        let read = async || Recorded::<Rotation>::read(&client).await.unwrap().unwrap();
        let begun = read().await;
        let issued = begun.rotation.clone().advanced(Phase::Issue, now);
        Recorded::write(&client, &issued, Some(&begun)).await.unwrap();
        grant(Wish::Finish, "ben", &client, &pki, now).await.unwrap();
        let until = read().await.rotation.succession.tokens_until.unwrap();
        assert!(now + SignedDuration::from_hours(365 * 24) < until, "{until}");
        grant(Wish::Tokens, "ben", &client, &pki, now).await.unwrap();
        assert_eq!(read().await.rotation.succession.tokens_until, Some(now));
    }
}
