//! The runs that the matrix goes through: one for each goal at least, and where it matters from more than one beginning.

use jiff::Timestamp;
use keeper::{
    Action, Declaration, Declared, Digest, Generation, Goal, Inventory, NodeName, NodeTarget, Observed, Pace, Plan,
    Release, Role, Runs, Settings,
};

pub const NODES: [&str; 3] = ["a", "b", "c"];
const OLD: &str = "0.1.0";
const NEW: &str = "0.2.0";
/// The same programs, with a setting.
const OLD_SET: &str = "0.1.0 repair";
const NEW_SET: &str = "0.2.0 repair";

/// One run: from where, and to where.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    pub from: Generation,
    pub to: Generation,
    /// What the nodes run before it.
    pub running: [&'static str; 3],
}

pub fn release(version: &str) -> Release {
    Release { version: version.into(), program: Digest::of_bytes(version.as_bytes()) }
}

/// A version, and behind it what the node is told of drift, if anything.
pub fn runs(text: &str) -> Runs {
    let (version, policy) = text.split_once(' ').map_or((text, None), |(version, policy)| (version, Some(policy)));
    let settings = policy.map(|policy| ("drift-policy".into(), vec![policy.into()])).into_iter().collect();
    Runs { release: release(version), settings: Settings::new(settings).unwrap() }
}

/// As [`runs`] reads it.
pub fn told(runs: &Runs) -> String {
    let words = runs.settings.iter().flat_map(|(_, words)| words.iter().map(|word| word.as_str()));
    std::iter::once(runs.release.version.as_str()).chain(words).collect::<Vec<_>>().join(" ")
}

pub fn name(text: &str) -> NodeName {
    NodeName(text.into())
}

/// Every case of every goal.
pub fn all() -> Vec<Case> {
    let goals = std::iter::successors(Some(Goal::Upgrade { program: release(NEW).program, manifest: None }), next);
    goals.flat_map(|goal| cases(&goal)).collect()
}

/// The upgrade whose last step leaves no way back.
pub fn upgrade_with_new_form() -> Case {
    case("upgrade with a new form", generation(1, OLD, 1), generation(2, NEW, 2), [OLD; 3])
}

/// The goal after this one. A new goal must be given its place here and its cases below.
fn next(goal: &Goal) -> Option<Goal> {
    match goal {
        Goal::Upgrade { .. } => {
            let declared = generation(2, OLD_SET, 1).nodes.into_iter().map(|(name, node)| {
                let settings = node.runs.settings;
                (name, Declared { role: node.role, settings })
            });
            let declared = Declaration { cluster: "lab".into(), nodes: declared.collect() };
            Some(Goal::Apply { declared, program: None, manifest: None })
        }
        Goal::Apply { .. } => Some(Goal::Back),
        Goal::Back => Some(Goal::Finalise),
        Goal::Finalise => None,
    }
}

fn cases(goal: &Goal) -> Vec<Case> {
    match goal {
        Goal::Upgrade { .. } => vec![
            case("upgrade", generation(1, OLD, 1), generation(2, NEW, 1), [OLD; 3]),
            upgrade_with_new_form(),
            // Somebody has brought one node there by hand.
            case("rest of an upgrade", generation(1, OLD, 1), generation(2, NEW, 1), [OLD, NEW, OLD]),
        ],
        Goal::Apply { .. } => vec![
            case("apply", generation(1, OLD, 1), generation(2, OLD_SET, 1), [OLD; 3]),
            case("apply with a program", generation(1, OLD, 1), generation(2, NEW_SET, 1), [OLD; 3]),
            case("rest of an apply", generation(1, OLD_SET, 1), generation(2, NEW_SET, 1), [OLD, OLD_SET, NEW_SET]),
            case("apply that takes settings away", generation(1, OLD_SET, 1), generation(2, OLD, 1), [OLD_SET; 3]),
        ],
        Goal::Back => vec![
            case("back", generation(2, NEW, 1), generation(3, OLD, 1), [NEW; 3]),
            case("back to other settings", generation(2, OLD_SET, 1), generation(3, OLD, 1), [OLD_SET; 3]),
            case("back from half an upgrade", generation(2, NEW, 1), generation(3, OLD, 1), [OLD, NEW, NEW]),
        ],
        Goal::Finalise => vec![case("finalise", generation(2, NEW, 1), generation(3, NEW, 2), [NEW; 3])],
    }
}

fn case(name: &'static str, from: Generation, to: Generation, running: [&'static str; 3]) -> Case {
    let to = Generation { parent: from.digest(), ..to };
    Case { name, from, to, running }
}

fn generation(number: u64, text: &str, level: u32) -> Generation {
    let target = NodeTarget { role: Role::Server, runs: runs(text) };
    let nodes = NODES.map(|node| (name(node), target.clone())).into();
    Generation { cluster: "lab".into(), number, parent: Digest::none(), level, nodes }
}

// === impl Case ===

impl Case {
    pub fn plan(&self) -> Plan {
        Plan::new(&self.from, &self.to, &self.inventory(), Pace::default()).unwrap()
    }

    pub fn target(&self) -> [String; 3] {
        NODES.map(|node| told(&self.to.nodes[&name(node)].runs))
    }

    /// How often each node is swapped when nothing goes wrong.
    pub fn swaps(&self) -> Vec<u32> {
        self.running.iter().zip(self.target()).map(|(running, target)| u32::from(*running != target)).collect()
    }

    pub fn is_final(&self, step: keeper::StepId) -> bool {
        self.plan().step(step).is_some_and(|step| matches!(step.action, Action::Finalise { .. }))
    }

    fn inventory(&self) -> Inventory {
        let seen = |(node, text): (&str, &str)| {
            let (role, delicate) = (Role::Server, node == "a");
            (name(node), Observed { role, runs: runs(text), ready: true, delicate, at: Timestamp::UNIX_EPOCH })
        };
        Inventory { nodes: NODES.into_iter().zip(self.running).map(seen).collect() }
    }
}
