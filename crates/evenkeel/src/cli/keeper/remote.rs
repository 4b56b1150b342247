//! The way to the keeper: a server's own paths, under the identity of a kubeconfig.

use std::io::{Read, Seek, SeekFrom};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use base::Chain;
use bytes::Bytes;
use http::{Method, Request};
use keeper::{Attention, Digest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use view::Endpoint;

use super::source::Content;
use crate::cli::args::AskArgs;
use crate::pki::Kubeconfig;
use crate::wire::admin;
use crate::wire::endpoints::KnownServers;
use crate::wire::keeper::api::{Proposal, Shown, Status};
use crate::wire::keeper::{PATH, PIECE_BYTES, Received};

/// A server that starts again answers within this time.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(1);

/// What came of asking.
pub enum Asked<T> {
    Done(T),
    /// By a guard rail, with its sentence.
    Refused(String),
}

pub struct Remote {
    config: Kubeconfig,
    /// Other servers of this machine's cluster, for when the one of the kubeconfig does not answer.
    others: Vec<Endpoint>,
}

// === impl Remote ===

impl Remote {
    pub fn of(args: &AskArgs) -> Result<Remote> {
        let layout = args.common.layout();
        let path = args.kubeconfig.clone().unwrap_or_else(|| layout.kubeconfig());
        let config = Kubeconfig::load(&path)?;
        // Somebody else's kubeconfig may be another cluster's.
        let known = KnownServers::new(&layout, "", None, None);
        let others = if args.kubeconfig.is_some() { Vec::new() } else { (known.endpoints())() };
        Ok(Remote { config, others })
    }

    pub async fn status(&self) -> Result<Status> {
        told(self.call(Method::GET, "status", "", Bytes::new()).await?)
    }

    pub async fn plan(&self, proposal: &Proposal) -> Result<Asked<Shown>> {
        self.post("plan", proposal).await
    }

    pub async fn arm(&self, proposal: &Proposal) -> Result<Asked<Shown>> {
        self.post("arm", proposal).await
    }

    /// As [`Remote::status`], for who is about to ask something of a run.
    pub async fn status_soon(&self) -> Result<Status> {
        let (code, body) = self.patiently(Method::GET, "status", Bytes::new()).await?;
        told(read(code, &body)?)
    }

    pub async fn ask(&self, wish: Attention) -> Result<Asked<()>> {
        let body = serde_json::to_vec(&super::wish(wish))?;
        let (code, body) = self.patiently(Method::POST, "ask", body.into()).await?;
        read(code, &body)
    }

    /// Asks again where no server answers: the run itself may just be replacing the program of the one that is asked. For
    /// what does not change when it is asked twice.
    async fn patiently(&self, method: Method, verb: &str, body: Bytes) -> Result<(u16, Bytes)> {
        let (begin, mut told) = (Instant::now(), false);
        loop {
            let failure = match self.exchange(method.clone(), verb, "", body.clone()).await {
                Ok((503, why)) => anyhow!("the server is not ready: {}", String::from_utf8_lossy(&why)),
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if SILENCE_MAX <= begin.elapsed() {
                return Err(failure);
            }
            if !told {
                eprintln!("no answer yet ({}); asking again", Chain(failure.as_ref()));
                told = true;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Sends a program in pieces, as far as it is not there already.
    pub async fn send(&self, mut content: Box<dyn Content>) -> Result<Asked<Digest>> {
        let program = Digest::of_reader(&mut content).context("read the program")?;
        let size = content.seek(SeekFrom::End(0))?;
        let mut offset = 0;
        loop {
            content.seek(SeekFrom::Start(offset))?;
            let mut piece = Vec::new();
            (&mut content).take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
            let query = format!("?program={program}&offset={offset}&size={size}");
            match self.call::<Received>(Method::PUT, "release", &query, piece.into()).await? {
                Asked::Refused(why) => return Ok(Asked::Refused(why)),
                Asked::Done(received) if received.about.is_some() => return Ok(Asked::Done(program)),
                Asked::Done(received) if received.bytes == offset => {
                    bail!("the server takes no more than {offset} bytes")
                }
                Asked::Done(received) => offset = received.bytes,
            }
        }
    }

    async fn post<T: DeserializeOwned>(&self, verb: &str, value: &impl Serialize) -> Result<Asked<T>> {
        self.call(Method::POST, verb, "", serde_json::to_vec(value)?.into()).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        verb: &str,
        query: &str,
        body: Bytes,
    ) -> Result<Asked<T>> {
        let (code, body) = self.exchange(method, verb, query, body).await?;
        read(code, &body)
    }

    async fn exchange(&self, method: Method, verb: &str, query: &str, body: Bytes) -> Result<(u16, Bytes)> {
        let request = Request::builder().method(method).uri(format!("{PATH}{verb}{query}")).body(body)?;
        admin::exchange(&self.config, &self.others, request).await.context("ask the server")
    }
}

/// For what no guard rail is in the way of.
fn told<T>(asked: Asked<T>) -> Result<T> {
    match asked {
        Asked::Done(done) => Ok(done),
        Asked::Refused(why) => bail!("{why}"),
    }
}

fn read<T: DeserializeOwned>(code: u16, body: &[u8]) -> Result<Asked<T>> {
    match code {
        200 => Ok(Asked::Done(serde_json::from_slice(body).context("read the server's answer")?)),
        409 => Ok(Asked::Refused(String::from_utf8_lossy(body).into_owned())),
        _ => bail!("the server answered {code}: {}", String::from_utf8_lossy(body)),
    }
}
