//! What a node remembers of the keeper, in `<data>/keeper`: each fact a file, written whole or not at all.

use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context, Result};
use jiff::Timestamp;
use keeper::{Fence, Order, Runs, Settings, StaleOrder};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Trial;
use crate::layout::{CLUSTER_SETTINGS, Layout};
use crate::pki::{self, Access};

const FENCE: &str = "fence.json";
const TRIAL: &str = "trial.json";
const FELL: &str = "fell.json";
const INSTALLED: &str = "installed.json";

/// What was tried and did not get well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fell {
    pub attempt: u64,
    #[serde(flatten)]
    pub runs: Runs,
    pub why: String,
    pub at: Timestamp,
}

/// The folder.
pub struct Home {
    pub folder: PathBuf,
    /// Orders are accepted one after the other.
    accepting: Mutex<()>,
}

/// Why an order is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error(transparent)]
    Stale(#[from] StaleOrder),
    #[error("remember the order")]
    Remember(#[source] anyhow::Error),
}

// === impl Home ===

impl Home {
    pub fn new(layout: &Layout) -> Home {
        Home { folder: layout.keeper(), accepting: Mutex::new(()) }
    }

    /// Raises the fence, durably, before anything is done for the order.
    pub fn accept(&self, order: Order) -> Result<(), AcceptError> {
        let _one = self.accepting.lock().expect("no holder of this lock panics");
        let fence: Fence = self.read(FENCE).map_err(AcceptError::Remember)?.unwrap_or_default();
        let raised = fence.accept(order)?;
        if raised != fence {
            self.write(FENCE, &raised).map_err(AcceptError::Remember)?;
        }
        Ok(())
    }

    pub fn trial(&self) -> Result<Option<Trial>> {
        self.read(TRIAL)
    }

    pub fn set_trial(&self, trial: &Trial) -> Result<()> {
        self.write(TRIAL, trial)
    }

    pub fn end_trial(&self) -> Result<()> {
        match std::fs::remove_file(self.folder.join(TRIAL)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("end the trial"),
            _ => Ok(std::fs::File::open(&self.folder)?.sync_all()?),
        }
    }

    pub fn fell(&self) -> Result<Option<Fell>> {
        self.read(FELL)
    }

    pub fn set_fell(&self, fell: &Fell) -> Result<()> {
        self.write(FELL, fell)
    }

    /// Where the program of this machine is installed, if another one was ever run in its place.
    pub fn installed(&self) -> Result<Option<PathBuf>> {
        self.read(INSTALLED)
    }

    pub fn set_installed(&self, path: &PathBuf) -> Result<()> {
        self.write(INSTALLED, path)
    }

    /// What the cluster file says of this machine.
    pub fn settings(&self) -> Result<Settings> {
        Ok(self.read(CLUSTER_SETTINGS)?.unwrap_or_default())
    }

    pub fn set_settings(&self, settings: &Settings) -> Result<()> {
        if *settings == self.settings()? { Ok(()) } else { self.write(CLUSTER_SETTINGS, settings) }
    }

    /// What this process runs with: on trial, what is tried.
    pub fn settings_in_force(&self) -> Result<Settings> {
        match self.trial()?.filter(Trial::is_this) {
            Some(trial) => Ok(trial.to.settings),
            None => self.settings(),
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.folder.join(name);
        let Some(text) = pki::read(&path)? else { return Ok(None) };
        let value = serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        Ok(Some(value))
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value).context("plain data")?;
        Ok(pki::write(&self.folder.join(name), text.as_bytes(), Access::Secret)?)
    }
}

#[cfg(test)]
mod tests {
    use super::{AcceptError, Home};
    use crate::layout::Layout;
    use keeper::{Order, Token};

    #[test]
    fn the_fence_holds_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let order = |token| Order { token: Token(token), generation: 2, sequence: 1 };
        Home::new(&layout).accept(order(7)).unwrap();
        let late = Home::new(&layout).accept(order(6));
        assert!(matches!(late, Err(AcceptError::Stale(_))));
        Home::new(&layout).accept(order(7)).unwrap();
    }
}
