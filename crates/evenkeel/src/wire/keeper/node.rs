//! What a node does for the keeper, on the kubelet API's port. Every verb may be repeated; none waits for the cluster.
//!
//! - `GET report`: what runs here, what lies here. `POST report`: the same under an order, which raises the fence.
//! - `PUT release`: a piece of a program. `GET release`: a piece of one that lies here.
//! - `POST rehearse`: would a program that lies here start with these settings? Nothing is changed.
//! - `POST swap`: drain, and become another program, or the same one with other settings, on trial.
//! - `POST journal`: further lines of a run's journal, durable before they are answered for.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use base::{Chain, Clock};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use keeper::{Digest, Release, Role, Runs, Settings};
use serde::Serialize;
use tokio::sync::OnceCell;
use tracing::{info, warn};

use super::gates::told;
use super::home::AcceptError;
use super::releases::Releases;
use super::{
    Home, Journals, Lines, PATH, RehearseRequest, Report, SUBRESOURCE, SwapRequest, Trial, digest, order, program,
    query, rehearse, trial,
};
use crate::layout::Layout;
use crate::wire::SystemClock;
use crate::wire::restart::Restart;

/// A trial lasts no longer than this, whatever is asked.
const TRIAL_SECONDS_MAX: u32 = 900;

/// Who asked hears the answer before the port closes.
const ANSWER_TIME: Duration = Duration::from_millis(200);

