//! What the command line asks of a server, on paths of its own beside the Kubernetes API, authorised by path.
//!
//! - `GET status`: generation, margin, the newest run with its journal, what every node says.
//! - `PUT release`: a piece of a program.
//! - `POST plan`: the way to it, with forecast and findings; nothing is changed.
//! - `POST arm`: the same again, and if it is still the plan that was shown, it is armed.
//! - `POST ask`: pause, resume, back.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use admit::User;
use anyhow::{Context, Result};
use apiserver::{Body, Extension, full};
use async_trait::async_trait;
use base::Chain;
use http::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use keeper::preflight::Finding;
use keeper::{Attention, Digest, Entry, Forecast, Generation, Goal, Journal, NodeTarget, Plan, Standing};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::coordinator;
use super::ports::{Parts, Piece};
use super::program::{About, LEVEL};
use super::records::{Armed, RecordError, Records, Wish};
use super::survey::Survey;
use super::{PATH, PIECE_BYTES, Report, digest, query};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proposal {
    #[serde(flatten)]
    pub goal: Goal,
    pub bake_seconds: Option<u32>,
    /// Who wishes it, as they call themselves.
    pub by: String,
    /// The plan that was shown; only that one is armed.
    pub shown: Option<Digest>,
    /// Codes of findings that shall not stand in the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waived: Vec<String>,
    /// Why it does not wait for a window, if it shall not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
}

/// What would be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    pub head: Head,
    pub from: Generation,
    pub to: Generation,
    pub plan: Plan,
    pub name: Digest,
    pub forecast: Forecast,
    pub findings: Vec<Finding>,
    /// The program that all nodes come to run, if it is one.
    pub about: Option<About>,
    /// The trusted key that its manifest is signed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
}

/// The first line of every answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    pub cluster: String,
    /// Servers that may fail before changes stop.
    pub margin: i64,
    pub servers: usize,
    pub nodes: usize,
}

