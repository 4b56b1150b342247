//! The test lanes: what CI runs, in order, each with its minutes.
//!
//! The whole must end within [`TOTAL_MINUTES_MAX`] on two cores; the run fails when it does not.

use std::time::{Duration, Instant};

use anyhow::bail;

use crate::process::{cargo, run};
use crate::{host, images, tidy, tools};

/// Minutes that all lanes may take together.
const TOTAL_MINUTES_MAX: u64 = 45;

struct Lane {
    name: &'static str,
    budget_minutes: u64,
    run: fn() -> anyhow::Result<()>,
}

/// In the order they run: cheap and general first.
const LANES: [Lane; 6] = [
    Lane { name: "tidy", budget_minutes: 1, run: || tidy::run(false) },
    Lane { name: "tools", budget_minutes: 4, run: tools },
    Lane { name: "build", budget_minutes: 9, run: build },
    Lane { name: "unit", budget_minutes: 6, run: unit },
    Lane { name: "e2e", budget_minutes: 15, run: || system_test("e2e") },
    Lane { name: "faults", budget_minutes: 5, run: || system_test("faults") },
];

/// The fast lane for a working copy that has been built before.
pub fn check() -> anyhow::Result<()> {
    tidy::run(false)?;
    run(&cargo(), &["fmt", "--all", "--check"])?;
    run(&cargo(), &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

/// Runs the named lanes, or all of them, and prints the minutes of each.
pub fn test(names: &[String]) -> anyhow::Result<()> {
    if let Some(unknown) = names.iter().find(|name| !LANES.iter().any(|lane| lane.name == name.as_str())) {
        let known: Vec<&str> = LANES.iter().map(|lane| lane.name).collect();
        bail!("no lane {unknown:?}; lanes are {}", known.join(", "));
    }
    let chosen = LANES.iter().filter(|lane| names.is_empty() || names.iter().any(|name| name == lane.name));
    let mut report = Vec::new();
    let start = Instant::now();
    for lane in chosen {
        println!("=== lane {}", lane.name);
        let lane_start = Instant::now();
        let outcome = (lane.run)();
        report.push((lane, lane_start.elapsed()));
        if let Err(error) = outcome {
            print(&report, start.elapsed());
            return Err(error.context(format!("lane {}", lane.name)));
        }
    }
    print(&report, start.elapsed());
    if start.elapsed() > Duration::from_secs(TOTAL_MINUTES_MAX * 60) {
        bail!("the lanes took more than {TOTAL_MINUTES_MAX} minutes");
    }
    Ok(())
}

fn print(report: &[(&Lane, Duration)], total: Duration) {
    for (lane, took) in report {
        println!("lane {:<10} {:>5.1} min of {}", lane.name, took.as_secs_f64() / 60.0, lane.budget_minutes);
    }
    println!("lanes together {:>5.1} min of {TOTAL_MINUTES_MAX}", total.as_secs_f64() / 60.0);
}

/// Packages, foreign clients and images: what the other lanes run against.
fn tools() -> anyhow::Result<()> {
    host::require(&[&host::NODE_PACKAGES[..], &host::BUILD_PACKAGES, &host::TEST_PACKAGES].concat())?;
    tools::all()?;
    images::build().map(drop)
}

/// One profile for everything, so that nothing is built twice.
fn build() -> anyhow::Result<()> {
    run(&cargo(), &["build", "--locked", "--workspace", "--all-targets"])
}

fn unit() -> anyhow::Result<()> {
    run(&cargo(), &["test", "--locked", "--workspace", "--exclude", "e2e"])
}

/// Lanes over real processes have a runner of their own that counts their cases.
fn system_test(name: &str) -> anyhow::Result<()> {
    run(&cargo(), &["test", "--locked", "--package", "e2e", "--test", name])
}
