//! How far a rotation is: one Secret of `kube-system`, changed only by who has read its last version.

use anyhow::{Context, Result};
use api::{Key, Object};
use apiserver::limits::TOKEN_SECONDS_MAX;
use base::Clock;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{ListQuery, Store};
use tracing::{error, info};
use view::{Client, ClientError, ListOptions, Watched};

use crate::pki::{Phase, ServerPki, Succession};
use crate::wire::SystemClock;
use crate::wire::join::records::{LABEL, NAMESPACE, RecordError, decode, secret, secrets};

const NAME: &str = "evenkeel-authorities";
const RECORD: &str = "authorities";

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
pub struct Recorded {
    pub rotation: Rotation,
    version: String,
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

    /// Writes it, unless somebody else did since it was read, which is a conflict.
    pub async fn write(&self, client: &Client, before: Option<&Recorded>) -> Result<(), ClientError> {
        let mut secret = secret(NAME, RECORD, self);
        match before {
            None => client.create(&secrets(), NAMESPACE, &secret).await?,
            Some(before) => {
                secret["metadata"]["resourceVersion"] = json!(before.version);
                client.update(&secrets(), &Key::new(NAMESPACE, NAME), None, &secret).await?
            }
        };
        Ok(())
    }
}

// === impl Recorded ===

impl Recorded {
    pub fn of(object: &Object) -> Result<Recorded, RecordError> {
        Ok(Recorded { rotation: decode(object)?, version: object.revision.to_string() })
    }

    pub async fn read(client: &Client) -> Result<Option<Recorded>> {
        let selector = format!("{LABEL}={RECORD}");
        let options =
            ListOptions { namespace: Some(NAMESPACE), label_selector: Some(&selector), ..ListOptions::default() };
        let page = client.list(&secrets(), &options).await.context("read how far the authorities are")?;
        Ok(page.items.iter().find(|object| object.key == key()).map(|object| Recorded::of(object)).transpose()?)
    }
}

/// For a view.
pub fn watched() -> Watched {
    Watched::all(secrets(), &[]).in_namespace(NAMESPACE).with_labels(&format!("{LABEL}={RECORD}"))
}

/// The record among others of a snapshot or page.
pub fn key() -> Key {
    Key::new(NAMESPACE, NAME)
}

/// Takes part in what happened while this server was off, before anybody can reach it.
pub fn catch_up(store: &Store, pki: &ServerPki) -> Result<()> {
    let secrets = store.list("/secrets", &ListQuery::default())?;
    let Some(object) = secrets.objects.iter().find(|object| object.key == key()) else { return Ok(()) };
    let gone_along = Recorded::of(object).context("read the record of authorities").and_then(|recorded| {
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