/// The newest run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    pub name: String,
    pub armed: Armed,
    #[serde(flatten)]
    pub standing: Standing,
    pub journal: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub head: Head,
    pub generation: Option<Generation>,
    pub level: u32,
    pub run: Option<Progress>,
    /// What was asked of it and has not taken hold.
    pub asked: Vec<Wish>,
    /// Whose turn it is to drive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinator: Option<String>,
    /// What the run waits for before the next node, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
    /// Why `back` is not possible, if so.
    pub no_way_back: Option<String>,
    pub nodes: BTreeMap<String, NodeStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    pub ready: bool,
    pub report: Option<Report>,
    pub silent: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// A guard rail: the sentence says which.
    #[error("{0}")]
    Guard(String),
    #[error("{0}")]
    Unknown(&'static str),
    #[error(transparent)]
    Records(#[from] RecordError),
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// The server's side.
pub struct Keeper {
    pub(super) parts: Parts,
    pub(super) records: Records,
}

// === impl Keeper ===

impl Keeper {
    pub fn new(parts: Parts) -> Arc<Keeper> {
        let records = Records { client: parts.client.clone() };
        Arc::new(Keeper { parts, records })
    }

    pub(super) async fn survey(&self) -> Result<Survey> {
        Survey::take(&self.parts.client, &*self.parts.agents).await.context("look at the nodes")
    }

    pub(super) fn head(&self, survey: &Survey) -> Head {
        let inventory = survey.inventory(self.parts.clock.now());
        let (margin, servers) = (inventory.margin(), inventory.servers());
        Head { cluster: self.parts.cluster.clone(), margin, servers, nodes: survey.nodes.len() }
    }

    pub(super) async fn newest(&self) -> Result<Option<(Armed, Journal)>> {
        let Some(armed) = self.records.runs().await?.pop() else { return Ok(None) };
        let journal = self.records.journal(&armed).await?;
        Ok(Some((armed, journal)))
    }

    async fn status(&self) -> Result<Status> {
        let (survey, newest) = (self.survey().await?, self.newest().await?);
        let (generations, level) = (self.records.generations().await?, self.records.level().await?);
        let no_way_back = earlier(&generations, newest.as_ref(), level).err().map(|refusal| refusal.to_string());
        let mut asked = Vec::new();
        if let Some((armed, _)) = &newest {
            asked.extend(self.records.wishes(&armed.run()).await?.into_values());
        }
        let waits = match &newest {
            Some((armed, journal)) => self.waits(armed, journal).await?,
            None => None,
        };
        let run = newest.map(|(armed, journal)| Progress {
            name: armed.run(),
            standing: Standing::of(&armed.plan, &journal),
            journal: journal.entries().to_vec(),
            armed,
        });
        let node = |(name, seen): (&keeper::NodeName, &super::survey::Seen)| {
            let (report, silent) = (seen.report.as_ref().ok().cloned(), seen.report.as_ref().err().cloned());
            (name.0.to_string(), NodeStatus { ready: seen.ready, report, silent })
        };
        Ok(Status {
            head: self.head(&survey),
            generation: generations.into_iter().next_back(),
            level,
            run,
            asked,
            coordinator: coordinator::holder(&self.parts.client).await?,
            waits,
            no_way_back,
            nodes: survey.nodes.iter().map(node).collect(),
        })
    }

    /// Two people at once are told of each other here, or at the latest by the generation that only one can create.
    pub(super) async fn no_other(&self) -> Result<(), Refusal> {
        match self.newest().await? {
            Some((armed, journal)) if !Standing::of(&armed.plan, &journal).is_over() => {
                Err(Refusal::Guard(another(&armed, &journal, self.parts.clock.now())))
            }
            _ => Ok(()),
        }
    }

    async fn ask(&self, wish: &Wish, user: &User) -> Result<(), Refusal> {
        let Some((armed, journal)) = self.newest().await? else {
            return Err(Refusal::Guard("there is no run".to_owned()));
        };
        if Standing::of(&armed.plan, &journal).is_over() {
            return Err(Refusal::Guard(format!("{} is over; there is nothing to ask of it", armed.run())));
        }
        let final_begun = journal.entries().iter().any(|entry| {
            let step = entry.step.and_then(|step| armed.plan.step(step));
            step.is_some_and(|step| step.action.is_final())
        });
        if final_begun && matches!(wish.wish, Attention::Back { .. }) {
            return Err(Refusal::Guard(NO_RETURN.to_owned()));
        }
        let wish = Wish { by: format!("{} ({})", wish.by, user.name), ..wish.clone() };
        Ok(self.records.ask(&armed.run(), &wish).await.context("ask")?)
    }

    async fn act(&self, user: &User, request: Request<Body>) -> Result<String, Refusal> {
        let (head, body) = request.into_parts();
        let body = view::read_body(body, 2 * PIECE_BYTES).await;
        let body = body.map_err(|_| Refusal::Unknown("the request is too large or broke off"))?;
        let verb = head.uri.path().strip_prefix(PATH).unwrap_or_default();
        match (&head.method, verb) {
            (&Method::GET, "status") => json(&self.status().await?),
            (&Method::PUT, "release") => {
                let query = query(head.uri.query());
                let number = |name: &str| query.get(name).and_then(|text| text.parse::<u64>().ok());
                let (Some(program), Some(offset), Some(size)) =
                    (digest(query.get("program")), number("offset"), number("size"))
                else {
                    return Err(Refusal::Unknown("a piece has a program, an offset and the size of the whole"));
                };
                json(&self.parts.programs.receive(&Piece { program, size, offset, bytes: body }).await?)
            }
            (&Method::POST, "plan") => json(&Box::pin(self.plan(&read(&body)?)).await?),
            (&Method::POST, "arm") => json(&Box::pin(self.arm(&read(&body)?, user)).await?),
            (&Method::POST, "ask") => {
                self.ask(&read(&body)?, user).await?;
                json(&())
            }
            _ => Err(Refusal::Unknown("there is no such verb")),
        }
    }

    async fn answer(&self, user: Option<User>, request: Request<Body>) -> Response<Body> {
        let what = request.uri().path().to_owned();
        let outcome = match &user {
            Some(user) => self.act(user, request).await,
            None => Err(Refusal::Unknown("nobody asks")),
        };
        let (code, text) = match outcome {
            Ok(text) => (StatusCode::OK, text),
            Err(refusal) => {
                warn!(%what, error = %Chain(&refusal), "refused");
                let code = match &refusal {
                    Refusal::Guard(_) => StatusCode::CONFLICT,
                    Refusal::Unknown(_) => StatusCode::BAD_REQUEST,
                    Refusal::Records(_) | Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
                };
                (code, Chain(&refusal).to_string())
            }
        };
        let mut response = Response::new(full(text));
        *response.status_mut() = code;
        response
    }
}

/// Where the keeper comes once the server that it asks is there.
#[derive(Default)]
pub struct Slot(OnceLock<Arc<Keeper>>);

// === impl Slot ===

impl Slot {
    pub fn fill(&self, keeper: Arc<Keeper>) {
        // One process has one keeper.
        let _ = self.0.set(keeper);
    }
}

#[async_trait]
impl Extension for Slot {
    fn is_open(&self, _path: &str) -> bool {
        false
    }

    fn serves(&self, path: &str) -> bool {
        path.starts_with(PATH)
    }

    /// As a task of its own: what was begun comes to its end though whoever asked hangs up, and the keeper's deep calls
    /// have a stack to themselves.
    async fn answer(&self, user: Option<User>, request: Request<Body>) -> Response<Body> {
        let Some(keeper) = self.0.get().cloned() else {
            return failed(StatusCode::SERVICE_UNAVAILABLE, "the keeper is starting");
        };
        let answer = tokio::spawn(async move { keeper.answer(user, request).await });
        answer
            .await
            .unwrap_or_else(|_| failed(StatusCode::INTERNAL_SERVER_ERROR, "the keeper stopped over this request"))
    }
}

const NO_RETURN: &str = "what is stored has taken its new form, which the program before cannot read; the only way back is \
                         to restore a backup: evenkeel restore";

/// What the cluster was before the newest run, if it can be that again.
pub(super) fn earlier<'a>(
    generations: &'a [Generation],
    newest: Option<&(Armed, Journal)>,
    level: u32,
) -> Result<&'a Generation, Refusal> {
    let nothing = || Refusal::Guard("nothing was changed by the keeper yet; there is nothing to go back to".to_owned());
    let (armed, journal) = newest.ok_or_else(nothing)?;
    if Standing::of(&armed.plan, journal) == Standing::Returned {
        return Err(Refusal::Guard(format!("{} has gone back already", armed.run())));
    }
    let earlier = generations.iter().find(|generation| generation.number == armed.plan.from).ok_or_else(nothing)?;
    if earlier.level < level {
        return Err(Refusal::Guard(NO_RETURN.to_owned()));
    }
    Ok(earlier)
}

