//! How far a rotation is: one Secret of `kube-system`, changed only by who has read its last version.

use anyhow::{Context, Result};
use api::{Key, Object};
use apiserver::limits::TOKEN_SECONDS_MAX;
use base::Clock;
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{ListQuery, Store};
use tracing::{error, info};
use view::{Client, ClientError, ListOptions, Watched};

use crate::pki::{Phase, ServerPki, Succession};
use crate::wire::SystemClock;
use crate::wire::join::records::{LABEL, NAMESPACE, RecordError, decode, secret, secrets};

/// How far something is that all servers change together: the content of one Secret.
pub trait Record: PartialEq + Serialize + DeserializeOwned + Send + Sync {
    /// The Secret's name.
    const NAME: &'static str;
    /// Of its label.
    const KIND: &'static str;
}

/// The longest that a token of a service account lasts, and some for slow clocks.
const TOKENS_LAST: SignedDuration = SignedDuration::from_secs(TOKEN_SECONDS_MAX + 300);

/// What is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    pub succession: Succession,
    pub started: Timestamp,
    /// When this phase began.
    pub since: Timestamp,
    pub paused: bool,
    /// Who began it, for those whom it keeps from other work.
    #[serde(default)]
    pub by: String,
}

/// With the version that was read.
#[derive(Clone, Debug)]
pub struct Recorded<R> {
    pub rotation: R,
    version: String,
}

impl Record for Rotation {
    const NAME: &'static str = "evenkeel-authorities";
    const KIND: &'static str = "authorities";
}

// === impl Rotation ===

impl Rotation {
    pub fn new(succession: Succession, by: &str, now: Timestamp) -> Rotation {
        Rotation { succession, started: now, since: now, paused: false, by: by.to_owned() }
    }

    /// What it is called as work on a layer.
    pub fn work(&self) -> String {
        format!("rotate-ca {}", self.succession.number)
    }

    pub fn is_open(&self) -> bool {
        self.succession.phase != Phase::Done
    }

    /// The same in its next phase. What is over keeps no key.
    #[must_use]
    pub fn advanced(mut self, phase: Phase, now: Timestamp) -> Rotation {
        self.succession.phase = phase;
        self.since = now;
        if phase == Phase::Finish {
            // A server that was out of reach may have signed with the key before until now.
            self.succession.tokens_until = Some(now + TOKENS_LAST);
        }
        if phase == Phase::Done {
            self.succession = self.succession.without_keys();
        }
        self
    }
}

// === impl Recorded ===

impl<R: Record> Recorded<R> {
    pub fn of(object: &Object) -> Result<Recorded<R>, RecordError> {
        Ok(Recorded { rotation: decode(object)?, version: object.revision.to_string() })
    }

    pub async fn read(client: &Client) -> Result<Option<Recorded<R>>> {
        let selector = selector::<R>();
        let options =
            ListOptions { namespace: Some(NAMESPACE), label_selector: Some(&selector), ..ListOptions::default() };
        let page = client.list(&secrets(), &options).await.with_context(|| format!("read how far {} are", R::KIND))?;
        Ok(page.items.iter().find(|object| object.key == Self::key()).map(|object| Recorded::of(object)).transpose()?)
    }

    /// Writes the next state, unless somebody else did since this one was read, which is a conflict.
    pub async fn write(client: &Client, next: &R, before: Option<&Recorded<R>>) -> Result<(), ClientError> {
        let mut secret = secret(R::NAME, R::KIND, next);
        match before {
            None => client.create(&secrets(), NAMESPACE, &secret).await?,
            Some(before) => {
                secret["metadata"]["resourceVersion"] = json!(before.version);
                client.update(&secrets(), &Self::key(), None, &secret).await?
            }
        };
        Ok(())
    }

    /// For a view.
    pub fn watched() -> Watched {
        Watched::all(secrets(), &[]).in_namespace(NAMESPACE).with_labels(&selector::<R>())
    }

    /// The record among others of a snapshot or page.
    pub fn key() -> Key {
        Key::new(NAMESPACE, R::NAME)
    }
}

fn selector<R: Record>() -> String {
    format!("{LABEL}={}", R::KIND)
}

/// Takes part in what happened while this server was off, before anybody can reach it.
pub fn catch_up(store: &Store, pki: &ServerPki) -> Result<()> {
    let secrets = store.list("/secrets", &ListQuery::default())?;
    let Some(object) = secrets.objects.iter().find(|object| object.key == Recorded::<Rotation>::key()) else {
        return Ok(());
    };
    let gone_along = Recorded::<Rotation>::of(object).context("read the record of authorities").and_then(|recorded| {
        let (succession, now) = (recorded.rotation.succession, SystemClock.now());
        let gone_along = pki.succeed(&succession, now)?;
        pki.retire(&succession, now)?;
        Ok(gone_along.then_some(succession.phase))
    });
    match gone_along {
        Ok(phase) => phase.into_iter().for_each(|phase| info!(?phase, "the authorities changed meanwhile")),
        // It serves those who know it as it is.
        Err(failure) => error!(error = %base::Chain(failure.as_ref()), "the authorities changed meanwhile"),
    }
    Ok(())
}
