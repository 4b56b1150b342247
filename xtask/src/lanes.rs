//! The test lanes: what CI runs, in order, each with its minutes.
//!
//! The whole must end within [`TOTAL_MINUTES_MAX`] on two cores; the run fails when it does not.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::counts::Counts;
use crate::process::{cargo, output, run};
use crate::{demo, host, images, tidy, tools};

/// The package whose tests are lanes of their own.
const SYSTEM_TESTS: &str = "e2e";
/// Minutes that all lanes may take together.
const TOTAL_MINUTES_MAX: u64 = 45;

struct Lane {
    name: &'static str,
    budget_minutes: u64,
    run: fn(&mut Counts) -> anyhow::Result<()>,
}

/// A lane that ran: how long it took and what it counted, if it counts.
struct Outcome<'a> {
    lane: &'a Lane,
    took: Duration,
    counts: Counts,
}

/// In the order they run: cheap and general first.
const LANES: [Lane; 7] = [
    Lane { name: "tidy", budget_minutes: 1, run: |_| tidy::run(false) },
    Lane { name: "tools", budget_minutes: 6, run: |_| tools() },
    Lane { name: "build", budget_minutes: 9, run: |_| build() },
    Lane { name: "unit", budget_minutes: 6, run: unit },
    Lane { name: "e2e", budget_minutes: 15, run: |counts| end_to_end("--one-server", counts) },
    Lane { name: "racks", budget_minutes: 9, run: |counts| end_to_end("--racks", counts) },
    Lane { name: "faults", budget_minutes: 5, run: |counts| system_test("faults", counts) },
];

/// Lanes that run only when they are named.
const LONG_LANES: [Lane; 4] = [
    Lane { name: "kills", budget_minutes: 10, run: kills },
    Lane { name: "kills3", budget_minutes: 90, run: kills3 },
    Lane { name: "story", budget_minutes: 45, run: |_| demo::prepared("story", &[]) },
    Lane { name: "wrong", budget_minutes: 60, run: |counts| system_test("injected", counts) },
];

/// The fast lane for a working copy that has been built before.
pub fn check() -> anyhow::Result<()> {
    tidy::run(false)?;
    run(&cargo(), &["fmt", "--all", "--check"])?;
    run(&cargo(), &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

/// Runs the named lanes, or all of them, and prints the minutes of each.
pub fn test(names: &[String]) -> anyhow::Result<()> {
    let known = || LANES.iter().chain(&LONG_LANES);
    if let Some(unknown) = names.iter().find(|name| !known().any(|lane| lane.name == name.as_str())) {
        let known: Vec<&str> = known().map(|lane| lane.name).collect();
        bail!("no lane {unknown:?}; lanes are {}", known.join(", "));
    }
    let named = known().filter(|lane| names.iter().any(|name| name == lane.name));
    let chosen: Vec<&Lane> = if names.is_empty() { LANES.iter().collect() } else { named.collect() };
    // Lanes that somebody names may be long.
    let most = if names.is_empty() { TOTAL_MINUTES_MAX } else { chosen.iter().map(|lane| lane.budget_minutes).sum() };
    let mut report = Vec::new();
    let start = Instant::now();
    for lane in chosen {
        println!("=== lane {}", lane.name);
        let lane_start = Instant::now();
        let mut counts = Counts::default();
        let outcome = (lane.run)(&mut counts);
        report.push(Outcome { lane, took: lane_start.elapsed(), counts });
        if let Err(error) = outcome {
            print(&report, start.elapsed(), most);
            return Err(error.context(format!("lane {}", lane.name)));
        }
    }
    print(&report, start.elapsed(), most);
    if names.is_empty() && start.elapsed() > Duration::from_secs(TOTAL_MINUTES_MAX * 60) {
        bail!("the lanes took more than {TOTAL_MINUTES_MAX} minutes");
    }
    Ok(())
}

fn print(report: &[Outcome], total: Duration, most: u64) {
    for Outcome { lane, took, counts } in report {
        let counted = if *counts == Counts::default() { String::new() } else { format!(", {counts}") };
        println!("lane {:<10} {:>5.1} min of {}{counted}", lane.name, took.as_secs_f64() / 60.0, lane.budget_minutes);
    }
    println!("lanes together {:>5.1} min of {most}", total.as_secs_f64() / 60.0);
}

/// Packages, foreign clients and images: what the other lanes run against.
fn tools() -> anyhow::Result<()> {
    let packages = [&host::NODE_PACKAGES[..], &host::BUILD_PACKAGES, &host::RACK_PACKAGES, &host::TEST_PACKAGES];
    host::require(&packages.concat())?;
    tools::all()?;
    images::build().map(drop)
}

/// One profile for everything, so that nothing is built twice.
fn build() -> anyhow::Result<()> {
    run(&cargo(), &["build", "--locked", "--workspace", "--all-targets"])
}

/// Everything but the lanes over real processes, and the kit of those lanes too.
///
/// All packages are named although not all of their tests run: cargo unites features over the packages it is given,
/// and fewer would be built anew.
fn unit(counts: &mut Counts) -> anyhow::Result<()> {
    let targets = test_targets()?;
    let mut arguments = vec!["test", "--locked", "--workspace", "--no-fail-fast", "--lib", "--bins"];
    arguments.extend(targets.iter().flat_map(|target| ["--test", target]));
    counts.run(&cargo(), &arguments)?;
    counts.run(&cargo(), &["test", "--locked", "--workspace", "--doc"])
}

/// The names of the crates' own test programs.
fn test_targets() -> anyhow::Result<Vec<String>> {
    let text = output(&cargo(), &["metadata", "--format-version", "1", "--locked", "--no-deps"])?;
    let metadata: Value = serde_json::from_str(&text).context("read cargo metadata")?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let crates = packages.iter().filter(|package| package["name"] != SYSTEM_TESTS);
    let targets = crates.filter_map(|package| package["targets"].as_array()).flatten();
    let tests =
        targets.filter(|target| target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "test")));
    Ok(tests.filter_map(|target| target["name"].as_str().map(str::to_owned)).collect())
}

/// Lanes over real processes have a runner of their own that counts their cases.
fn system_test(name: &str, counts: &mut Counts) -> anyhow::Result<()> {
    counts.run(&cargo(), &["test", "--locked", "--workspace", "--test", name])
}

/// One of the two parts of the end-to-end program.
fn end_to_end(part: &str, counts: &mut Counts) -> anyhow::Result<()> {
    counts.run(&cargo(), &["test", "--locked", "--workspace", "--test", "e2e", "--", part])
}

/// Any process of three servers, a thousand times; `EVENKEEL_KILLS` says another number.
fn kills3(counts: &mut Counts) -> anyhow::Result<()> {
    let kills = std::env::var("EVENKEEL_KILLS").unwrap_or_else(|_| "1000".to_owned());
    let (cargo, kills) = (cargo(), format!("EVENKEEL_KILLS={kills}"));
    let case = ["test", "--locked", "--workspace", "--test", "faults", "--", "killed_rack"];
    counts.run("env", &[[kills.as_str(), &cargo].as_slice(), &case].concat())
}

/// The crash test with five times the kills of CI.
fn kills(counts: &mut Counts) -> anyhow::Result<()> {
    let cargo = cargo();
    let case = ["test", "--locked", "--workspace", "--test", "faults", "--", "killed_server"];
    counts.run("env", &[["EVENKEEL_KILLS=50", &cargo].as_slice(), &case].concat())
}
