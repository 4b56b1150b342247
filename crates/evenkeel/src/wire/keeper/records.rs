//! What the cluster knows of its own life: ConfigMaps of `kube-system`, written through the API as everything is, so that
//! all servers share them and a backup holds them.
//!
//! - `evenkeel-generation-7`: what every node shall run. Of two that follow the same parent one is created. Where nodes
//!   must be brought to it, the way and who armed it stand in the same object: no target is without its run.
//! - `evenkeel-run-7.12`: an entry of the run's journal. Its place can be taken once.
//! - `evenkeel-level-2`: the format of what is stored. It only grows.
//! - `evenkeel-wish-...`: what a person asked of a run; gone once it is in the journal.

use std::collections::BTreeMap;

use api::{Gvr, Key, Tree};
use jiff::Timestamp;
use keeper::{Attention, Entry, Generation, Journal, Plan};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use view::{Client, ClientError, ListOptions};

use super::journals::RUNS_MAX;
use super::program::LEVEL_MIN;
use super::survey::Workloads;

pub const NAMESPACE: &str = "kube-system";
/// On everything here, with what it is.
pub const LABEL: &str = "evenkeel.dev/keeper";
const RUN_LABEL: &str = "evenkeel.dev/run";
/// The field of these objects.
const FIELD: &str = "record";
/// Beside it in a generation: the run that brings the nodes to it.
const RUN_FIELD: &str = "run";

/// A run as it was armed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Armed {
    pub plan: Plan,
    pub by: String,
    pub at: Timestamp,
    /// What was ready then and must be ready again.
    pub before: Workloads,
    /// Codes of what stood in the way and was waived.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waived: Vec<String>,
    /// Why it does not wait for a window, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
}

/// What somebody asked of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wish {
    pub wish: Attention,
    pub by: String,
}

/// A bundle that was made for a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Saved {
    pub node: String,
    pub path: String,
    pub revision: u64,
    pub objects: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("ask the API for the keeper's records")]
    Api(#[from] ClientError),
    #[error("{name} in {NAMESPACE} cannot be read")]
    Content {
        name: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("the journal of {run} is not whole: {why}")]
    Journal { run: String, why: String },
}

#[derive(Clone)]
pub struct Records {
    pub client: Client,
}

// === impl Armed ===

impl Armed {
    /// The run in an object that was read elsewhere, if there is one.
    pub fn read(object: &Value) -> Option<Armed> {
        document(object, RUN_FIELD)
    }

    /// Its name, also of its journal's copies.
    pub fn run(&self) -> String {
        format!("run-{}", self.plan.to)
    }
}

// === impl Records ===

impl Records {
    /// By number, the oldest first.
    pub async fn generations(&self) -> Result<Vec<Generation>, RecordError> {
        let mut found: Vec<Generation> =
            self.list(&format!("{LABEL}=generation"), FIELD).await?.into_values().collect();
        found.sort_by_key(|generation| generation.number);
        Ok(found)
    }

    /// Makes it the target, where the nodes are there already; false where its number is taken.
    pub async fn propose(&self, generation: &Generation) -> Result<bool, RecordError> {
        self.create(&generation_name(generation.number), object("generation", "", generation)).await
    }

    /// By number, the oldest first.
    pub async fn runs(&self) -> Result<Vec<Armed>, RecordError> {
        let labels = format!("{LABEL}=generation,{RUN_LABEL}");
        let mut found: Vec<Armed> = self.list(&labels, RUN_FIELD).await?.into_values().collect();
        found.sort_by_key(|run| run.plan.to);
        Ok(found)
    }

    /// Makes it the target together with the run that brings the nodes to it; false where its number is taken.
    pub async fn arm(&self, generation: &Generation, armed: &Armed) -> Result<bool, RecordError> {
        let mut wanted = object("generation", &armed.run(), generation);
        wanted["data"][RUN_FIELD] = json!(text(armed));
        self.create(&generation_name(generation.number), wanted).await
    }

    pub async fn journal(&self, armed: &Armed) -> Result<Journal, RecordError> {
        let run = armed.run();
        let mut entries: Vec<Entry> =
            self.list(&format!("{LABEL}=entry,{RUN_LABEL}={run}"), FIELD).await?.into_values().collect();
        entries.sort_by_key(|entry| entry.sequence);
        let mut journal = Journal::new(&run, armed.plan.to);
        for entry in entries {
            let broken =
                |error: keeper::JournalError| RecordError::Journal { run: run.clone(), why: error.to_string() };
            journal.accept(entry).map_err(broken)?;
        }
        Ok(journal)
    }

    /// Takes the entry's place; false where somebody else has it.
    pub async fn append(&self, entry: &Entry) -> Result<bool, RecordError> {
        let name = format!("evenkeel-{}.{}", entry.run, entry.sequence);
        self.create(&name, object("entry", &entry.run, entry)).await
    }

    pub async fn ask(&self, run: &str, wish: &Wish) -> Result<(), RecordError> {
        let mut object = object("wish", run, wish);
        object["metadata"]["generateName"] = json!("evenkeel-wish-");
        self.client.create(&config_maps(), NAMESPACE, &object).await?;
        Ok(())
    }

    /// What was asked of a run and is not in its journal yet, by name.
    pub async fn wishes(&self, run: &str) -> Result<BTreeMap<String, Wish>, RecordError> {
        self.list(&format!("{LABEL}=wish,{RUN_LABEL}={run}"), FIELD).await
    }

