//! `evenkeel explain`: where configuration lives, how changes roll out, how nodes come back. One screen, from what is there
//! now; with the API down from this machine's own copy.

mod places;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use base::Clock;
use jiff::Timestamp;
use keeper::wrong::{Facts, Role, What, answer};
use keeper::{Entry, Phase};
use serde::Serialize;

use self::places::Place;
use super::args::AskArgs;
use super::wrong::look;
use crate::layout::Layout;
use crate::pki::Kubeconfig;
use crate::wire::keeper::Journals;
use crate::wire::keeper::records::{Armed, Records};
use crate::wire::{SystemClock, admin};

/// Generations that are shown.
const GENERATIONS_MAX: usize = 3;

#[derive(Debug, Serialize)]
struct Explained {
    head: String,
    places: Vec<Place>,
    /// The newest first.
    generations: Vec<Generation>,
    nodes: BTreeMap<String, String>,
    backups: String,
    /// Why it is this machine's copy that is shown, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    copy: Option<String>,
}

/// A generation: who made it and when, as far as that is known.
#[derive(Debug, Serialize)]
struct Generation {
    number: u64,
    at: Timestamp,
    by: String,
    what: String,
}

pub async fn run(args: AskArgs) -> Result<ExitCode> {
    let layout = args.common.layout();
    let facts = look(&layout, &args.common.config, args.kubeconfig.as_deref()).await?;
    let (generations, copy) = match generations(&args, &layout).await {
        Ok(found) => (found, None),
        Err(error) => (kept(&layout), Some(error.root_cause().to_string())),
    };
    let explained = Explained {
        head: answer(&facts, SystemClock.now()).head(),
        places: places::all(&layout, &args.common.config),
        generations,
        nodes: nodes(&facts),
        backups: layout.backups().display().to_string(),
        copy,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&explained)?);
    } else {
        print!("{}", explained.text());
    }
    Ok(ExitCode::SUCCESS)
}

async fn generations(args: &AskArgs, layout: &Layout) -> Result<Vec<Generation>> {
    let path = args.kubeconfig.clone().unwrap_or_else(|| layout.kubeconfig());
    let records = Records { client: admin::client(&Kubeconfig::load(&path)?)? };
    let mut found: Vec<Generation> = records.runs().await?.iter().map(Generation::of).collect();
    found.reverse();
    found.truncate(GENERATIONS_MAX);
    Ok(found)
}

/// As the journals on this machine's disk have them.
fn kept(layout: &Layout) -> Vec<Generation> {
    let journals = Journals::new(layout);
    let mut runs = journals.runs();
    runs.reverse();
    let read = |run: &String| {
        let text = journals.read(run).ok()?;
        let mut entries = text.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok());
        let first = entries.next()?;
        let done = entries.any(|entry| matches!(entry.phase, Phase::Finished));
        let what = if done { "finished" } else { "not finished, as far as is known here" };
        Some(Generation { number: first.generation, at: first.at, by: first.actor.to_string(), what: what.to_owned() })
    };
    runs.iter().filter_map(read).take(GENERATIONS_MAX).collect()
}

/// How each node comes back on a new machine.
fn nodes(facts: &Facts) -> BTreeMap<String, String> {
    let named = facts.facts.iter().filter_map(|fact| match fact.what {
        What::Node { role, .. } => Some((fact.about.to_string(), role)),
        _ => None,
    });
    let mut found: BTreeMap<String, Role> = named.collect();
    if found.is_empty() {
        let reached = facts.facts.iter().filter(|fact| matches!(fact.what, What::Reach { .. }));
        found.extend(reached.map(|fact| (fact.about.to_string(), Role::Server)));
        found.insert(facts.from.to_string(), Role::Server);
    }
    let servers = found.values().filter(|role| **role == Role::Server).count();
    let way = |(name, role): (String, Role)| {
        let alone = role == Role::Server && servers == 1;
        let command = if alone { "evenkeel restore BUNDLE".to_owned() } else { format!("evenkeel replace {name}") };
        (name, command)
    };
    found.into_iter().map(way).collect()
}

// === impl Generation ===

impl Generation {
    fn of(armed: &Armed) -> Generation {
        let steps = armed.plan.steps.len();
        Generation { number: armed.plan.to, at: armed.at, by: armed.by.clone(), what: format!("{steps} steps") }
    }
}

// === impl Explained ===

