//! What the keeper says, as text.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use keeper::{Action, Entry, Phase, Plan, Release, Runs, Seconds, Standing, StepId};

use crate::wire::keeper::api::{Head, Shown, Status};

/// Which cluster, and what it can bear.
pub fn head(head: &Head) -> String {
    let bears = match (head.servers, head.margin) {
        (1, _) => "one server: while it starts again the API does not answer".to_owned(),
        (_, ..0) => "changes have stopped".to_owned(),
        (_, 0) => "if another server stops, changes stop".to_owned(),
        (_, margin) => format!("{margin} more may stop"),
    };
    let nodes = if head.nodes == 1 { "1 node".to_owned() } else { format!("{} nodes", head.nodes) };
    format!("cluster {}, {nodes}; margin {} ({bears})", head.cluster, head.margin.max(0))
}

pub fn plan(shown: &Shown) -> String {
    let mut out = format!("{}\n", head(&shown.head));
    let (from, to) = (shown.plan.from, shown.plan.to);
    if shown.plan.steps.is_empty() {
        let _ = writeln!(out, "All nodes are that already: there is nothing to do.");
        return out;
    }
    let what = shown.about.as_ref().map(|about| format!(", {} (Kubernetes {})", about.version, about.kubernetes));
    let _ = writeln!(out, "generation {from} -> {to}{}; plan {}", what.unwrap_or_default(), shown.name.short());
    for step in &shown.plan.steps {
        let node = step.node.as_ref().map(|node| node.0.as_str()).unwrap_or_default();
        let _ = writeln!(out, "{:>4}  {:<16} {}", step.id.0 + 1, node, action(&step.action));
    }
    let Seconds { p50, p95 } = shown.forecast.whole;
    let source = match shown.forecast.runs {
        0 => "measured elsewhere; this cluster has no history yet".to_owned(),
        runs => format!("from {runs} earlier runs here"),
    };
    let _ = writeln!(
        out,
        "takes {} as a rule, {} at worst ({source}); of that {} is watching",
        span(p50),
        span(p95),
        span(shown.forecast.bake_seconds)
    );
    let last = shown.plan.steps.iter().find(|step| step.action.is_final());
    let _ = match last {
        Some(step) => {
            writeln!(out, "way back: `evenkeel back` until step {} begins; after it only a restore", step.id.0 + 1)
        }
        None => writeln!(out, "way back: `evenkeel back`, at any time; nothing that is stored changes its form"),
    };
    if let Some(signer) = &shown.signer {
        let _ = writeln!(out, "signed by {signer}");
    }
    for finding in &shown.findings {
        let word = if finding.blocks { "BLOCKS" } else { "note" };
        let _ = writeln!(out, "{word:<7}{}: {}", finding.code, finding.sentence);
    }
    out
}

pub fn status(status: &Status) -> String {
    let mut out = format!("{}\n", head(&status.head));
    if let Some(generation) = &status.generation {
        let _ = writeln!(out, "generation {}; format {}", generation.number, status.level);
    }
    for (name, node) in &status.nodes {
        let ready = if node.ready { "ready" } else { "NOT READY" };
        let says = match (&node.report, &node.silent) {
            (Some(report), _) => {
                let trial = if report.trial.is_some() { ", on trial" } else { "" };
                format!("{}{trial}", runs(&report.running))
            }
            (None, why) => format!("says nothing: {}", why.as_deref().unwrap_or_default()),
        };
        let _ = writeln!(out, "  {name:<16} {ready:<10} {says}");
    }
    let _ = writeln!(out, "{}", standing(status));
    out
}

/// How the newest run stands, and what can be done.
pub fn standing(status: &Status) -> String {
    let Some(run) = &status.run else { return "there was no run yet".to_owned() };
    let name = &run.name;
    match &run.standing {
        Standing::Running { step, pausing } => running(status, *step, *pausing),
        Standing::Paused => format!("{name} is paused, no node is half done; evenkeel resume, or evenkeel back"),
        Standing::Returning { why } => format!("{name} goes back: {why}"),
        Standing::Stuck { why } => format!(
            "{name} needs a decision: {why}\nNothing happens by itself. evenkeel resume tries again; evenkeel back undoes \
             what was done."
        ),
        Standing::Returned => format!("{name} went back: every node runs what it ran before"),
        Standing::Finished => match &status.no_way_back {
            None => format!("{name} is finished; evenkeel back undoes it"),
            Some(why) => format!("{name} is finished; no way back: {why}"),
        },
    }
}

