//! What must hold at every moment: an order is carried out only for an intention that is durable, after a look by the same
//! coordinator, on one node at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use evenkeel::coordination::SwapRequest;
use keeper::{Action, Digest, Entry, NodeName, Order, Phase, Plan, Standing, Step, Token};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use crate::record::Record;

/// Who coordinates has seen by then that another node is away, or that he was replaced, and his last order has arrived.
const UNSEEN: Duration = Duration::from_secs(40);
/// Where the keeper's records lie.
pub const CONFIG_MAPS: &str = "/configmaps";
/// A stored document begins behind a header of this length.
const HEADER_BYTES: usize = 11;

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub swaps: u32,
    /// Orders of coordinators that were replaced, refused by nodes.
    pub stale_orders: u32,
    /// Orders that came when whoever gave them had given up.
    pub late_orders: u32,
    /// Programs that did not get well.
    pub fell: u32,
    pub kills: u32,
    pub cuts: u32,
    pub outages: u32,
    /// Machines that were lost for good.
    pub replaced: u32,
}

#[derive(Default)]
struct State {
    counts: Counts,
    broken: Vec<String>,
    /// When each coordinator first gave an order, by its token.
    tokens: BTreeMap<Token, Instant>,
    /// The newest coordinator that each node has carried an order out for.
    obeyed: BTreeMap<String, Token>,
    /// Who looked at each node last, since its last swap.
    looked: BTreeMap<String, Token>,
    on_trial: BTreeMap<String, Instant>,
    away: BTreeMap<String, Instant>,
}

pub struct Judge {
    record: Arc<Record>,
    state: Mutex<State>,
}

/// A run as it is durable.
pub struct Kept {
    pub plan: Plan,
    pub journal: Vec<Entry>,
}

// === impl Judge ===

