//! A consistent state of a store at one revision, as a file: what a backup bundle holds and what a change of engine moves.
//!
//! ```text
//! "EVKSNAP" 0x01             magic and format version
//! u64                        wire revision of the state
//! ( u32 place u32 value )*   lengths and bytes; values in their envelopes, so Secrets stay encrypted
//! u32::MAX u64               end, count of records
//! sha256 of all the above
//! ```
//! Numbers are big endian. Keys are not in it: a bundle carries them sealed, beside this file.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write as IoWrite};
use std::sync::Arc;

use admit::{Batch, Change, Expect, Place, Write};
use api::{Key, Object};
use aws_lc_rs::digest;
use base::{Revision, SmolStr};
use bytes::Bytes;
use imbl::OrdMap;

use crate::engine::{CommitId, Engine, EngineError, WriteError};
use crate::store::Store;
use crate::{envelope, place, splice};

/// The format that is written, and the newest that is read.
pub const FORMAT: u8 = 1;
const MAGIC: &[u8; 8] = &[b'E', b'V', b'K', b'S', b'N', b'A', b'P', FORMAT];
const END: u32 = u32::MAX;
/// A restored cluster numbers its writes from this far beyond the snapshot: the old cluster may have gone on for a while
/// after it, and no client may ever see a revision twice.
pub const RESTORE_LEAP: u64 = 1_000_000_000;
/// Longest encoded place a snapshot may hold; names are at most 253 bytes, claims are short.
const PLACE_BYTES_MAX: u32 = 4096;
/// Longest value: an object, its envelope and its seal.
const VALUE_BYTES_MAX: u32 = (base::limits::OBJECT_BYTES_MAX + 64) as u32;
/// One import transaction: below etcd's default limits of operations and bytes.
pub(crate) const IMPORT_CHANGES_MAX: usize = 100;
pub(crate) const IMPORT_BYTES_MAX: usize = 1 << 20;

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub revision: Revision,
    pub records: u64,
}

/// What a snapshot says without any key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    pub revision: Revision,
    /// Objects of each kind's storage, `group/resource`. Claims and records of the store itself are not objects.
    pub counts: BTreeMap<SmolStr, u64>,
    /// The keys that values are sealed with.
    pub keys: BTreeSet<u32>,
    /// The documents of the storages that were asked for.
    pub documents: Vec<(Place, Bytes)>,
}

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("write the snapshot")]
    Io(#[from] io::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("read the snapshot")]
    Io(#[from] io::Error),
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
    #[error("the engine already holds data")]
    NotEmpty,
    #[error("prepare the engine")]
    Engine(#[from] EngineError),
    #[error("write to the engine")]
    Write(#[from] WriteError),
}

impl Store {
    /// Writes a consistent snapshot of the newest revision. Takes the state under one short lock; the writing, which may
    /// block, holds none.
    ///
    /// # Errors
    /// When `writer` fails.
    pub fn export(&self, writer: impl IoWrite) -> Result<Summary, ExportError> {
        let keys = self.shared.keys();
        let (revision, collections) = {
            let memory = self.shared.memory();
            let collections = memory.collections().map(|(storage, one)| (storage.clone(), one.live.clone()));
            (memory.applied, collections.collect::<Vec<(SmolStr, OrdMap<Key, Arc<Object>>)>>())
        };
        let mut out = Hashing::new(writer);
        out.write_all(MAGIC)?;
        out.write_all(&revision.0.to_be_bytes())?;
        let mut records = 0_u64;
        for (storage, live) in &collections {
            for (key, object) in live {
                let place = Place { storage: storage.clone(), key: key.clone() };
                let value = stored(&keys, &place, object);
                out.chunk(&place::encode(&place))?;
                out.chunk(&value)?;
                records += 1;
            }
        }
        out.write_all(&END.to_be_bytes())?;
        out.write_all(&records.to_be_bytes())?;
        let (mut writer, hash) = out.finish();
        writer.write_all(hash.as_ref())?;
        writer.flush()?;
        Ok(Summary { revision, records })
    }
}

fn stored(keys: &crate::Keyring, place: &Place, object: &Object) -> Bytes {
    if place::is_claim(&place.storage) {
        return envelope::seal(keys, place, &object.bytes, None);
    }
    let document = splice::unsplice(&object.bytes).expect("a served form was made by splicing");
    let offset = splice::metadata_offset(&document);
    envelope::seal(keys, place, &document, offset)
}

/// Fills an empty engine from a snapshot. Until it ends well, the engine is marked and no store opens it.
///
/// # Errors
/// When the engine is not empty, the snapshot is damaged, or either fails; an engine left half filled stays marked.
pub async fn import(engine: &dyn Engine, reader: impl Read + Send) -> Result<Summary, ImportError> {
    let mut load = engine.load().await?;
    while let Some(rows) = load.rows.recv().await {
        if !rows?.is_empty() {
            return Err(ImportError::NotEmpty);
        }
    }
    let (mut reader, revision) = begin(reader)?;
    engine.leap(Revision(revision.0.saturating_add(RESTORE_LEAP))).await?;
    let mut batches = Batches::new(engine);
    let mark = Mark::set(&mut batches).await?;
    let records = copy(&mut reader, &mut batches).await?;
    mark.remove(&mut batches).await?;
    Ok(Summary { revision, records })
}

/// Reads a snapshot to its end: what it counts, and the documents of some storages, none of which is encrypted.
///
/// # Errors
/// When it is damaged or cannot be read.
pub fn survey(reader: impl Read, storages: &[&str]) -> Result<Survey, ImportError> {
    let (mut reader, revision) = begin(reader)?;
    let (mut survey, mut records) = (Survey { revision, ..Survey::default() }, 0);
    while let Some((place, value)) = reader.record()? {
        records += 1;
        survey.keys.extend(envelope::key_of(&value));
        if place::is_claim(&place.storage) {
            continue;
        }
        *survey.counts.entry(place.storage.clone()).or_default() += 1;
        if storages.contains(&place.storage.as_str()) {
            let opened = envelope::open(&crate::Keyring::plain(), &place, &value.into());
            let document = opened.map_err(|_| ImportError::Damaged("a document does not open"))?.document;
            survey.documents.push((place, document));
        }
    }
    reader.end(records)?;
    Ok(survey)
}

/// The head of a snapshot: its revision.
fn begin<R: Read>(reader: R) -> Result<(Hashing<R>, Revision), ImportError> {
    let mut reader = Hashing::new(reader);
    let mut magic = [0; MAGIC.len()];
    reader.read_exact(&mut magic)?;
    if magic != *MAGIC {
        return Err(ImportError::Damaged("not a snapshot of a format this build reads"));
    }
    let revision = Revision(reader.u64()?);
    Ok((reader, revision))
}

async fn copy<R: Read>(reader: &mut Hashing<R>, batches: &mut Batches<'_>) -> Result<u64, ImportError> {
    let (mut records, mut waiting, mut bytes) = (0_u64, Vec::new(), 0);
    while let Some((place, value)) = reader.record()? {
        if IMPORT_CHANGES_MAX <= waiting.len() || IMPORT_BYTES_MAX < bytes + value.len() {
            batches.commit(std::mem::take(&mut waiting)).await?;
            bytes = 0;
        }
        bytes += value.len() + place.key.name.len();
        waiting.push(change(place, Expect::Absent, Write::Put(value.into())));
        records += 1;
    }
    reader.end(records)?;
    batches.commit(waiting).await?;
    Ok(records)
}

/// Commits of one import, with ids of their own.
pub(crate) struct Batches<'a> {
    engine: &'a dyn Engine,
    count: u128,
}

impl Batches<'_> {
    pub(crate) fn new(engine: &dyn Engine) -> Batches<'_> {
        Batches { engine, count: 0 }
    }

    pub(crate) async fn commit(&mut self, changes: Vec<Change>) -> Result<Revision, WriteError> {
        if changes.is_empty() {
            return Ok(Revision::ZERO);
        }
        self.count += 1;
        self.engine.commit(CommitId(self.count), Batch { changes }).await
    }
}

