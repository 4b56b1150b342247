//! What a node remembers of drift: the ledger, what was written, and what was there when it joined. In `<data>/agent/drift`,
//! each a file written whole or not at all.

use std::path::PathBuf;

use anyhow::{Context, Result};
use keeper::drift::Ledger;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::files::Known;
use super::unmanaged::Joined;
use crate::layout::Layout;
use crate::pki::{self, Access};

const LEDGER: &str = "ledger.json";
const JOINED: &str = "joined.json";

/// The ledger of this node, with what it needs over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Book {
    #[serde(flatten)]
    pub ledger: Ledger,
    pub known: Known,
}

/// The folder.
pub struct Shelf {
    folder: PathBuf,
}

// === impl Shelf ===

impl Shelf {
    pub fn new(layout: &Layout) -> Shelf {
        Shelf { folder: layout.agent().join("drift") }
    }

    /// None where none was written yet.
    pub fn book(&self) -> Result<Option<Book>> {
        self.read(LEDGER)
    }

    pub fn write_book(&self, book: &Book) -> Result<()> {
        self.write(LEDGER, book)
    }

    pub fn joined(&self) -> Result<Option<Joined>> {
        self.read(JOINED)
    }

    pub fn write_joined(&self, joined: &Joined) -> Result<()> {
        self.write(JOINED, joined)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.folder.join(name);
        let Some(text) = pki::read(&path)? else { return Ok(None) };
        Ok(Some(serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?))
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value).context("plain data")?;
        Ok(pki::write(&self.folder.join(name), text.as_bytes(), Access::Secret)?)
    }
}