/// Who is at what.
fn running(status: &Status, step: Option<StepId>, pausing: bool) -> String {
    let Some(run) = &status.run else { return String::new() };
    if let Some(waits) = &status.waits {
        return format!("{} waits: {waits}; nothing is half done", run.name);
    }
    let by = status.coordinator.as_ref().map(|name| format!("{name} drives it")).unwrap_or("nobody drives it".into());
    let at = step.and_then(|step| run.armed.plan.step(step)).map(|step| {
        let node = step.node.as_ref().map(|node| format!("{}: ", node.0)).unwrap_or_default();
        format!("; step {} of {}: {node}{}", step.id.0 + 1, run.armed.plan.steps.len(), action(&step.action))
    });
    let until = if pausing { "; pauses once this node is done" } else { "" };
    format!("{} is on its way, {by}{}{until}; see: evenkeel watch", run.name, at.unwrap_or_default())
}

pub fn journal(text: &str) -> Result<String> {
    let lines = text.lines().map(|line| {
        let parsed: Entry = serde_json::from_str(line).context("read an entry")?;
        Ok(entry(&parsed, None) + "\n")
    });
    lines.collect()
}

/// One entry, with what its step does where the plan is known.
pub fn entry(entry: &Entry, plan: Option<&Plan>) -> String {
    let time = entry.at.strftime("%Y-%m-%d %H:%M:%S");
    let node = entry.node.as_ref().map(|node| node.0.as_str()).unwrap_or_default();
    let step = entry.step.map(|step| match plan.and_then(|plan| plan.step(step)) {
        Some(step) => action(&step.action),
        None => format!("step {}", step.0 + 1),
    });
    let what = match &entry.phase {
        Phase::Armed { plan } => format!("armed plan {}", plan.short()),
        Phase::Intend => "begins".to_owned(),
        Phase::Done => "done".to_owned(),
        Phase::Skipped => "is there already".to_owned(),
        Phase::Failed { why } => format!("FAILED: {why}"),
        Phase::Undone => "undone".to_owned(),
        Phase::Paused { why } => format!("paused: {why}"),
        Phase::Resumed => "resumed".to_owned(),
        Phase::Back { why } => format!("goes back: {why}"),
        Phase::Finished => "finished".to_owned(),
        Phase::Stuck { why } => format!("NEEDS A PERSON: {why}"),
    };
    let step = step.map(|step| format!("{step}: ")).unwrap_or_default();
    format!("{time}  {:>4}  {node:<16} {step}{what}  [{}]", entry.sequence, entry.actor)
}

fn action(action: &Action) -> String {
    match action {
        Action::Stage { release: to } => format!("bring {} there, whole", release(to)),
        Action::Backup => "back the cluster up".to_owned(),
        Action::HoldCheck => "check that it may be touched".to_owned(),
        Action::Rehearse { .. } => "try whether it would start with its settings".to_owned(),
        Action::Swap { from, to } => swap(from, to),
        Action::VerifyPlatform => "verify the node".to_owned(),
        Action::VerifyWorkload => "verify the workloads".to_owned(),
        Action::Bake { seconds } => format!("watch for {}", span(u64::from(*seconds))),
        Action::Finalise { level } => format!("store in format {level}: no way back after this"),
    }
}

fn swap(from: &Runs, to: &Runs) -> String {
    let changes = from.settings.changes(&to.settings).join("; ");
    match (from.release == to.release, changes.is_empty()) {
        (true, _) => format!("start it anew with {changes}"),
        (false, true) => format!("replace {} by {}", release(&from.release), release(&to.release)),
        (false, false) => {
            format!("replace {} by {}, with {changes}", release(&from.release), release(&to.release))
        }
    }
}

fn runs(runs: &Runs) -> String {
    let Runs { release: program, settings } = runs;
    let settings = match settings.iter().count() {
        0 => String::new(),
        1 => ", 1 setting of the cluster file".to_owned(),
        count => format!(", {count} settings of the cluster file"),
    };
    format!("{}{settings}", release(program))
}

fn release(release: &Release) -> String {
    format!("{} ({})", release.version, release.program.short())
}

fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        _ => format!("{} min", seconds.div_ceil(60)),
    }
}