/// Tells that an engine is being filled; it goes when all is there.
pub(crate) struct Mark(Revision);

impl Mark {
    pub(crate) async fn set(batches: &mut Batches<'_>) -> Result<Mark, WriteError> {
        let put = change(marker(), Expect::Absent, Write::Put(Bytes::new()));
        Ok(Mark(batches.commit(vec![put]).await?))
    }

    pub(crate) async fn remove(self, batches: &mut Batches<'_>) -> Result<Revision, WriteError> {
        batches.commit(vec![change(marker(), Expect::At(self.0), Write::Delete)]).await
    }
}

pub(crate) fn change(place: Place, expect: Expect, write: Write) -> Change {
    Change { place, expect, write }
}

/// What is in an engine while an import fills it.
fn marker() -> Place {
    Place { storage: "_store".into(), key: Key::cluster("importing") }
}

pub(crate) fn is_marker(place: &Place) -> bool {
    *place == marker()
}

/// A reader or writer that hashes what goes through it.
struct Hashing<T> {
    inner: T,
    hash: digest::Context,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Hashing<T> {
        Hashing { inner, hash: digest::Context::new(&digest::SHA256) }
    }

    fn finish(self) -> (T, digest::Digest) {
        (self.inner, self.hash.finish())
    }
}

impl<T: IoWrite> Hashing<T> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.inner.write_all(bytes)
    }

    fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.write_all(&length.to_be_bytes())?;
        self.write_all(bytes)
    }
}

impl<T: Read> Hashing<T> {
    fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(bytes)?;
        self.hash.update(bytes);
        Ok(())
    }

    fn u64(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.read_exact(&mut bytes)?;
        Ok(u64::from_be_bytes(bytes))
    }

    /// The next place with its value, or `None` at the end mark.
    fn record(&mut self) -> Result<Option<(Place, Vec<u8>)>, ImportError> {
        let Some(encoded) = self.read_chunk(PLACE_BYTES_MAX)? else { return Ok(None) };
        let place = place::decode(&encoded).ok_or(ImportError::Damaged("a place does not decode"))?;
        let value = self.read_chunk(VALUE_BYTES_MAX)?.ok_or(ImportError::Damaged("a value is missing"))?;
        Ok(Some((place, value)))
    }

    /// What follows the end mark: the count and the hash.
    fn end(&mut self, records: u64) -> Result<(), ImportError> {
        if self.u64()? != records {
            return Err(ImportError::Damaged("the count of records does not match"));
        }
        self.check_hash()
    }

    /// The next chunk, or `None` at the end mark.
    fn read_chunk(&mut self, length_max: u32) -> Result<Option<Vec<u8>>, ImportError> {
        let mut length = [0; 4];
        self.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length == END {
            return Ok(None);
        }
        if length_max < length {
            return Err(ImportError::Damaged("a length is beyond its limit"));
        }
        let mut bytes = vec![0; length as usize];
        self.read_exact(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn check_hash(&mut self) -> Result<(), ImportError> {
        let wanted = self.hash.clone().finish();
        let mut found = [0; 32];
        self.inner.read_exact(&mut found)?;
        if wanted.as_ref() == found { Ok(()) } else { Err(ImportError::Damaged("the checksum does not match")) }
    }
}
