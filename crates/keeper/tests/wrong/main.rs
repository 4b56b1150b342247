//! `wrong` as scripts and transcripts: facts in, the exact text out, a file for each case in `golden`.
//!
//! A script changes three servers that are well. Its lines:
//!
//! ```text
//! # why this case is here
//! from node3
//! drop WITNESS SUBJECT KIND         (* is any)
//! WITNESS SUBJECT KIND {fields}     (replaces a fact of the same three)
//! ----
//! what is said
//! ```
//!
//! `EVENKEEL_BLESS=1` writes the texts anew; the difference is the review.

mod script;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use keeper::wrong::{ALL, Class, answer, runbook};

use script::{NOW, Script};

/// Codes that are only ever listed beside a cause, or alone on a screen that says that nothing is wrong.
fn first_code(script: &Script) -> Option<&'static str> {
    let answer = answer(&script.facts, NOW);
    let first = answer.cause.map(|cause| cause.code);
    first.or_else(|| answer.others.first().map(|other| other.code))
}

#[test]
fn every_case_says_what_its_file_says() {
    let mut wrong = Vec::new();
    for path in files() {
        let script = Script::read(&path);
        let answer = answer(&script.facts, NOW);
        let said = answer.text();
        assert!(said.lines().count() <= 12, "{}: too long for a screen\n{said}", path.display());
        assert!(answer.short().lines().count() <= 5, "{}: too long for a phone", path.display());
        assert!(!said.contains('{'), "{}: a placeholder is not filled\n{said}", path.display());
        if env::var_os("EVENKEEL_BLESS").is_some() {
            fs::write(&path, format!("{}----\n{said}", script.head)).expect("the file can be written");
        } else if said != script.wanted {
            wrong.push(format!("{}\nsaid:\n{said}wanted:\n{}", path.display(), script.wanted));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_code_is_whole_and_has_its_case() {
    let cases: BTreeSet<&str> = files().iter().filter_map(|path| first_code(&Script::read(path))).collect();
    let mut names = BTreeSet::new();
    for code in ALL {
        let name = code.name;
        assert!(names.insert(name), "{name} is there twice");
        let plain = |c: char| c.is_ascii_uppercase() || c == '_';
        assert!(name.chars().all(plain), "{name} is not a stable name");
        let texts = [code.sentence, code.command, code.time, code.otherwise, code.page];
        assert!(texts.iter().all(|text| !text.is_empty()), "{name} lacks a text");
        assert!(code.sentence.split_whitespace().count() <= 35, "{name}: a sentence of at most 35 words");
        assert!(cases.contains(name), "{name} is first in no case of golden/");
    }
}

/// Faults that are somebody's own act, answered where it is refused: a bundle that is too new, a second operator.
const ANSWERED_WHERE_REFUSED: [u8; 2] = [38, 63];

/// The faults of the catalogue that this program answers.
#[test]
fn every_fault_of_the_set_has_a_code() {
    let set = (1..=7).chain([9, 10]).chain(12..=17).chain([19, 20, 22]).chain(24..=28).chain(30..=41);
    let set = set.chain([45, 46, 50]).chain(54..=57).chain([60]).chain(62..=66);
    let known: BTreeSet<u8> = ALL.iter().flat_map(|code| code.faults).copied().collect();
    let set = set.filter(|fault| !ANSWERED_WHERE_REFUSED.contains(fault));
    let missing: Vec<u8> = set.filter(|fault| !known.contains(fault)).collect();
    assert!(missing.is_empty(), "faults without a code: {missing:?}");
}

/// Where two things are wrong at once the answer is one of the two, and the one that explains the other.
#[test]
fn of_two_faults_the_first_answer_is_one_of_them() {
    let scripts: Vec<(PathBuf, Script)> = files().into_iter().map(|path| (path.clone(), Script::read(&path))).collect();
    for (one_path, one) in &scripts {
        for (other_path, other) in scripts.iter().filter(|(_, other)| other.facts.from == one.facts.from) {
            let both = one.with(other);
            let said = answer(&both, NOW);
            let allowed = [first_code(one), first_code(other)];
            let Some(cause) = &said.cause else {
                assert!(quiet(one) && quiet(other), "{} and {}", one_path.display(), other_path.display());
                continue;
            };
            let known = allowed.iter().flatten().any(|code| *code == cause.code);
            // What is quiet alone may stand beside what the other brings.
            assert!(
                known || expected_together(&allowed, cause.code),
                "{} and {} together: {}",
                one_path.display(),
                other_path.display(),
                cause.code
            );
        }
    }
}

fn quiet(script: &Script) -> bool {
    answer(&script.facts, NOW).cause.is_none()
}

/// Two faults that make a third thing: two of three servers, one after the other.
fn expected_together(_first: &[Option<&str>; 2], cause: &str) -> bool {
    ["QUORUM_LOST", "SERVERS_STOPPED", "NODE_PARTITIONED", "PATH_CUT"].contains(&cause)
}

#[test]
fn the_same_facts_in_any_order_give_the_same_answer() {
    for path in files() {
        let script = Script::read(&path);
        let mut turned = script.facts.clone();
        turned.facts.reverse();
        let (there, back) = (answer(&script.facts, NOW), answer(&turned, NOW));
        let code =
            |answer: &keeper::wrong::Answer| answer.cause.as_ref().map(|cause| (cause.code, cause.about.clone()));
        assert_eq!(code(&there), code(&back), "{}", path.display());
    }
}

/// No answer of the program may destroy anything by itself: what risks data is a person's choice.
#[test]
fn what_risks_data_is_for_a_person() {
    for code in ALL.iter().filter(|code| code.risk.word() == "data-risk") {
        assert!(code.decision, "{}", code.name);
    }
    assert!(ALL.iter().filter(|code| code.class == Class::Info).all(|code| code.risk.word() == "safe"));
}

#[test]
fn facts_survive_the_wire() {
    for path in files() {
        let facts = Script::read(&path).facts;
        let text = serde_json::to_string(&facts).expect("facts are plain data");
        assert_eq!(serde_json::from_str::<keeper::wrong::Facts>(&text).expect("they come back"), facts);
    }
}

#[test]
fn the_runbook_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/codes.md");
    if env::var_os("EVENKEEL_BLESS").is_some() {
        fs::write(&path, runbook()).expect("the document can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, runbook(), "docs/codes.md is not fresh: EVENKEEL_BLESS=1 cargo test -p keeper");
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong/golden");
    let entries = fs::read_dir(&folder).expect("the cases are there");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a listed file").path()).collect();
    paths.sort();
    paths
}
