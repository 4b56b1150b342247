//! The fuzzing lane: coverage-guided search for inputs that make a decoder panic, in our own process, for a while.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::host;
use crate::process::{cargo, succeed};

/// What a coverage-guided fuzzer needs the compiler to add.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions";
/// Largest input tried, in bytes.
const INPUT_BYTES_MAX: u32 = 4096;

/// Fuzzes the named targets (all without names), `seconds` each. A finding is left in the corpus and fails the lane.
pub fn fuzz(targets: &[String], seconds: u32) -> anyhow::Result<()> {
    host::require(&["g++"])?;
    let known = corpora()?;
    if let Some(unknown) = targets.iter().find(|target| !known.contains(target)) {
        bail!("no target {unknown:?}; targets are {}", known.join(", "));
    }
    let mut build = Command::new(cargo());
    build.args(["build", "--locked", "--release", "--package", "fuzz", "--features", "drive", "--bin", "drive"]);
    // A build folder of its own: the flags would rebuild everything else.
    build.args(["--target-dir", "target/fuzz", "--target", &triple()?]).env("RUSTFLAGS", FLAGS);
    succeed(&mut build)?;
    let binary = format!("target/fuzz/{}/release/drive", triple()?);
    for target in known.iter().filter(|name| targets.is_empty() || targets.contains(name)) {
        eprintln!("fuzzing {target} for {seconds} s");
        let found = format!("target/fuzz/corpus/{target}");
        fs::create_dir_all(&found).with_context(|| format!("create {found}"))?;
        let seeds = format!("fuzz/corpus/{target}");
        let mut drive = Command::new(&binary);
        drive.env("FUZZ_TARGET", target).args([&found, &seeds]);
        drive.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={INPUT_BYTES_MAX}"));
        drive.arg(format!("-artifact_prefix={seeds}/")).args([
            "-timeout=10",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
        ]);
        succeed(&mut drive)?;
    }
    Ok(())
}

fn corpora() -> anyhow::Result<Vec<String>> {
    let folder = Path::new("fuzz/corpus");
    let entries = fs::read_dir(folder).context("read fuzz/corpus")?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// The compiler's own target: named, so that build scripts are built without the fuzzer's flags.
fn triple() -> anyhow::Result<String> {
    let text = crate::process::output("rustc", &["-vV"])?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}
