//! The cluster's own records, as ConfigMaps of `kube-system`: how its backups are, which run is open, who decides.

use std::collections::BTreeSet;

use jiff::Timestamp;
use keeper::Phase;
use keeper::wrong::{CLUSTER, Name, RunState, What};
use serde_json::Value;

use super::{Lists, text};
use crate::wire::keeper::records::{Armed, entry_of};

/// Who decides: keys `decides` and `standIn`.
const PEOPLE: &str = "evenkeel-people";
/// How the backups are: a document under this key.
const BACKUP: (&str, &str) = ("evenkeel-backup", "status.json");

pub fn facts(lists: &Lists) -> Vec<(Name, What)> {
    let whats = decider(lists).into_iter().chain(backups(lists)).chain(run(lists)).chain(administrators(lists));
    whats.map(|what| (CLUSTER.into(), what)).collect()
}

fn named<'a>(lists: &'a Lists, name: &str) -> Option<&'a Value> {
    lists.records.items.iter().find(|one| text(one, "/metadata/name") == name)
}

fn document(map: &Value, key: &str) -> Option<Value> {
    serde_json::from_str(map.get("data")?.get(key)?.as_str()?).ok()
}

fn decider(lists: &Lists) -> Option<What> {
    let people = named(lists, PEOPLE)?;
    let (name, stand_in) = (text(people, "/data/decides").to_owned(), text(people, "/data/standIn").to_owned());
    (!name.is_empty()).then_some(What::Decider { name, stand_in })
}

/// People and groups of people who may do everything, the one of the kubeconfig of the servers included. Nothing where
/// that could not be asked.
fn administrators(lists: &Lists) -> Option<What> {
    let all = lists.bindings.items.iter().filter(|one| text(one, "/roleRef/name") == "cluster-admin");
    let subjects = all.flat_map(|one| one["subjects"].as_array().into_iter().flatten());
    let people: BTreeSet<(&str, &str)> = subjects
        .filter(|one| ["User", "Group"].contains(&text(one, "/kind")))
        .map(|one| (text(one, "/kind"), text(one, "/name")))
        .collect();
    (!lists.bindings.items.is_empty())
        .then(|| What::Administrators { people: u32::try_from(people.len()).unwrap_or(u32::MAX) })
}

fn time(tree: &Value, pointer: &str) -> Option<Timestamp> {
    text(tree, pointer).parse().ok()
}

fn backups(lists: &Lists) -> Vec<What> {
    let Some(status) = named(lists, BACKUP.0).and_then(|map| document(map, BACKUP.1)) else { return Vec::new() };
    let targets = status["targets"].as_array().into_iter().flatten();
    let failed = targets.clone().find(|target| target["error"].is_string()).or_else(|| targets.clone().next());
    let target = failed.map(|target| text(target, "/name").to_owned()).unwrap_or_default();
    let of_target = failed.map(|target| text(target, "/error").to_owned()).filter(|error| !error.is_empty());
    let backup = What::Backup {
        last_good: time(&status, "/lastBundle/at"),
        overdue: time(&status, "/overdueAfter"),
        // Of a backup that was not made no target is to blame.
        target: if of_target.is_some() { target } else { String::new() },
        error: of_target.unwrap_or_else(|| text(&status, "/failure").to_owned()),
    };
    let proof = |pointer: &str, ok: bool, why: String| {
        Some(What::RestoreProof { ok, of: time(&status, &format!("{pointer}/at"))?, why })
    };
    let failed = status.pointer("/lastProof/failed").and_then(Value::as_array).into_iter().flatten();
    let failed: Vec<&str> = failed.filter_map(Value::as_str).collect();
    let passed = status.pointer("/lastProof/passed").and_then(Value::as_bool).unwrap_or(true);
    let last = proof("/lastProof", passed, failed.join(", "));
    [backup].into_iter().chain(last).chain(proof("/provenBundle", true, String::new())).collect()
}

