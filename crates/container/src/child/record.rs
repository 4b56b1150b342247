//! What an agent writes down about a child for the next agent.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::sys::{Identity, Process};

/// What a running child was started as.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub process: Identity,
    #[serde(default)]
    pub edition: String,
    pub cgroups: Vec<PathBuf>,
    /// On its way in or out while one replaces another: to be ended by an agent that finds it here.
    #[serde(default)]
    pub other: Option<Identity>,
}

impl Record {
    pub fn read(path: &Path) -> Option<Record> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Not flushed to disk: after a power cut there is no such process.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self).expect("a record is JSON");
        let part = path.with_extension("json.part");
        fs::write(&part, text)?;
        fs::rename(&part, path)
    }
}

/// What the child was started as that a record tells of, where it still runs. Call it inside a runtime.
pub fn edition(record: &Path) -> Option<String> {
    let record = Record::read(record)?;
    Process::reopen(&record.process).map(|_| record.edition)
}

/// Asks the running child that a record tells of to end; whoever supervises it starts it again, as it is wanted then.
pub fn end_for_another(record: &Path) -> io::Result<()> {
    let process = Record::read(record).and_then(|record| Process::reopen(&record.process));
    process.map_or(Ok(()), |process| process.signal(Signal::TERM))
}

/// The process that a record tells of, where it still runs. Call it inside a runtime.
pub fn running(record: &Path) -> Option<u32> {
    let process = Record::read(record)?.process;
    Process::reopen(&process).map(|process| process.identity.pid)
}
