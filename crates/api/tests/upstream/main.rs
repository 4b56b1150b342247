//! The crate held against what a running upstream 1.36 answered. The reference is not part of the project: without it
//! these tests say so and pass.

#![allow(clippy::unwrap_used, reason = "a test that fails to unwrap has failed")]

mod description;
mod discovery;
mod golden;
mod round_trip;

use std::env;
use std::fs;
use std::path::PathBuf;

use api::Tree;

/// A file of the reference, or None where it is absent.
fn reference(name: &str) -> Option<String> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference");
    let folder = env::var_os("EVENKEEL_REFERENCE").map_or(beside, PathBuf::from);
    let text = fs::read_to_string(folder.join("upstream-1.36").join(name)).ok();
    if text.is_none() {
        println!("skipped: no reference {name} below {}", folder.display());
    }
    text
}

fn reference_json(name: &str) -> Option<Tree> {
    reference(name).map(|text| serde_json::from_str(&text).unwrap())
}
