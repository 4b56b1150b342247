//! What a person asks of a rotation: to begin, to wait, to go on, to end. Each is one change of the record.

use anyhow::Result;
use base::Chain;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use view::{Client, ClientError};

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

/// Changes the record as somebody wishes. The same wish again changes nothing.
pub async fn grant(wish: Wish, client: &Client, pki: &ServerPki, now: Timestamp) -> Result<(), WishError> {
    let failed = |failure: anyhow::Error| WishError::Failed(Chain(failure.as_ref()).to_string());
    let recorded = Recorded::read(client).await.map_err(failed)?;
    let open = recorded.as_ref().map(|recorded| &recorded.rotation).filter(|rotation| rotation.is_open());
    let wanted = match (wish, open) {
        (Wish::Start, Some(_)) => return Ok(()),
        (Wish::Start, None) => {
            let last = recorded.as_ref().map(|recorded| recorded.rotation.succession.number);
            // Where the record was deleted, the servers remember it.
            let noted = pki.noted().map_err(|error| failed(error.into()))?.map(|noted| noted.number);
            let number = last.max(noted).unwrap_or_default() + 1;
            let drawn = Succession::draw(number, &pki.current(), now);
            Rotation::new(drawn.map_err(|error| failed(error.into()))?, now)
        }
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
    wanted.write(client, recorded.as_ref()).await.map_err(|error| {
        let race = error.is_conflict() || error.is_already_exists();
        if race { WishError::Race } else { failed(ClientError::into(error)) }
    })
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