    pub async fn forget(&self, name: &str) -> Result<(), RecordError> {
        match self.client.delete(&config_maps(), &Key::new(NAMESPACE, name), &json!({})).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    pub async fn saved(&self, run: &str) -> Result<Option<Saved>, RecordError> {
        Ok(self.list(&format!("{LABEL}=backup,{RUN_LABEL}={run}"), FIELD).await?.into_values().next())
    }

    pub async fn note_saved(&self, run: &str, saved: &Saved) -> Result<(), RecordError> {
        self.create(&format!("evenkeel-{run}.backup"), object("backup", run, saved)).await.map(drop)
    }

    /// The format of what is stored; the first one where nothing was ever finalised.
    pub async fn level(&self) -> Result<u32, RecordError> {
        let levels: BTreeMap<String, u32> = self.list(&format!("{LABEL}=level"), FIELD).await?;
        Ok(levels.into_values().max().unwrap_or(LEVEL_MIN))
    }

    pub async fn raise_level(&self, level: u32) -> Result<(), RecordError> {
        self.create(&format!("evenkeel-level-{level}"), object("level", "", &level)).await.map(drop)
    }

    /// Removes the oldest generations with all that belongs to their runs. The one that the oldest run that stays began at
    /// stays too.
    pub async fn prune(&self) -> Result<(), RecordError> {
        let (runs, generations) = (self.runs().await?, self.generations().await?);
        let Some(oldest) = oldest_kept(&runs) else { return Ok(()) };
        for run in runs.iter().filter(|run| run.plan.to < oldest) {
            let of_run = format!("{RUN_LABEL}={},{LABEL}!=generation", run.run());
            let of_run: BTreeMap<String, Value> = self.list(&of_run, FIELD).await?;
            for name in of_run.keys() {
                self.forget(name).await?;
            }
        }
        for generation in generations.iter().filter(|generation| generation.number < oldest) {
            self.forget(&generation_name(generation.number)).await?;
        }
        Ok(())
    }

    /// False where something else has the name. What is the same is there already: an answer was lost.
    async fn create(&self, name: &str, mut wanted: Tree) -> Result<bool, RecordError> {
        wanted["metadata"]["name"] = json!(name);
        match self.client.create(&config_maps(), NAMESPACE, &wanted).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_already_exists() => {
                let there = self.client.get(&config_maps(), &Key::new(NAMESPACE, name)).await?;
                Ok(there["data"] == wanted["data"])
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn list<T: DeserializeOwned>(&self, labels: &str, field: &str) -> Result<BTreeMap<String, T>, RecordError> {
        let options =
            ListOptions { namespace: Some(NAMESPACE), label_selector: Some(labels), ..ListOptions::default() };
        let page = self.client.list(&config_maps(), &options).await?;
        let read = |object: &Tree| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let text = object["data"][field].as_str().unwrap_or_default();
            match serde_json::from_str(text) {
                Ok(value) => Ok((name, value)),
                Err(source) => Err(RecordError::Content { name, source }),
            }
        };
        page.items.iter().map(|item| read(&item.tree())).collect()
    }
}

/// The generation that the oldest run that is kept began at; None while there are few.
fn oldest_kept(runs: &[Armed]) -> Option<u64> {
    let surplus = runs.len().checked_sub(RUNS_MAX)?;
    Some(runs.get(surplus)?.plan.from)
}

/// The entry of a journal in an object that was read elsewhere, if it is one.
pub fn entry_of(object: &Value) -> Option<Entry> {
    let is_entry = object["metadata"]["labels"][LABEL] == "entry";
    is_entry.then(|| document(object, FIELD)).flatten()
}

fn document<T: DeserializeOwned>(object: &Value, field: &str) -> Option<T> {
    serde_json::from_str(object["data"][field].as_str()?).ok()
}

fn generation_name(number: u64) -> String {
    format!("evenkeel-generation-{number}")
}

fn object(what: &str, run: &str, value: &impl Serialize) -> Tree {
    let mut labels = json!({LABEL: what});
    if !run.is_empty() {
        labels[RUN_LABEL] = json!(run);
    }
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "immutable": true,
        "metadata": {"namespace": NAMESPACE, "labels": labels},
        "data": {FIELD: text(value)},
    })
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("records are plain data")
}

pub fn config_maps() -> Gvr {
    Gvr::new("", "v1", "configmaps")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use keeper::Plan;

    use super::{Armed, RUNS_MAX, oldest_kept};
    use crate::wire::keeper::survey::Workloads;

    fn runs(count: usize) -> Vec<Armed> {
        // Between two runs a node joined: that is a generation without a run.
        let run = |number: u64| Armed {
            plan: Plan { from: 2 * number, to: 2 * number + 1, steps: Vec::new() },
            by: "anna".into(),
            at: Timestamp::UNIX_EPOCH,
            before: Workloads::default(),
            waived: Vec::new(),
            now: None,
        };
        (1..).map(run).take(count).collect()
    }

    #[test]
    fn the_oldest_kept_run_can_be_gone_back() {
        assert_eq!(oldest_kept(&runs(0)), None);
        assert_eq!(oldest_kept(&runs(RUNS_MAX - 1)), None);
        assert_eq!(oldest_kept(&runs(RUNS_MAX)), Some(2));
        assert_eq!(oldest_kept(&runs(RUNS_MAX + 3)), Some(8));
    }
}