pub struct Node {
    role: Role,
    home: Home,
    pub releases: Arc<Releases>,
    journals: Journals,
    restart: Restart,
    since: Timestamp,
    own: OnceCell<Release>,
    /// Of the cluster file, as this process was started with them.
    settings: Settings,
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Stale(AcceptError),
    #[error("{0}")]
    Unknown(&'static str),
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

// === impl Node ===

impl Node {
    /// # Errors
    /// Where what was written down of this machine's settings cannot be read.
    pub fn new(layout: &Layout, role: Role, restart: Restart) -> Result<Arc<Node>> {
        let home = Home::new(layout);
        Ok(Arc::new(Node {
            role,
            settings: home.settings_in_force()?,
            home,
            releases: Arc::new(Releases::new(layout)),
            journals: Journals::new(layout),
            restart,
            since: SystemClock.now(),
            own: OnceCell::new(),
        }))
    }

    async fn own(&self) -> Result<&Release> {
        self.own.get_or_try_init(program::own).await
    }

    async fn running(&self) -> Result<Runs> {
        Ok(Runs { release: self.own().await?.clone(), settings: self.settings.clone() })
    }

    /// Where a program lies that may come to run here; without a name, the one that does.
    async fn program(&self, digest: Option<&Digest>) -> Result<std::path::PathBuf> {
        let own = self.own().await?;
        match digest.filter(|digest| **digest != own.program) {
            Some(digest) => Ok(self.releases.find(digest).context("this program does not lie here")?.1),
            None => self.releases.keep_own(own).await,
        }
    }

    async fn rehearse(&self, request: &RehearseRequest) -> Result<()> {
        rehearse::ask(&self.program(request.program.as_ref()).await?, &request.settings).await
    }

    async fn report(&self) -> Result<Report> {
        let running = self.running().await?;
        Ok(Report {
            role: self.role,
            running,
            since: self.since,
            trial: self.home.trial()?,
            fell: self.home.fell()?,
            staged: self.releases.list(),
            free_bytes: self.releases.free_bytes()?,
            fixed: trial::fixed(&self.installed()?),
        })
    }

    /// What this machine starts with: where this process was started from, unless it runs from the releases.
    fn installed(&self) -> Result<std::path::PathBuf> {
        match self.home.installed()? {
            Some(installed) => Ok(installed),
            None => program::path(),
        }
    }

    async fn swap(&self, request: &SwapRequest) -> Result<()> {
        let (own, running) = (self.own().await?, self.running().await?);
        if running == request.to {
            return Ok(());
        }
        if let Some(open) = self.home.trial()? {
            ensure!(open.attempt == request.attempt && open.to == request.to, "something else is on trial here");
            return Ok(());
        }
        // The same request may have been held up on its way, and come when its attempt is over.
        let fell = self.home.fell()?.is_some_and(|fell| request.attempt <= fell.attempt);
        ensure!(!fell, "attempt {} is over here", request.attempt);
        let path = self.program(Some(&request.to.release.program)).await?;
        // The last look before there is no old process to answer any more.
        program::About::of(&path).await.context("the program does not answer any more")?;
        if !request.to.settings.is_empty() {
            rehearse::ask(&path, &request.to.settings).await?;
        }
        let previous = self.releases.keep_own(own).await?;
        let installed = self.installed()?;
        self.home.set_installed(&installed)?;
        let seconds = i64::from(request.seconds.min(TRIAL_SECONDS_MAX));
        let trial = Trial {
            attempt: request.attempt,
            to: request.to.clone(),
            from: running,
            program: path,
            previous,
            installed,
            until: SystemClock.now() + SignedDuration::from_secs(seconds),
            starts: 1,
        };
        self.home.set_trial(&trial)?;
        self.releases.prune(&[trial.to.release.program.clone(), trial.from.release.program.clone()])?;
        info!(to = %told(&trial.to), "draining");
        // The answer goes out first.
        let restart = self.restart.clone();
        tokio::spawn(async move {
            tokio::time::sleep(ANSWER_TIME).await;
            restart.request();
        });
        Ok(())
    }

    async fn act(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Refusal> {
        let verb = request.uri().path().strip_prefix(PATH).unwrap_or_default().to_owned();
        // Who may only look must not be able to shut others out: looking raises no fence.
        if request.method() != Method::GET && verb != "rehearse" {
            let order = order(request.headers()).ok_or(Refusal::Unknown("the request carries no order"))?;
            self.home.accept(order).map_err(Refusal::Stale)?;
        }
        let query = query(request.uri().query());
        let number = |name: &str| query.get(name).and_then(|text| text.parse::<u64>().ok());
        match (request.method(), verb.as_str()) {
            (&Method::GET | &Method::POST, "report") => json(&self.report().await?),
            (&Method::GET, "release") => {
                let program = digest(query.get("program")).ok_or(Refusal::Unknown("which program?"))?;
                Ok(Response::new(self.releases.read(&program, number("offset").unwrap_or_default())?.into()))
            }
            (&Method::PUT, "release") => {
                let program = digest(query.get("program")).ok_or(Refusal::Unknown("which program?"))?;
                let (offset, size) = (number("offset"), number("size"));
                let (Some(offset), Some(size)) = (offset, size) else {
                    return Err(Refusal::Unknown("a piece has an offset and the size of the whole"));
                };
                json(&self.releases.take(&program, offset, size, request.body()).await?)
            }
            (&Method::POST, "rehearse") => {
                self.rehearse(&serde_json::from_slice(request.body()).context("read the request")?).await?;
                json(&())
            }
            (&Method::POST, "swap") => {
                self.swap(&serde_json::from_slice(request.body()).context("read the request")?).await?;
                json(&())
            }
            (&Method::POST, "journal") => {
                let lines: Lines = serde_json::from_slice(request.body()).context("read the request")?;
                json(&self.journals.append(&lines)?)
            }
            _ => Err(Refusal::Unknown("there is no such verb")),
        }
    }
}

#[async_trait]
impl ::node::Extension for Node {
    fn subresource(&self, path: &str) -> Option<&'static str> {
        path.starts_with(PATH).then_some(SUBRESOURCE)
    }

    async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        let what = request.uri().path().to_owned();
        self.act(request).await.unwrap_or_else(|refusal| {
            warn!(%what, error = %Chain(&refusal), "the keeper was refused");
            let code = match &refusal {
                Refusal::Stale(AcceptError::Stale(_)) => StatusCode::PRECONDITION_FAILED,
                Refusal::Unknown(_) => StatusCode::BAD_REQUEST,
                Refusal::Stale(_) | Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            let mut response = Response::new(Bytes::from(Chain(&refusal).to_string()));
            *response.status_mut() = code;
            response
        })
    }
}

fn json(value: &impl Serialize) -> Result<Response<Bytes>, Refusal> {
    let text = serde_json::to_vec(value).context("plain data")?;
    Ok(Response::new(text.into()))
}
