//! Words: every file says what it is; nothing unfinished, unexplained or foreign stays in the tree.

use std::fs;
use std::path::Path;

use anyhow::Context;

use super::source::Source;
use crate::process;

/// Never in code: unfinished work and debugging aids.
const UNFINISHED: [&str; 6] =
    ["todo!(", "unimplemented!(", "dbg!(", "thread::sleep(", "panic!(\"not implemented", "process::abort("];
/// Never in comments or documents.
const MARKERS: [&str; 4] = ["TODO", "FIXME", "XXX", "HACK"];
/// Generated or downloaded material does not belong into git.
const BLOB_BYTES_MAX: u64 = 512 << 10;

pub fn check(sources: &[Source]) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| !source.path.starts_with("xtask/src/tidy")) {
        findings.extend(module_docs(source));
        findings.extend(words(source));
        findings.extend(reasons(source));
    }
    findings.extend(tracked_files()?);
    findings.extend(decision_index()?);
    Ok(findings)
}

fn module_docs(source: &Source) -> Option<String> {
    let documented =
        source.text.lines().find(|line| !line.trim().is_empty()).is_some_and(|line| line.starts_with("//!"));
    (!documented).then(|| format!("{}: starts without `//!` that says what it is and why", source.path.display()))
}

fn words(source: &Source) -> Vec<String> {
    let path = source.path.display();
    // The test kit's waiting is the one place that lets time pass.
    if source.path.ends_with("tests/src/wait.rs") {
        return Vec::new();
    }
    let code = source.code.lines().enumerate().flat_map(|(at, line)| {
        let found = UNFINISHED.iter().filter(move |word| line.contains(**word));
        found.map(move |word| (at, *word))
    });
    let text = source.text.lines().enumerate().flat_map(|(at, line)| {
        let found = MARKERS.iter().filter(move |word| has_word(line, word));
        found.map(move |word| (at, *word))
    });
    code.chain(text).map(|(at, word)| format!("{path}:{}: {word} does not stay in the tree", at + 1)).collect()
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word)
}

/// `#[allow]` and `#[expect]` say why.
fn reasons(source: &Source) -> Vec<String> {
    let lines: Vec<&str> = source.text.lines().collect();
    let attribute = |line: &str| {
        let line = line.trim_start();
        ["#[allow(", "#![allow(", "#[expect(", "#![expect("].iter().any(|start| line.starts_with(start))
    };
    let silent = (0..lines.len()).filter(|at| attribute(lines[*at])).filter(|at| {
        let end = lines.len().min(at + 6);
        let whole = lines[*at..end].join(" ");
        !whole.split(")]").next().unwrap_or_default().contains("reason")
    });
    silent.map(|at| format!("{}:{}: an exception needs a reason", source.path.display(), at + 1)).collect()
}

/// No shell scripts but CI's entry, no large blobs.
fn tracked_files() -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    for path in process::output("git", &["ls-files"])?.lines() {
        if path.ends_with(".sh") {
            findings.push(format!("{path}: automation is Rust, in xtask"));
        }
        let size = fs::metadata(path).map(|metadata| metadata.len()).unwrap_or_default();
        if size > BLOB_BYTES_MAX {
            findings.push(format!("{path}: {size} bytes; large files stay out of git"));
        }
    }
    Ok(findings)
}

/// Every decision record is in the index, and the index names nothing else.
fn decision_index() -> anyhow::Result<Vec<String>> {
    let folder = Path::new("docs/adr");
    let index = fs::read_to_string(folder.join("README.md")).context("read docs/adr/README.md")?;
    let mut findings = Vec::new();
    for entry in fs::read_dir(folder).context("read docs/adr")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "README.md" && !index.contains(&name) {
            findings.push(format!("docs/adr/README.md: does not list {name}"));
        }
    }
    Ok(findings)
}
