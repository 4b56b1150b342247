//! Making room: which less important pods would have to go so that this one fits, and where that costs least.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{LabelSelector, Snapshot};
use base::SmolStr;
use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::filter::Placement;
use crate::message::{Refusal, summary};
use crate::row::{NodeRow, PodRow};
use crate::rules::selector;

/// Nodes tried by one preemption.
const CANDIDATES_MAX: usize = 100;

#[derive(Debug)]
pub struct Choice {
    pub node: SmolStr,
    pub victims: Vec<Arc<PodRow>>,
    violations: usize,
}

struct Budget {
    namespace: SmolStr,
    selector: LabelSelector,
    allowed: i64,
}

/// The node where least is lost, or in upstream's words why nowhere.
///
/// # Errors
/// The words that follow `preemption: `.
pub fn choose(
    placement: &Placement<'_>,
    snapshot: &Snapshot,
    refusals: &BTreeMap<SmolStr, Refusal>,
) -> Result<Choice, String> {
    let pod = placement.pod;
    let nodes = placement.cache.nodes.len();
    if !pod.preempts {
        return Err("not eligible due to preemptionPolicy=Never.".to_owned());
    }
    // Victims of an earlier choice are still leaving: choosing again would evict more than needed.
    if let Some(node) = placement.cache.nodes.get(&pod.nominated)
        && !refusals.get(&pod.nominated).is_some_and(|refusal| refusal.final_)
        && node.pods.values().any(|other| other.terminating && other.priority < pod.priority)
    {
        return Err("not eligible due to a terminating pod on the nominated node.".to_owned());
    }
    let budgets = budgets(snapshot);
    let mut why: BTreeMap<SmolStr, Refusal> = BTreeMap::new();
    let mut choices: Vec<Choice> = vec![];
    for (name, refusal) in refusals {
        let node = placement.cache.nodes.get(name).filter(|_| !refusal.final_ && choices.len() < CANDIDATES_MAX);
        let Some(node) = node else {
            why.insert(name.clone(), Refusal::lasting("Preemption is not helpful for scheduling"));
            continue;
        };
        match victims(placement, node, &budgets) {
            Ok(choice) => choices.push(choice),
            Err(refusal) => {
                why.insert(name.clone(), refusal);
            }
        }
    }
    let cheapest = choices.into_iter().min_by(|a, b| cost(a).cmp(&cost(b)));
    cheapest.ok_or_else(|| summary(nodes, why.values()))
}

fn budgets(snapshot: &Snapshot) -> Vec<Budget> {
    let stream = snapshot.of::<PodDisruptionBudget>();
    let one = |object: &Arc<api::Object>| {
        let budget = object.typed::<PodDisruptionBudget>().ok()?;
        Some(Budget {
            namespace: object.key.namespace.clone(),
            selector: selector(budget.spec.as_ref()?.selector.as_ref())?,
            allowed: budget.status.as_ref().and_then(|status| status.disruptions_allowed).map_or(0, i64::from),
        })
    };
    stream.iter().filter_map(one).collect()
}

/// Takes all less important pods off, then puts back as many as fit: those whose budget would break first, then by
/// importance.
fn victims(placement: &Placement<'_>, node: &NodeRow, budgets: &[Budget]) -> Result<Choice, Refusal> {
    let pod = placement.pod;
    let mut lower: Vec<Arc<PodRow>> =
        node.pods.values().filter(|other| other.priority < pod.priority).cloned().collect();
    if lower.is_empty() {
        return Err(Refusal::curable("No preemption victims found for incoming pod"));
    }
    lower.sort_by(|a, b| (b.priority, a.started, &a.key).cmp(&(a.priority, b.started, &b.key)));
    let mut trial = Trial::new(placement, node);
    lower.iter().for_each(|other| trial.take(other));
    trial.check()?;
    let (broken, sound) = split(&lower, budgets);
    let mut choice = Choice { node: node.name.clone(), victims: vec![], violations: 0 };
    for (other, breaks) in broken.iter().map(|pod| (pod, true)).chain(sound.iter().map(|pod| (pod, false))) {
        trial.put(other);
        if trial.check().is_err() {
            trial.take(other);
            choice.violations += usize::from(breaks);
            choice.victims.push(other.clone());
        }
    }
    if choice.victims.is_empty() {
        return Err(Refusal::curable("No preemption victims found for incoming pod"));
    }
    Ok(choice)
}

/// Pods whose eviction would break a budget, and the others.
fn split(pods: &[Arc<PodRow>], budgets: &[Budget]) -> (Vec<Arc<PodRow>>, Vec<Arc<PodRow>>) {
    let mut left: Vec<i64> = budgets.iter().map(|budget| budget.allowed).collect();
    pods.iter().cloned().partition(|pod| {
        let mut breaks = false;
        for (budget, left) in budgets.iter().zip(&mut left) {
            let covers = budget.namespace == pod.key.namespace && !budget.selector.is_empty();
            if covers && budget.selector.matches(&pod.labels) {
                *left -= 1;
                breaks |= *left < 0;
            }
        }
        breaks
    })
}

/// A node as it would be without some of its pods.
struct Trial<'p, 'a> {
    placement: Placement<'a>,
    node: NodeRow,
    original: &'p NodeRow,
}

impl<'p, 'a> Trial<'p, 'a> {
    fn new(placement: &'p Placement<'a>, node: &'p NodeRow) -> Trial<'p, 'a> {
        let filled = placement.with_nominated(node).unwrap_or_else(|| node.clone());
        let own = Placement::new(placement.pod, placement.cache, placement.volumes);
        Trial { placement: own, node: filled, original: node }
    }

    fn take(&mut self, pod: &PodRow) {
        self.node.remove(&pod.uid);
        self.placement.affinity.count(self.placement.cache, self.original, pod, -1);
        self.placement.spread.count(self.original, pod, -1);
    }

    fn put(&mut self, pod: &Arc<PodRow>) {
        self.node.add(pod.clone());
        self.placement.affinity.count(self.placement.cache, self.original, pod, 1);
        self.placement.spread.count(self.original, pod, 1);
    }

    fn check(&self) -> Result<(), Refusal> {
        self.placement.check_as_is(&self.node)
    }
}

/// Fewest broken budgets, least important victims, fewest of them; of equals the one whose best victim is youngest.
fn cost(choice: &Choice) -> (usize, i32, i64, usize, std::cmp::Reverse<Option<Timestamp>>, &SmolStr) {
    let top = choice.victims.iter().map(|pod| pod.priority).max().unwrap_or(i32::MIN);
    let sum = choice.victims.iter().map(|pod| i64::from(pod.priority) - i64::from(i32::MIN)).sum();
    let best = choice.victims.iter().filter(|pod| pod.priority == top);
    let earliest = best.filter_map(|pod| pod.started).min();
    (choice.violations, top, sum, choice.victims.len(), std::cmp::Reverse(earliest), &choice.node)
}
