//! `evenkeel status`: one screen. What runs, and the first of what is wrong.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use base::Clock;
use keeper::wrong::{Answer, Answers, Fact, Facts, State, What, answer};
use serde_json::{Value, json};

use super::args::AskArgs;
use super::output::table;
use super::rotate;
use super::wrong::{exit, look};
use crate::layout::Layout;
use crate::pki::{Phase, Succession};
use crate::wire::facts::NO_ANSWER;
use crate::wire::{SystemClock, names, pid};

/// What was found, ready to print.
#[derive(Debug)]
struct Report {
    process: Option<u32>,
    /// The process of names, where this machine serves them.
    names: Option<Option<u32>>,
    api: String,
    /// How far new authorities are, where some are on their way.
    authorities: Option<Phase>,
    nodes: Vec<Vec<String>>,
    /// Of the applications, those that have all their copies.
    apps: (usize, usize),
    /// Containers that run on this machine; they do so with the program down as well.
    containers: Option<u32>,
    /// Ways from here that are not as they should be.
    paths: Vec<String>,
    answer: Answer,
}

pub async fn run(args: AskArgs) -> Result<ExitCode> {
    let layout = args.common.layout();
    let facts = look(&layout, &args.common.config, args.kubeconfig.as_deref()).await?;
    let report = Report::new(&layout, &facts);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report.tree())?);
    } else {
        print!("{}", report.text());
    }
    Ok(exit(&report.answer))
}

// === impl Report ===

impl Report {
    fn new(layout: &Layout, facts: &Facts) -> Report {
        let own = facts.own().filter(|fact| fact.about == facts.from);
        let containers = own.filter_map(|fact| match fact.what {
            What::Containers { running } => Some(running),
            _ => None,
        });
        let apps = facts.facts.iter().filter_map(|fact| match fact.what {
            What::Workload { wanted, ready, .. } => Some(wanted <= ready),
            _ => None,
        });
        let apps: Vec<bool> = apps.collect();
        Report {
            process: pid::running(layout),
            names: names::serving(layout),
            api: api(facts),
            authorities: Succession::noted(&layout.server_tls()).ok().flatten().map(|open| open.phase),
            nodes: facts.facts.iter().filter_map(|fact| node(&fact.about, &fact.what)).collect(),
            apps: (apps.iter().filter(|well| **well).count(), apps.len()),
            containers: containers.last(),
            paths: facts.facts.iter().filter(|fact| fact.by == facts.from).filter_map(path).collect(),
            answer: answer(facts, SystemClock.now()),
        }
    }

    fn text(&self) -> String {
        let mut out = format!("{}\n", self.answer.head());
        let process = self.process.map_or("not on this machine".to_owned(), |pid| format!("process {pid}"));
        let _ = writeln!(out, "evenkeel   {process}");
        let names = match self.names {
            Some(Some(pid)) => format!("process {pid}"),
            Some(None) => "not running".to_owned(),
            None => "not on this machine".to_owned(),
        };
        let _ = writeln!(out, "names      {names}\nAPI        {}", self.api);
        if let Some(phase) = self.authorities {
            let _ = writeln!(out, "new CAs    {}; see: evenkeel certificate rotate-ca status", rotate::sentence(phase));
        }
        // What only the API could tell is not shown as nothing.
        if !self.nodes.is_empty() {
            let _ = writeln!(out, "apps       {} of {} well", self.apps.0, self.apps.1);
        }
        let running = self.containers.map_or("no runtime answers".to_owned(), |count| format!("{count} run here"));
        let _ = writeln!(out, "containers {running}");
        for path in &self.paths {
            let _ = writeln!(out, "paths      {path}");
        }
        if !self.nodes.is_empty() {
            let _ = write!(out, "\n{}", table(&["NODE", "STATE", "VERSION"], &self.nodes));
        }
        let _ = writeln!(out, "\n{}", self.answer.verdict());
        let Some(cause) = &self.answer.cause else { return out };
        let _ = writeln!(out, "{}", cause.command_line());
        let more = self.answer.others.len();
        let others = if more == 0 { String::new() } else { format!(" {more} more findings.") };
        let _ = writeln!(out, "{others} evenkeel wrong tells more.");
        out
    }

    fn tree(&self) -> Value {
        json!({
            "cluster": self.answer.cluster, "margin": self.answer.margin, "process": self.process,
            "names": self.names.flatten(), "api": self.api, "authorities": self.authorities, "nodes": self.nodes,
            "apps": {"well": self.apps.0, "all": self.apps.1}, "containers": self.containers, "paths": self.paths,
            "wrong": self.answer,
        })
    }
}

/// How the API that was asked answered; on a machine that only joined, nobody is asked.
fn api(facts: &Facts) -> String {
    let found = facts.facts.iter().find_map(|fact| match &fact.what {
        What::Api { ready, why, .. } => Some((*ready, why.clone())),
        _ => None,
    });
    match found {
        Some((true, _)) => "ready".to_owned(),
        Some((false, why)) if why.starts_with(NO_ANSWER) => why,
        Some((false, why)) => format!("answers, not ready: {why}"),
        None => "on a server: ask there".to_owned(),
    }
}

fn path(fact: &Fact) -> Option<String> {
    let silent = |door: &Option<Answers>| door.is_none_or(|answers| answers == Answers::Silent);
    match &fact.what {
        What::Reach { api, agent } if silent(api) && silent(agent) => Some(format!("no way to {}", fact.about)),
        What::Network { unrouted, .. } if !unrouted.is_empty() => {
            Some(format!("no way to the pods of {}", unrouted.join(", ")))
        }
        What::PathMtu { wanted, works } if works < wanted => {
            Some(format!("of {wanted} bytes {works} reach {}; larger packets vanish", fact.about))
        }
        What::Loss { sent, lost } if 0 < *lost => Some(format!("{lost} of {sent} echoes of {} are lost", fact.about)),
        _ => None,
    }
}

fn node(name: &str, what: &What) -> Option<Vec<String>> {
    let What::Node { state, version, cordoned, .. } = what else { return None };
    let state = match state {
        State::Ready => "Ready",
        State::NotReady => "NotReady",
        State::Silent => "Silent",
    };
    let cordoned = if *cordoned { ",SchedulingDisabled" } else { "" };
    Some(vec![name.to_owned(), format!("{state}{cordoned}"), version.clone()])
}

#[cfg(test)]
mod tests {
    use super::Report;
    use crate::layout::Layout;
    use jiff::Timestamp;
    use keeper::wrong::{API, Answers, Fact, Facts, Role, State, What};

    #[test]
    fn a_node_that_does_not_report_is_on_the_screen_with_what_to_do() {
        let what = What::Node {
            role: Role::Agent,
            state: State::Silent,
            since: None,
            why: "its reports stopped".to_owned(),
            version: "v1".to_owned(),
            cordoned: true,
            pressures: Vec::new(),
        };
        let fact = Fact { by: API.into(), about: "a".into(), at: Timestamp::UNIX_EPOCH, what };
        let reach = What::Reach { api: None, agent: Some(Answers::Silent) };
        let reach = Fact { by: "b".into(), about: "a".into(), at: Timestamp::UNIX_EPOCH, what: reach };
        let facts = Facts { cluster: "c".into(), from: "b".into(), facts: vec![fact, reach], ..Facts::default() };
        let text = Report::new(&Layout::new("/nowhere"), &facts).text();
        for part in [
            "Cluster c, seen from b.",
            "Silent,SchedulingDisabled",
            "no way to a",
            "a does not answer at all",
            "Do now",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
