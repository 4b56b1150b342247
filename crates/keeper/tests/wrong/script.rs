//! Scripts: the healthy cluster, and what a case changes of it.

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use keeper::wrong::{Fact, Facts, RECORD};
use serde_json::{Value, json};

/// 2026-03-01 12:00:00 UTC.
pub const NOW: Timestamp = Timestamp::constant(1_772_366_400, 0);

/// A parsed case.
pub struct Script {
    /// Its lines before the text, as they are.
    pub head: String,
    pub facts: Facts,
    /// What the case changes, as its lines say it.
    changes: Vec<String>,
    pub wanted: String,
}

impl Script {
    pub fn read(path: &Path) -> Script {
        let text = fs::read_to_string(path).expect("a case is text");
        let (head, wanted) = text.split_once("----\n").unwrap_or((&text, ""));
        let lines = head.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let changes: Vec<String> = lines.map(str::to_owned).collect();
        let mut facts = healthy();
        apply(&mut facts, &changes, path);
        Script { head: head.to_owned(), facts, changes, wanted: wanted.to_owned() }
    }

    /// Both at once: what the first changed stays, the second takes the place of what was well, and who is gone in one of
    /// them says nothing in the other.
    pub fn with(&self, other: &Script) -> Facts {
        let well = healthy();
        let mut facts = self.facts.clone();
        let (untouched, mut changed): (Vec<Fact>, Vec<Fact>) =
            facts.facts.drain(..).partition(|fact| well.facts.contains(fact));
        let mut second = Facts { facts: untouched.clone(), ..facts.clone() };
        apply(&mut second, &other.changes, Path::new("both"));
        let (kept, mut added): (Vec<Fact>, Vec<Fact>) =
            second.facts.drain(..).partition(|fact| untouched.contains(fact));
        drop_lines(&mut changed, &other.changes);
        drop_lines(&mut added, &self.changes);
        facts.missing = second.missing;
        facts.facts = [kept, changed, added].concat();
        facts
    }
}

/// Carries out the `drop` lines only.
fn drop_lines(facts: &mut Vec<Fact>, lines: &[String]) {
    for line in lines {
        if let ["drop", by, about, kind] = line.split(' ').collect::<Vec<_>>()[..] {
            let fits = |want: &str, have: &str| want == "*" || want == have;
            facts.retain(|fact| !(fits(by, &fact.by) && fits(about, &fact.about) && fits(kind, &kind_of(fact))));
        }
    }
}

fn apply(facts: &mut Facts, lines: &[String], path: &Path) {
    for line in lines {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (by, about, kind, fields) = (word(), word(), word(), word());
        if by == "from" {
            facts.from = about.into();
            continue;
        }
        if by == "missing" {
            let what = if about == "record" { RECORD } else { about };
            let missing = json!({"what": what, "why": format!("{kind} {fields}").trim()});
            facts.missing.push(serde_json::from_value(missing).expect("two texts"));
            continue;
        }
        if by == "drop" {
            drop_lines(&mut facts.facts, std::slice::from_ref(line));
            continue;
        }
        let mut value: Value = serde_json::from_str(if fields.is_empty() { "{}" } else { fields })
            .unwrap_or_else(|error| panic!("{}: {line}: {error}", path.display()));
        for (key, text) in [("by", by), ("about", about), ("kind", kind)] {
            value[key] = json!(text);
        }
        if value.get("at").is_none() {
            value["at"] = json!(NOW);
        }
        let fact: Fact =
            serde_json::from_value(value).unwrap_or_else(|error| panic!("{}: {line}: {error}", path.display()));
        let same = |old: &Fact| {
            old.by == fact.by && old.about == fact.about && kind_of(old) == kind && part(old) == part(&fact)
        };
        facts.facts.retain(|old| !same(old));
        facts.facts.push(fact);
    }
}

/// What tells facts of one kind apart: a node has several processes and certificates.
fn part(fact: &Fact) -> Option<Value> {
    let value = serde_json::to_value(fact).expect("facts are plain data");
    ["process", "certificate"].contains(&kind_of(fact).as_str()).then(|| value["name"].clone())
}

fn kind_of(fact: &Fact) -> String {
    let value = serde_json::to_value(fact).expect("facts are plain data");
    value["kind"].as_str().expect("every fact has a kind").to_owned()
}

/// Three servers that are well, and one application.
fn healthy() -> Facts {
    let mut facts = Facts { cluster: "3f9a12".into(), from: "node1".into(), ..Facts::default() };
    let nodes = ["node1", "node2", "node3"];
    let mut lines = vec![
        r#"node1 cluster store {"engine":"etcd"}"#.to_owned(),
        r#"api shop/web workload {"wanted":3,"ready":3}"#.to_owned(),
    ];
    for node in nodes {
        lines.extend([
            format!(r#"api {node} node {{"role":"server","state":"ready","version":"v1.36.0"}}"#),
            format!(r#"{node} {node} api {{"ready":true}}"#),
            format!(r#"{node} {node} diskWrite {{"path":"/var/lib/evenkeel","write":{{"took":{{"millis":4}}}}}}"#),
            format!(r#"{node} {node} containers {{"running":12}}"#),
            format!(r#"{node} {node} link {{"name":"eth0","carrier":true,"changes":0}}"#),
            format!(r#"{node} {node} process {{"name":"evenkeel","alive":true}}"#),
        ]);
        for other in nodes.iter().filter(|other| **other != node) {
            lines.push(format!(r#"{node} {other} reach {{"api":"yes","agent":"yes"}}"#));
            lines
                .push(format!(r#"{node} {other} member {{"voter":true,"healthy":true,"bytes":1000,"quota":1000000}}"#));
        }
    }
    apply(&mut facts, &lines, Path::new("healthy"));
    facts
}