/// The form of what is stored that this program writes; all nodes run it or a newer one.
pub(super) fn finalised(current: &Generation, level: u32) -> Result<Generation, Refusal> {
    if LEVEL <= level {
        let why = "there is nothing to finalise: what is stored has the newest form already, and `evenkeel back` stays \
                   possible as long as the nodes keep the program before";
        return Err(Refusal::Guard(why.to_owned()));
    }
    Ok(Generation { level: LEVEL, ..current.child() })
}

/// The generation that says what is, where nodes came or went since; None where nothing has to be said.
pub fn observed(cluster: &str, newest: Option<&Generation>, survey: &Survey) -> Option<Generation> {
    let target = |report: &Report| NodeTarget { role: report.role, runs: report.running.clone() };
    let mut nodes = BTreeMap::new();
    for (name, seen) in &survey.nodes {
        let known = newest.and_then(|newest| newest.nodes.get(name)).cloned();
        nodes.insert(name.clone(), known.or_else(|| seen.report.as_ref().ok().map(target))?);
    }
    let next = match newest {
        Some(newest) if newest.nodes.keys().eq(nodes.keys()) => return None,
        Some(newest) => Generation { nodes, ..newest.child() },
        None => Generation { cluster: cluster.into(), number: 1, parent: Digest::none(), level: LEVEL, nodes },
    };
    next.follows(newest).is_ok().then_some(next)
}

/// Who does what, and how far they are.
fn another(armed: &Armed, journal: &Journal, now: Timestamp) -> String {
    let minutes = now.duration_since(armed.at).as_mins();
    let when = if minutes < 1 { "just now".to_owned() } else { format!("{minutes} min ago") };
    let node = journal.entries().iter().rev().find_map(|entry| entry.node.as_ref());
    let place = node.map_or_else(|| "has not touched a node yet".to_owned(), |node| format!("is at {}", node.0));
    let name = armed.by.split(" (").next().unwrap_or(&armed.by);
    let stands = match Standing::of(&armed.plan, journal) {
        Standing::Stuck { why } => format!(", where it needs a person: {why}"),
        Standing::Paused => ", and paused".to_owned(),
        _ => String::new(),
    };
    format!("{name} started {} {when} and {place}{stands}; you can watch it: `evenkeel watch`", armed.run())
}

fn failed(code: StatusCode, why: &'static str) -> Response<Body> {
    let mut response = Response::new(full(why));
    *response.status_mut() = code;
    response
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let parsed = serde_json::from_slice(body);
    parsed.map_err(|_| Refusal::Unknown("the request cannot be read: take the same program on both sides"))
}

fn json(value: &impl Serialize) -> Result<String, Refusal> {
    Ok(serde_json::to_string(value).context("plain data")?)
}
