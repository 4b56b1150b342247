//! The golden lines: what each look answered, with everything that differs between runs taken out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

const HEAD: &str = "# What `evenkeel wrong` answers to each injected fault: the case, where it was asked, the code, the risk, the\n\
                    # command, the sentence; of what is told beside a cause the class and the sentence. Numbers are #, spans #T.\n\
                    # EVENKEEL_BLESS=1 writes this file.\n";

const CLUSTER_DIGITS: usize = 8;
const VOLUME: &str = "pvc-";
const UID_LETTERS: usize = 36;

/// Lines by case and place.
pub struct Golden(BTreeMap<String, String>);

/// What stands for something that differs.
#[derive(Default)]
pub struct Names(Vec<(String, String)>);

// === impl Golden ===

impl Golden {
    pub fn read() -> Golden {
        let text = fs::read_to_string(path()).unwrap_or_default();
        let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(": "));
        Golden(lines.map(|(key, line)| (key.to_owned(), line.to_owned())).collect())
    }

    /// Holds a line against the file; or writes it there, and leaves those of cases that do not run.
    pub fn check(&mut self, key: &str, line: &str) -> anyhow::Result<()> {
        if blesses() {
            // Others may bless other cases meanwhile.
            *self = Golden::read();
            self.0.insert(key.to_owned(), line.to_owned());
            let lines: String = self.0.iter().map(|(key, line)| format!("{key}: {line}\n")).collect();
            return fs::write(path(), format!("{HEAD}{lines}")).context("write golden.txt");
        }
        let wanted = self.0.get(key).with_context(|| format!("golden.txt has no line for {key}"))?;
        ensure!(wanted == line, "{key} said\n  {line}\nand golden.txt wants\n  {wanted}");
        Ok(())
    }
}

fn blesses() -> bool {
    std::env::var_os("EVENKEEL_BLESS").is_some()
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("injected/golden.txt")
}

// === impl Names ===

impl Names {
    /// Longer ones are to be given before those that are parts of them.
    pub fn add(&mut self, found: impl Into<String>, stands: impl Into<String>) {
        self.0.push((found.into(), stands.into()));
    }

    pub fn plain(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (found, stands) in &self.0 {
            text = text.replace(found, stands);
        }
        spans(&numbers(&names_of_chance(&text))).replace("a moment ago", "#T ago")
    }
}

/// Pods of a workload have two random parts at their end, volumes are called by the UID of their claim, and clusters by
/// the digits of a hash.
fn names_of_chance(text: &str) -> String {
    let plain = |word: &str| {
        let (core, end) = word.split_at(word.trim_end_matches(['.', ',', ':', ';']).len());
        if core.len() == CLUSTER_DIGITS && core.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)) {
            return format!("CLUSTER{end}");
        }
        if core.starts_with(VOLUME) && core.len() == VOLUME.len() + UID_LETTERS {
            return format!("{VOLUME}UID{end}");
        }
        let parts: Vec<&str> = word.rsplitn(3, '-').collect();
        let is_pod = matches!(parts[..], [last, set, _] if last.len() == 5 && (8..=10).contains(&set.len()));
        if is_pod { format!("{}-POD", parts[2]) } else { word.to_owned() }
    };
    text.split(' ').map(plain).collect::<Vec<_>>().join(" ")
}

/// Each run of digits is one mark, with what is behind its point.
fn numbers(text: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let goes_on = letter == '.' && inside && letters.peek().is_some_and(char::is_ascii_digit);
        if letter.is_ascii_digit() || goes_on {
            if !inside {
                out.push('#');
            }
            inside = true;
        } else {
            out.push(letter);
            inside = false;
        }
    }
    out
}

fn spans(text: &str) -> String {
    let mut text = text.to_owned();
    for unit in ["s", "min", "h", "days"] {
        for end in [" ", ":", ";", ",", ".", ")"] {
            text = text.replace(&format!("# {unit}{end}"), &format!("#T{end}"));
        }
    }
    for unit in ["# KiB", "# MiB", "# GiB"] {
        text = text.replace(unit, "# B");
    }
    text
}