/// The newest run, unless its journal is closed.
fn run(lists: &Lists) -> Option<What> {
    let records = &lists.records.items;
    let last = records.iter().filter_map(entry_of).max_by_key(|entry| (entry.generation, entry.sequence))?;
    let (state, why) = match last.phase {
        Phase::Finished => return None,
        Phase::Paused { why } => (RunState::Paused, why),
        Phase::Stuck { why } => (RunState::Stuck, why),
        Phase::Failed { why } | Phase::Back { why } => (RunState::Running, why),
        Phase::Armed { .. } | Phase::Intend | Phase::Done | Phase::Skipped | Phase::Undone | Phase::Resumed => {
            (RunState::Running, String::new())
        }
    };
    let armed = records.iter().filter_map(Armed::read).find(|run| run.plan.to == last.generation);
    Some(What::Run {
        verb: "upgrade".to_owned(),
        who: armed.map_or_else(|| "somebody".to_owned(), |run| run.by),
        state,
        node: last.node.map(|node| node.0).unwrap_or_default().as_str().into(),
        last: last.at,
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::facts;
    use crate::wire::facts::cluster::{List, Lists};
    use crate::wire::keeper::records::Armed;
    use crate::wire::keeper::survey::Workloads;
    use jiff::Timestamp;
    use keeper::wrong::{RunState, What};
    use keeper::{Digest, Entry, NodeName, Phase, Plan, Token};
    use serde_json::{Value, json};

    fn found(items: Vec<Value>) -> Vec<What> {
        let lists = Lists { records: List { items, ..List::default() }, ..Lists::default() };
        facts(&lists).into_iter().map(|(_, what)| what).collect()
    }

    #[test]
    fn backups_say_what_failed_last() {
        let status = json!({
            "lastBundle": {"at": "2026-01-01T00:00:00Z"}, "overdueAfter": "2026-01-01T12:00:00Z",
            "targets": [{"name": "disk"}, {"name": "nas", "error": "403"}],
            "lastProof": {"at": "2026-01-01T00:00:00Z", "passed": false, "failed": ["counts"]},
        });
        let map = json!({"metadata": {"name": "evenkeel-backup"}, "data": {"status.json": status.to_string()}});
        let found = found(vec![map]);
        assert!(
            matches!(&found[0], What::Backup { target, error, .. } if target == "nas" && error == "403"),
            "{found:?}"
        );
        assert!(matches!(&found[1], What::RestoreProof { ok: false, why, .. } if why == "counts"));
    }

    #[test]
    fn a_run_is_open_until_its_journal_is_closed() {
        let entry = |sequence: u64, phase: Phase| {
            let node = Some(NodeName("b".into()));
            let (generation, previous) = (7, Digest::of_bytes(b""));
            let (run, actor, token, at) = ("run-7".into(), "a".into(), Token(1), Timestamp::UNIX_EPOCH);
            let entry = Entry { run, sequence, generation, step: None, node, phase, actor, token, at, previous };
            let labels = json!({"evenkeel.dev/keeper": "entry"});
            json!({"metadata": {"labels": labels}, "data": {"record": entry.line()}})
        };
        let before = Workloads::default();
        let plan = Plan { from: 6, to: 7, steps: Vec::new() };
        let (at, waived, now) = (Timestamp::UNIX_EPOCH, Vec::new(), None);
        let armed = Armed { plan, by: "anna".into(), at, before, waived, now };
        let armed = json!({"metadata": {}, "data": {"record": "{}", "run": json!(armed).to_string()}});
        let red = || "red".to_owned();
        let stuck = || entry(10, Phase::Stuck { why: red() });
        let open = found(vec![armed, stuck(), entry(9, Phase::Failed { why: red() })]);
        let is_told =
            matches!(&open[..], [What::Run { state: RunState::Stuck, why, who, .. }] if why == "red" && who == "anna");
        assert!(is_told, "{open:?}");
        assert!(found(vec![stuck(), entry(11, Phase::Finished)]).is_empty());
    }

    #[test]
    fn administrators_are_counted_once_each() {
        let binding = |name: &str, subject: Value| json!({"metadata": {"name": name}, "roleRef": {"name": "cluster-admin"}, "subjects": [subject]});
        let own = binding("cluster-admin", json!({"kind": "Group", "name": "system:masters"}));
        let anna = |name| binding(name, json!({"kind": "User", "name": "anna"}));
        let robot = binding("robot", json!({"kind": "ServiceAccount", "name": "r", "namespace": "x"}));
        let count = |items: Vec<Value>| {
            let lists = Lists { bindings: List { items, ..List::default() }, ..Lists::default() };
            facts(&lists).into_iter().find_map(|(_, what)| match what {
                What::Administrators { people } => Some(people),
                _ => None,
            })
        };
        assert_eq!(count(vec![own.clone(), robot]), Some(1));
        assert_eq!(count(vec![own, anna("a"), anna("b")]), Some(2));
        assert_eq!(count(Vec::new()), None);
    }

    #[test]
    fn who_decides_is_named() {
        let map = json!({"metadata": {"name": "evenkeel-people"}, "data": {"decides": "anna", "standIn": "ben"}});
        assert!(matches!(&found(vec![map])[..], [What::Decider { name, .. }] if name == "anna"));
    }
}
