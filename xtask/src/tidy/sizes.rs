//! Sizes: files and functions stay small; what is over the limit is on a list that only shrinks.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;

use super::source::Source;

/// Lines above which a file needs an entry, its tests included.
const FILE_LINES_MAX: usize = 800;
/// Lines above which a function needs an entry.
const FUNCTION_LINES_MAX: usize = 70;
/// `LINES PATH` or `LINES PATH::FUNCTION` a line, sorted.
const RATCHET: &str = "xtask/ratchet.txt";

pub fn check(sources: &[Source], bless: bool) -> anyhow::Result<Vec<String>> {
    let large = over(sources);
    let listed = read_ratchet()?;
    let mut findings = Vec::new();
    for (what, lines) in &large {
        match listed.get(what) {
            None => findings.push(format!("{what}: {lines} lines; split it")),
            Some(allowed) if lines > allowed => findings.push(format!("{what}: grew from {allowed} to {lines} lines")),
            Some(_) => {}
        }
    }
    let slack = listed.iter().filter(|(what, allowed)| large.get(*what).is_none_or(|lines| lines < allowed));
    let slack: Vec<String> = slack.map(|(what, _)| what.clone()).collect();
    if bless {
        write_ratchet(&listed, &large)?;
    } else if !slack.is_empty() {
        findings.push(format!("{RATCHET} can shrink (run `cargo xtask tidy --bless`): {}", slack.join(", ")));
    }
    Ok(findings)
}

/// Prints medians and shares over the code without its tests.
pub fn figures(sources: &[Source]) {
    let code: Vec<&Source> = sources.iter().filter(|source| !source.is_test_file()).collect();
    let mut files: Vec<usize> = code.iter().map(|source| source.tests_start()).collect();
    files.sort_unstable();
    let functions = code.iter().flat_map(|source| source.functions()).filter(|function| !function.in_tests);
    let mut functions: Vec<usize> = functions.map(|function| function.lines).collect();
    functions.sort_unstable();
    let all: usize = sources.iter().map(|source| source.text.lines().count()).sum();
    let long = functions.iter().filter(|lines| **lines > FUNCTION_LINES_MAX).count();
    println!("files {} median {} p90 {} max {}", files.len(), at(&files, 50), at(&files, 90), at(&files, 100));
    println!(
        "functions {} median {} p90 {} max {} over {FUNCTION_LINES_MAX}: {long}",
        functions.len(),
        at(&functions, 50),
        at(&functions, 90),
        at(&functions, 100)
    );
    println!("lines: code {} all with tests {all}", files.iter().sum::<usize>());
}

fn at(sorted: &[usize], percent: usize) -> usize {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or_default()
}

fn over(sources: &[Source]) -> BTreeMap<String, usize> {
    let mut large = BTreeMap::new();
    for source in sources {
        let path = source.path.display();
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            large.insert(path.to_string(), lines);
        }
        for function in source.functions().into_iter().filter(|function| function.lines > FUNCTION_LINES_MAX) {
            large.insert(format!("{path}::{}", function.name), function.lines);
        }
    }
    large
}

fn read_ratchet() -> anyhow::Result<BTreeMap<String, usize>> {
    if !Path::new(RATCHET).exists() {
        return Ok(BTreeMap::new());
    }
    let text = fs::read_to_string(RATCHET).with_context(|| format!("read {RATCHET}"))?;
    let entries = text.lines().map(|line| {
        let (lines, what) = line.split_once(' ').with_context(|| format!("{RATCHET}: {line:?} is not `LINES WHAT`"))?;
        Ok((what.to_owned(), lines.parse().with_context(|| format!("{RATCHET}: {line:?}"))?))
    });
    entries.collect()
}

/// Keeps listed entries that are still needed, at their smaller size; never adds one.
fn write_ratchet(listed: &BTreeMap<String, usize>, large: &BTreeMap<String, usize>) -> anyhow::Result<()> {
    let kept = listed.iter().filter_map(|(what, allowed)| Some((what, large.get(what)?.min(allowed))));
    let text: String = kept.map(|(what, lines)| format!("{lines} {what}\n")).collect();
    fs::write(RATCHET, text).with_context(|| format!("write {RATCHET}"))
}
