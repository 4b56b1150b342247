//! What was decided and is not done yet, on the disk.

use std::time::Duration;

use anyhow::{Context, Result};
use base::Clock;
use serde::{Deserialize, Serialize};

use crate::layout::Layout;
use crate::pki::{self, Access};
use crate::wire::SystemClock;

/// How often a running server looks whether somebody decided; looking is one `stat`.
const LOOK: Duration = Duration::from_secs(1);

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "stage")]
pub enum Note {
    /// The survivor is to go on alone; `aside` is where its data is kept as it was.
    Asked { at: String, aside: String },
    /// It did not come about: everything is as before.
    Failed { why: String },
    /// The state is this server's alone; the other servers' machines are still to be marked as removed.
    Alone { why: String },
}

// === impl Note ===

impl Note {
    pub fn ask() -> Note {
        let now = SystemClock.now();
        Note::Asked { at: now.to_string(), aside: format!("etcd-before-recovery-{}", now.strftime("%Y%m%dT%H%M%SZ")) }
    }

    pub fn read(layout: &Layout) -> Result<Option<Note>> {
        let path = layout.recovering();
        let Some(text) = pki::read(&path)? else { return Ok(None) };
        Ok(Some(serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?))
    }

    /// Durable when it returns.
    pub fn write(&self, layout: &Layout) -> Result<()> {
        Ok(pki::write(&layout.recovering(), serde_json::to_string(self)?.as_bytes(), Access::Secret)?)
    }

    pub fn remove(layout: &Layout) -> Result<()> {
        match std::fs::remove_file(layout.recovering()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("end the recovery"),
            _ => Ok(()),
        }
    }
}

/// A restored state is older than the other servers of its cluster: their machines do not come back by themselves.
pub fn note_restored(layout: &Layout) -> Result<()> {
    Note::Alone { why: "the cluster was restored from a bundle".to_owned() }.write(layout)
}

/// Returns once somebody decided that this server goes on alone.
pub async fn asked(layout: &Layout) {
    let path = layout.recovering();
    loop {
        tokio::time::sleep(LOOK).await;
        if path.exists() && matches!(Note::read(layout), Ok(Some(Note::Asked { .. }))) {
            return;
        }
    }
}
