//! Images: pull policies, credentials, waits between failed pulls, at most a few pulls at a time and one per image.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::Clock;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::limits;
use crate::runtime::{Image, RegistryAuth, Runtime, RuntimeError};
use crate::spec::pull_secrets;

pub struct Images {
    runtime: Arc<dyn Runtime>,
    clock: Arc<dyn Clock>,
    pulls: Semaphore,
    waits: Mutex<BTreeMap<String, Wait>>,
}

/// Failed pulls of one image for one pod.
struct Wait {
    until: Timestamp,
    delay: Duration,
    message: String,
}

/// Why an image cannot be had, in the words of a container's waiting state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PullFailure {
    pub reason: &'static str,
    pub message: String,
    pub retry_at: Option<Timestamp>,
}

/// What happened on the way, for events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullNews {
    Present,
    Pulling,
    Pulled { took: Duration, size_bytes: u64 },
}

/// What to have, for whom.
pub struct Wanted<'a> {
    pub image: &'a str,
    /// Empty is the default: `Always` for `:latest`, else `IfNotPresent`.
    pub policy: &'a str,
    pub pod_uid: &'a str,
    pub auths: Vec<RegistryAuth>,
}

impl Images {
    pub fn new(runtime: Arc<dyn Runtime>, clock: Arc<dyn Clock>) -> Images {
        Images { runtime, clock, pulls: Semaphore::new(limits::PULLS_MAX), waits: Mutex::default() }
    }

    /// Makes sure the image is on this machine.
    pub async fn ensure(&self, wanted: &Wanted<'_>, mut news: impl FnMut(PullNews)) -> Result<Image, PullFailure> {
        let image = wanted.image;
        if image.is_empty() || image.chars().any(|c| c.is_whitespace() || c.is_control()) {
            let message = format!(
                "Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: invalid reference format"
            );
            return Err(PullFailure { reason: "InvalidImageName", message, retry_at: None });
        }
        let present = self.runtime.image_status(image).await.map_err(|error| PullFailure {
            reason: "ImageInspectError",
            message: format!("Failed to inspect image {image:?}: {error}"),
            retry_at: None,
        })?;
        let default = if pull_secrets::is_latest(image) { "Always" } else { "IfNotPresent" };
        match (if wanted.policy.is_empty() { default } else { wanted.policy }, present) {
            ("Never" | "IfNotPresent", Some(found)) => {
                news(PullNews::Present);
                Ok(found)
            }
            ("Never", None) => {
                let message = format!("Container image {image:?} is not present with pull policy of Never");
                Err(PullFailure { reason: "ErrImageNeverPull", message, retry_at: None })
            }
            _ => self.pull(wanted, news).await,
        }
    }

    async fn pull(&self, wanted: &Wanted<'_>, mut news: impl FnMut(PullNews)) -> Result<Image, PullFailure> {
        let image = wanted.image;
        let which = format!("{}_{image}", wanted.pod_uid);
        let now = self.clock.now();
        if let Some(wait) = self.waits.lock().expect("no holder of this lock panics").get(&which)
            && now < wait.until
        {
            let message = format!("Back-off pulling image {image:?}: ErrImagePull: {}", wait.message);
            return Err(PullFailure { reason: "ImagePullBackOff", message, retry_at: Some(wait.until) });
        }
        let _turn = self.pulls.acquire().await.expect("the semaphore is never closed");
        news(PullNews::Pulling);
        let from = self.clock.now();
        match tokio::time::timeout(limits::PULL_TIMEOUT, self.pull_with(wanted)).await {
            Ok(Ok(found)) => {
                self.waits.lock().expect("no holder of this lock panics").remove(&which);
                let took = Duration::try_from(self.clock.now().duration_since(from)).unwrap_or_default();
                news(PullNews::Pulled { took, size_bytes: found.size_bytes });
                Ok(found)
            }
            Ok(Err(error)) => Err(self.failed(which, error.to_string())),
            Err(_) => Err(self.failed(which, "pull takes too long".to_owned())),
        }
    }

    async fn pull_with(&self, wanted: &Wanted<'_>) -> Result<Image, RuntimeError> {
        let mut last = None;
        let anonymous = wanted.auths.is_empty().then_some(None);
        for auth in wanted.auths.iter().map(Some).chain(anonymous) {
            match self.runtime.pull_image(wanted.image, auth).await {
                Ok(reference) => {
                    let found = self.runtime.image_status(&reference).await?;
                    return Ok(found.unwrap_or_else(|| Image { id: reference, ..Image::default() }));
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("there is at least one try"))
    }

    fn failed(&self, which: String, message: String) -> PullFailure {
        let mut waits = self.waits.lock().expect("no holder of this lock panics");
        let before = waits.get(&which).map(|wait| (wait.delay * 2).min(limits::CRASH_BACKOFF_MAX));
        let delay = before.unwrap_or(limits::CRASH_BACKOFF_FIRST);
        let now = self.clock.now();
        let until = now + jiff::SignedDuration::try_from(delay).expect("a few minutes fit");
        waits.insert(which, Wait { until, delay, message: message.clone() });
        // The next look finds the wait and shows it.
        let soon = now + jiff::SignedDuration::from_secs(1);
        PullFailure { reason: "ErrImagePull", message, retry_at: Some(soon) }
    }

    pub fn forget(&self, pod_uid: &str) {
        let prefix = format!("{pod_uid}_");
        self.waits.lock().expect("no holder of this lock panics").retain(|which, _| !which.starts_with(&prefix));
    }
}
