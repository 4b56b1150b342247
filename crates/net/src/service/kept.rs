//! The table as its one writer last put it, for those who look whether it is still so.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

use super::listing::{Blocks, Change, Listing, changes};
use super::nft::{self, NftError};
use super::table::Table;

/// Tables of this program, whichever instance of it.
const OURS: &str = "inet evenkeel";

/// What the proxy put into the kernel, and a way to have it put there again. The proxy alone writes.
#[derive(Clone, Debug)]
pub struct Rules {
    applied: watch::Sender<Option<Arc<Table>>>,
    again: Arc<Notify>,
}

/// One look at the kernel's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Name of the own table: `inet evenkeel`.
    pub table: String,
    /// What is not as it was put there; None while nothing was.
    pub changes: Option<Vec<Change>>,
    /// Tables of others.
    pub foreign: BTreeMap<String, Blocks>,
}

/// Looks at the kernel's rules now and then.
#[derive(Debug)]
pub struct Looker {
    rules: Rules,
    /// The table, as the kernel words it.
    worded: Option<(Arc<Table>, Blocks)>,
}

// === impl Rules ===

impl Rules {
    pub fn new() -> Rules {
        Rules { applied: watch::Sender::new(None), again: Arc::new(Notify::new()) }
    }

    /// Puts the table into the kernel once more, as a whole, whatever is there.
    pub fn put_again(&self) {
        self.again.notify_one();
    }

    pub fn looker(&self) -> Looker {
        Looker { rules: self.clone(), worded: None }
    }

    pub(super) fn applied(&self) -> Option<Arc<Table>> {
        self.applied.borrow().clone()
    }

    pub(super) fn set(&self, table: Option<Table>) {
        self.applied.send_replace(table.map(Arc::new));
    }

    /// Resolves when somebody wants it put again.
    pub(super) async fn asked(&self) {
        self.again.notified().await;
    }
}

impl Default for Rules {
    fn default() -> Rules {
        Rules::new()
    }
}

// === impl Looker ===

impl Looker {
    /// The name of our table, as rules are named after it.
    pub fn table(&self) -> Option<String> {
        self.rules.applied().map(|table| format!("inet {}", table.name))
    }

    /// None where the proxy was at work meanwhile: look again later.
    pub async fn look(&mut self) -> Result<Option<Looked>, NftError> {
        let applied = self.rules.applied();
        let mut listing = Listing::parse(&nft::list().await?);
        let after = self.rules.applied();
        let same = match (&applied, &after) {
            (None, None) => true,
            (Some(before), Some(after)) => Arc::ptr_eq(before, after),
            _ => false,
        };
        if !same {
            return Ok(None);
        }
        let (mut table, mut found) = (String::new(), None);
        if let Some(applied) = applied {
            table = format!("inet {}", applied.name);
            let seen = listing.tables.remove(&table).unwrap_or_default();
            found = Some(changes(self.worded(&applied).await?, &seen));
        }
        listing.tables.retain(|name, _| !name.starts_with(OURS));
        Ok(Some(Looked { table, changes: found, foreign: listing.tables }))
    }

    /// How the kernel words a table: it is asked, where nothing sees it.
    async fn worded(&mut self, table: &Arc<Table>) -> Result<&Blocks, NftError> {
        let known = self.worded.as_ref().is_some_and(|(known, _)| known == table);
        if !known {
            let text = nft::reworded(table.render()).await?;
            let blocks = Listing::parse(&text).tables.remove(&format!("inet {}", table.name)).unwrap_or_default();
            self.worded = Some((table.clone(), blocks));
        }
        Ok(&self.worded.as_ref().expect("it was just put there").1)
    }
}