impl Explained {
    fn text(&self) -> String {
        let mut out = format!("{}\n\nWhere configuration lives\n", self.head);
        for place in &self.places {
            let _ = writeln!(out, "  {:<18} {}", place.what, place.told());
        }
        out.push_str(
            "\nHow changes roll out\n  settings           `evenkeel apply FILE`, one node after the other; `evenkeel back` undoes it. Of one \
             machine alone: its file, then `systemctl restart evenkeel`; pods go on\n  programs           `evenkeel upgrade --to PATH`, one node after the other; `evenkeel back` \
             undoes it\n  objects            files of the deploy folder within seconds; kubectl at once\n  by hand            \
             `evenkeel drift` tells what nobody declared\n",
        );
        if self.generations.is_empty() {
            out.push_str("  generations        1: as installed; no run yet\n");
        }
        for Generation { number, at, by, what } in &self.generations {
            let at = at.strftime("%Y-%m-%d %H:%M");
            let _ = writeln!(out, "  generation {number:<7} {at} by {by}; {what}");
        }
        out.push_str("\nHow nodes come back, each with one command on a server that is left\n");
        for (node, command) in &self.nodes {
            let _ = writeln!(out, "  {node:<18} {command}");
        }
        let _ = writeln!(
            out,
            "  all servers        evenkeel restore BUNDLE --secret-file KIT on an empty one; bundles are in {}",
            self.backups
        );
        if let Some(why) = &self.copy {
            let _ = writeln!(out, "\nThis is what this machine knows; the cluster's record was not read: {why}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::places::Place;
    use super::{Explained, Generation, nodes};
    use jiff::Timestamp;
    use keeper::wrong::{Fact, Facts, Role, State, What};

    const WHOLE: &str = "\
Cluster ab, seen from a. Margin 1 of 3 servers: one may stop.

Where configuration lives
  this machine       /etc/evenkeel/config.yaml (sha256 1a2b3c4d), commit 0123456789ab
  deploy folder      /var/lib/evenkeel/server/manifests, 2 files

How changes roll out
  settings           `evenkeel apply FILE`, one node after the other; `evenkeel back` undoes it. Of one machine alone: its file, then `systemctl restart evenkeel`; pods go on
  programs           `evenkeel upgrade --to PATH`, one node after the other; `evenkeel back` undoes it
  objects            files of the deploy folder within seconds; kubectl at once
  by hand            `evenkeel drift` tells what nobody declared
  generation 7       1970-01-01 00:00 by anna; 12 steps

How nodes come back, each with one command on a server that is left
  a                  evenkeel replace a
  b                  evenkeel replace b
  all servers        evenkeel restore BUNDLE --secret-file KIT on an empty one; bundles are in /b
";

    fn node(name: &str, role: Role) -> Fact {
        let what = What::Node {
            role,
            state: State::Ready,
            since: None,
            why: String::new(),
            version: String::new(),
            cordoned: false,
            pressures: Vec::new(),
        };
        Fact { by: "api".into(), about: name.into(), at: Timestamp::UNIX_EPOCH, what }
    }

    #[test]
    fn one_screen_names_file_commit_author_and_commands() {
        let facts = Facts { facts: vec![node("a", Role::Server), node("b", Role::Server)], ..Facts::default() };
        let place = |what: &str, path: &str, detail: &str, commit: Option<&str>| Place {
            what: what.to_owned(),
            path: path.to_owned(),
            detail: detail.to_owned(),
            commit: commit.map(str::to_owned),
        };
        let explained = Explained {
            head: "Cluster ab, seen from a. Margin 1 of 3 servers: one may stop.".to_owned(),
            places: vec![
                place("this machine", "/etc/evenkeel/config.yaml", " (sha256 1a2b3c4d)", Some("0123456789ab")),
                place("deploy folder", "/var/lib/evenkeel/server/manifests", ", 2 files", None),
            ],
            generations: vec![Generation {
                number: 7,
                at: Timestamp::UNIX_EPOCH,
                by: "anna".to_owned(),
                what: "12 steps".to_owned(),
            }],
            nodes: nodes(&facts),
            backups: "/b".to_owned(),
            copy: None,
        };
        assert_eq!(explained.text(), WHOLE);
    }

    #[test]
    fn a_single_server_comes_back_by_a_restore() {
        let facts = Facts { facts: vec![node("a", Role::Server), node("b", Role::Agent)], ..Facts::default() };
        let found = nodes(&facts);
        assert_eq!((found["a"].as_str(), found["b"].as_str()), ("evenkeel restore BUNDLE", "evenkeel replace b"));
        let alone = nodes(&Facts { from: "a".into(), ..Facts::default() });
        assert_eq!(alone.len(), 1, "with the API down this machine is known");
    }
}
