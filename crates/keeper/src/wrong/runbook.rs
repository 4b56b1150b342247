//! The runbook of codes: one page stub a code, made from the table. docs/codes.md holds it, and a test compares.

use std::fmt::Write as _;

use super::code::{Code, Place};
use super::table::ALL;

const HEAD: &str = "# Codes

What `evenkeel wrong` can find: a page for each code. Made from the table in `crates/keeper/src/wrong/table`; a test compares.
Exit codes of the command: 0 fine, 1 it failed, 2 attention, 4 a person must choose. `page` means now, `notify` the next working
day, `info` to know. Faults are the numbers of the catalogue that the keeper is built to. Texts in braces are filled with what was
found.

Who decides is named in the ConfigMap `evenkeel-people` in `kube-system`, keys `decides` and `standIn`.
";

/// The whole document.
pub fn runbook() -> String {
    let mut out = HEAD.to_owned();
    let mut codes = ALL.to_vec();
    codes.sort_by_key(|code| code.name);
    for code in codes {
        page(&mut out, code);
    }
    out
}

fn page(out: &mut String, code: &Code) {
    let faults: Vec<String> = code.faults.iter().map(u8::to_string).collect();
    let faults = if faults.is_empty() { String::new() } else { format!(", faults {}", faults.join(", ")) };
    let place = if code.place == Place::There { ", on the machine" } else { "" };
    let decision = if code.decision { " A person must choose." } else { "" };
    let _ = writeln!(out, "\n## {}\n\n{}{faults}.{decision} {}\n", code.name, code.class.word(), code.page);
    let _ = writeln!(out, "- Says: {}", code.sentence);
    let _ = writeln!(out, "- Do ({}, ~{}{place}): `{}`", code.risk.word(), code.time, code.command);
    let _ = writeln!(out, "- If not: {}.", code.otherwise);
}