impl Judge {
    pub fn new(record: Arc<Record>) -> Arc<Judge> {
        Arc::new(Judge { record, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    pub fn count(&self, what: impl FnOnce(&mut Counts)) {
        what(&mut self.state().counts);
    }

    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// The first thing that did not hold.
    pub fn verdict(&self) -> Result<(), anyhow::Error> {
        self.state().broken.first().map_or(Ok(()), |broken| Err(anyhow::anyhow!("{broken}")))
    }

    fn expect(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            let what = what();
            tracing::error!(%what, "broken");
            self.state().broken.push(what);
        }
    }

    /// A node carries an order out, of whatever kind.
    pub fn obeyed(&self, node: &str, token: Token) {
        let before = {
            let mut state = self.state();
            state.tokens.entry(token).or_insert_with(Instant::now);
            state.obeyed.insert(node.to_owned(), token)
        };
        let rises = before.is_none_or(|before| before <= token);
        self.expect(rises, || format!("{node} obeys token {} after {before:?}", token.0));
    }

    pub fn looked(&self, node: &str, token: Token) {
        self.state().looked.insert(node.to_owned(), token);
    }

    pub fn away(&self, node: &str, away: bool) {
        let mut state = self.state();
        if away {
            state.away.entry(node.to_owned()).or_insert_with(Instant::now);
        } else {
            state.away.remove(node);
        }
    }

    pub fn settled(&self, node: &str) {
        self.state().on_trial.remove(node);
    }

    /// What its machine remembered is gone with it.
    pub fn replaced(&self, node: &str) {
        let mut state = self.state();
        state.on_trial.remove(node);
        state.looked.remove(node);
        state.obeyed.remove(node);
        state.counts.replaced += 1;
    }

    /// A node is about to drain for another program.
    pub fn swap(&self, node: &str, order: Order, request: &SwapRequest) {
        let at = format!("{node} is ordered to run {} by token {}", request.to.release.version, order.token.0);
        let newer = self.state().tokens.range(Token(order.token.0 + 1)..).map(|(token, since)| (*token, *since)).next();
        let long = newer.filter(|(_, since)| UNSEEN < since.elapsed());
        self.expect(long.is_none(), || format!("{at}, which was replaced by {long:?}"));
        let looked = self.state().looked.remove(node);
        self.expect(looked == Some(order.token), || format!("{at}, which never looked: {looked:?}"));
        let others: Vec<String> = self.state().on_trial.keys().filter(|other| *other != node).cloned().collect();
        self.expect(others.is_empty(), || format!("{at} while {others:?} are on trial"));
        let kept = self.run(order.generation);
        self.expect(kept.is_some(), || format!("{at} for a run that nobody armed"));
        let Some(kept) = kept else { return };
        let forward = kept.swap_of(node).is_some_and(|step| kept.intends(step, request));
        let back = kept.swap_of(node).is_some_and(|step| kept.takes_back(step, &request.to.release.program));
        self.expect(forward || back, || format!("{at} without an intention: {:?}", kept.journal.last()));
        if forward {
            let away = self.state().away.clone();
            let long = away.iter().find(|(other, since)| *other != node && UNSEEN < since.elapsed());
            self.expect(long.is_none(), || format!("{at} while {long:?} is away"));
        }
        let mut state = self.state();
        state.on_trial.insert(node.to_owned(), Instant::now());
        state.counts.swaps += 1;
    }

    /// A program arrives on a node.
    pub fn stage(&self, node: &str, order: Order, program: &Digest) {
        let is_it = |step: &Step| {
            let brings = matches!(&step.action, Action::Stage { release } if release.program == *program);
            brings && step.node == Some(NodeName(node.into()))
        };
        let back = self.run(order.generation).is_some_and(|kept| kept.brings_back(node, program));
        if !back {
            self.intended(order.generation, &is_it, || format!("a program comes to {node}"));
        }
    }

    pub fn backup(&self, generation: u64) {
        self.intended(generation, &|step| step.action == Action::Backup, || "a bundle is made".to_owned());
    }

    fn intended(&self, generation: u64, is_it: &dyn Fn(&Step) -> bool, what: impl FnOnce() -> String) {
        let kept = self.run(generation);
        let step = kept.as_ref().and_then(|kept| kept.plan.steps.iter().find(|step| is_it(step)));
        let durable = kept.as_ref().zip(step).is_some_and(|(kept, step)| kept.has(step, &Phase::Intend));
        self.expect(durable, || format!("{} for generation {generation} without an intention", what()));
    }

    /// The newest run.
    pub fn newest(&self) -> Option<u64> {
        let names = self.record.keys(CONFIG_MAPS, "kube-system/evenkeel-generation-");
        let numbers = names.iter().filter_map(|name| name.rsplit('-').next()?.parse().ok());
        numbers.filter(|number| self.run(*number).is_some()).max()
    }

    /// The run to a generation, as the record has it.
    pub fn run(&self, generation: u64) -> Option<Kept> {
        let armed: Value = self.read(&format!("evenkeel-generation-{generation}"), "run")?;
        let plan: Plan = serde_json::from_value(armed["plan"].clone()).ok()?;
        let entry = |sequence: u64| self.read::<Entry>(&format!("evenkeel-run-{generation}.{sequence}"), "record");
        Some(Kept { plan, journal: (1..).map_while(entry).collect() })
    }

    fn read<T: DeserializeOwned>(&self, name: &str, field: &str) -> Option<T> {
        let value = self.record.value(CONFIG_MAPS, &format!("kube-system/{name}"))?;
        let object: Value = serde_json::from_slice(value.get(HEADER_BYTES..)?).ok()?;
        serde_json::from_str(object["data"][field].as_str()?).ok()
    }
}

// === impl Kept ===

impl Kept {
    fn swap_of(&self, node: &str) -> Option<&Step> {
        let of_node = |step: &&Step| step.node.as_ref().is_some_and(|name| name.0 == node);
        self.plan.steps.iter().filter(of_node).find(|step| matches!(step.action, Action::Swap { .. }))
    }

    fn brings_back(&self, node: &str, program: &Digest) -> bool {
        self.swap_of(node).is_some_and(|step| self.takes_back(step, program))
    }

    fn has(&self, step: &Step, phase: &Phase) -> bool {
        self.journal.iter().any(|entry| entry.step == Some(step.id) && entry.phase == *phase)
    }

    /// The last that was written of the step is that it is intended.
    fn intends(&self, step: &Step, request: &SwapRequest) -> bool {
        let to = matches!(&step.action, Action::Swap { to, .. } if *to == request.to);
        let last = self.journal.iter().rev().find(|entry| entry.step == Some(step.id));
        to && last.is_some_and(|entry| entry.phase == Phase::Intend)
    }

    /// The way back was written, for this node or for all, and leads to this program.
    fn takes_back(&self, step: &Step, program: &Digest) -> bool {
        let from = matches!(&step.action, Action::Swap { from, .. } if from.release.program == *program);
        let back = |entry: &Entry| {
            matches!(entry.phase, Phase::Back { .. })
                && entry.node.as_ref().is_none_or(|node| Some(node) == step.node.as_ref())
        };
        from && self.journal.iter().any(back)
    }

    /// Coordinators that wrote here after others.
    pub fn takeovers(&self) -> u32 {
        let changes = self.journal.windows(2).filter(|pair| pair[0].token < pair[1].token).count();
        u32::try_from(changes).unwrap_or(u32::MAX)
    }

    /// Whether the journal read from its lines, cut anywhere, says the same as the entries do.
    pub fn replays(&self, run: &str) -> Result<(), String> {
        let mut text = String::new();
        let mut journal = keeper::Journal::new(run, self.plan.to);
        for entry in &self.journal {
            journal.accept(entry.clone()).map_err(|error| error.to_string())?;
            text.push_str(&entry.line());
            let read = keeper::Journal::parse(run, self.plan.to, &text).map_err(|error| error.to_string())?;
            if Standing::of(&self.plan, &read) != Standing::of(&self.plan, &journal) {
                return Err(format!("entry {} stands for something else when it is read", entry.sequence));
            }
        }
        Ok(())
    }

    pub fn text(&self) -> String {
        self.journal.iter().map(Entry::line).collect()
    }
}
