//! The whole state of one engine into another: as it is stored, under the keys it was sealed with, and counted again at
//! the end.

use std::collections::BTreeMap;

use admit::{Expect, Write};
use aws_lc_rs::digest;
use base::{Revision, SmolStr};

use crate::engine::{Engine, EngineError, Row, WriteError};
use crate::place;
use crate::snapshot::{Batches, IMPORT_BYTES_MAX, IMPORT_CHANGES_MAX, Mark, change};

/// What was moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transferred {
    /// The newest revision of the old engine; every one of the new engine comes after it.
    pub revision: Revision,
    /// Documents per storage.
    pub counts: BTreeMap<SmolStr, u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("the engine to fill already holds data")]
    NotEmpty,
    #[error("read the state")]
    Read(#[source] EngineError),
    #[error("prepare the engine to fill")]
    Engine(#[from] EngineError),
    #[error("write to the engine to fill")]
    Write(#[from] WriteError),
    #[error("{storage} is not the same in both: {had} documents before, {has} now")]
    Differs { storage: SmolStr, had: u64, has: u64 },
    #[error("revision {has} of the filled engine is not after {had}")]
    Back { had: Revision, has: Revision },
}

/// How many documents, and what they are whatever their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    count: u64,
    hash: [u8; 32],
}

/// Fills an empty engine from another that nobody writes to meanwhile. Until it ends well, the filled engine is marked
/// and no store opens it.
///
/// # Errors
/// When the engine is not empty, either fails, or the two are not the same afterwards.
pub async fn transfer(from: &dyn Engine, to: &dyn Engine) -> Result<Transferred, TransferError> {
    if !tally(to).await?.is_empty() {
        return Err(TransferError::NotEmpty);
    }
    let mut load = from.load().await.map_err(TransferError::Read)?;
    let revision = load.revision;
    to.leap(revision).await?;
    let mut batches = Batches::new(to);
    let mark = Mark::set(&mut batches).await?;
    let (mut tallies, mut waiting, mut bytes) = (BTreeMap::new(), Vec::new(), 0);
    while let Some(rows) = load.rows.recv().await {
        for row in rows.map_err(TransferError::Read)? {
            add(&mut tallies, &row);
            if IMPORT_CHANGES_MAX <= waiting.len() || IMPORT_BYTES_MAX < bytes + row.value.len() {
                batches.commit(std::mem::take(&mut waiting)).await?;
                bytes = 0;
            }
            bytes += row.value.len();
            waiting.push(change(row.place, Expect::Absent, Write::Put(row.value)));
        }
    }
    batches.commit(waiting).await?;
    let last = mark.remove(&mut batches).await?;
    if last <= revision {
        return Err(TransferError::Back { had: revision, has: last });
    }
    compare(&tallies, &tally(to).await?)?;
    let counts = tallies.into_iter().map(|(storage, tally)| (storage, tally.count)).collect();
    Ok(Transferred { revision, counts })
}

async fn tally(engine: &dyn Engine) -> Result<BTreeMap<SmolStr, Tally>, EngineError> {
    let mut load = engine.load().await?;
    let mut tallies = BTreeMap::new();
    while let Some(rows) = load.rows.recv().await {
        for row in rows? {
            add(&mut tallies, &row);
        }
    }
    Ok(tallies)
}

fn add(tallies: &mut BTreeMap<SmolStr, Tally>, row: &Row) {
    let mut hash = digest::Context::new(&digest::SHA256);
    let place = place::encode(&row.place);
    hash.update(&(place.len() as u64).to_be_bytes());
    hash.update(&place);
    hash.update(&row.value);
    let tally = tallies.entry(row.place.storage.clone()).or_default();
    tally.count += 1;
    // No place comes twice, so nothing cancels out.
    for (sum, byte) in tally.hash.iter_mut().zip(hash.finish().as_ref()) {
        *sum ^= byte;
    }
}

fn compare(had: &BTreeMap<SmolStr, Tally>, has: &BTreeMap<SmolStr, Tally>) -> Result<(), TransferError> {
    for storage in had.keys().chain(has.keys()) {
        let of = |tallies: &BTreeMap<SmolStr, Tally>| tallies.get(storage).copied().unwrap_or_default();
        if of(had) != of(has) {
            let (had, has) = (of(had).count, of(has).count);
            return Err(TransferError::Differs { storage: storage.clone(), had, has });
        }
    }
    Ok(())
}
