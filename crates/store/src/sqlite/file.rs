//! The database file: its settings, its tables, and the statements on them. Knows no threads.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use admit::{Batch, Change, Expect, Place, Write};
use base::{Revision, SmolStr};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use crate::engine::Row;
use crate::place;

/// Format of the tables. Raised with a migration from every older one.
const FORMAT: i64 = 1;
/// The write-ahead log is checkpointed into the file when it has this many pages (4 KiB each).
pub(super) const LOG_PAGES_CHECKPOINT: i64 = 2048;
/// Bytes the log file keeps after a checkpoint. They stay allocated, so that deletions still go through on a full disk.
const LOG_BYTES_KEPT: i64 = 16 << 20;
/// Free pages given back to the file system by one checkpoint.
const VACUUM_PAGES_MAX: i64 = 1024;
/// SQLite's page cache, in KiB. Reads come from memory; it only has to hold the pages that writes touch.
const CACHE_KIB: i64 = 8192;

pub(super) struct File {
    connection: Connection,
    /// Newest revision in the file.
    pub(super) revision: Revision,
}

#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    #[error("open database {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("database {path} is format {found}, this build reads {FORMAT}")]
    Format { path: PathBuf, found: i64 },
    #[error("start the writer thread")]
    Thread(#[source] io::Error),
}

/// What checking a batch found.
pub(super) enum Verdict {
    Holds,
    Conflict { place: Place, current: Option<Revision> },
}

// === impl File ===

impl File {
    pub(super) fn open(path: &Path) -> Result<File, SqliteError> {
        let at_path = |source| SqliteError::Open { path: path.to_owned(), source };
        let connection = Connection::open(path).map_err(at_path)?;
        configure(&connection).map_err(at_path)?;
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(at_path)?;
        match found {
            0 => create(&connection).map_err(at_path)?,
            FORMAT => {}
            found => return Err(SqliteError::Format { path: path.to_owned(), found }),
        }
        let revision = connection.query_row("SELECT revision FROM meta", [], |row| row.get(0)).map_err(at_path)?;
        Ok(File { connection, revision: from_sql(revision) })
    }

    pub(super) fn begin(&self) -> rusqlite::Result<()> {
        self.run("BEGIN IMMEDIATE")
    }

    /// Makes the open transaction durable: returns after the sync.
    pub(super) fn commit(&self) -> rusqlite::Result<()> {
        self.run("COMMIT")
    }

    pub(super) fn rollback(&self) {
        // SQLite has already rolled back after some errors; then there is nothing left to do.
        if !self.connection.is_autocommit()
            && let Err(error) = self.run("ROLLBACK")
        {
            tracing::error!(%error, "rolling back failed");
        }
    }

    /// Checks every expectation of a batch against the open transaction.
    pub(super) fn check(&self, batch: &Batch) -> rusqlite::Result<Verdict> {
        for change in &batch.changes {
            let current = self.revision_of(&change.place)?;
            let holds = match change.expect {
                Expect::Absent => current.is_none(),
                Expect::At(revision) => current == Some(revision),
            };
            if !holds {
                return Ok(Verdict::Conflict { place: change.place.clone(), current });
            }
        }
        Ok(Verdict::Holds)
    }

    /// Writes a checked batch at a revision.
    pub(super) fn write(&self, batch: &Batch, revision: Revision) -> rusqlite::Result<()> {
        for Change { place, expect, write } in &batch.changes {
            let key = place::encode(place);
            let revision = to_sql(revision);
            match (write, expect) {
                (Write::Keep, _) => continue,
                (Write::Put(value), Expect::Absent) => {
                    let sql = "INSERT INTO record (place, revision, value) VALUES (?1, ?2, ?3)";
                    self.connection.prepare_cached(sql)?.execute(params![key, revision, &value[..]])?;
                }
                (Write::Put(value), Expect::At(_)) => {
                    let sql = "UPDATE record SET revision = ?2, value = ?3 WHERE place = ?1";
                    self.connection.prepare_cached(sql)?.execute(params![key, revision, &value[..]])?;
                }
                (Write::Delete, _) => {
                    self.connection.prepare_cached("DELETE FROM record WHERE place = ?1")?.execute([key])?;
                }
            }
            let sql = "INSERT INTO collection (storage, changed) VALUES (?1, ?2)
                       ON CONFLICT (storage) DO UPDATE SET changed = excluded.changed";
            self.connection.prepare_cached(sql)?.execute(params![place.storage.as_str(), revision])?;
        }
        Ok(())
    }

    /// Records the newest revision within the open transaction.
    pub(super) fn set_revision(&self, revision: Revision) -> rusqlite::Result<()> {
        self.connection.prepare_cached("UPDATE meta SET revision = ?1")?.execute([to_sql(revision)]).map(drop)
    }

    fn revision_of(&self, place: &Place) -> rusqlite::Result<Option<Revision>> {
        let mut statement = self.connection.prepare_cached("SELECT revision FROM record WHERE place = ?1")?;
        statement.query_row([place::encode(place)], |row| row.get(0)).optional().map(|found| found.map(from_sql))
    }

    /// When each storage last changed.
    pub(super) fn floors(&self) -> rusqlite::Result<BTreeMap<SmolStr, Revision>> {
        let mut statement = self.connection.prepare("SELECT storage, changed FROM collection")?;
        let rows = statement.query_map([], |row| {
            let storage: String = row.get(0)?;
            Ok((SmolStr::from(storage), from_sql(row.get(1)?)))
        })?;
        rows.collect()
    }

    /// Hands every live record to `each` in chunks, until it answers false.
    pub(super) fn scan(&self, chunk_rows: usize, mut each: impl FnMut(Vec<Row>) -> bool) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare("SELECT place, revision, value FROM record")?;
        let mut rows = statement.query([])?;
        let mut chunk = Vec::with_capacity(chunk_rows);
        while let Some(row) = rows.next()? {
            let key = row.get_ref(0)?.as_blob()?;
            let Some(place) = place::decode(key) else {
                return Err(rusqlite::Error::InvalidColumnName(format!("place {key:?}")));
            };
            let value = Bytes::copy_from_slice(row.get_ref(2)?.as_blob()?);
            chunk.push(Row { place, revision: from_sql(row.get(1)?), value });
            if chunk_rows <= chunk.len() && !each(std::mem::replace(&mut chunk, Vec::with_capacity(chunk_rows))) {
                return Ok(());
            }
        }
        each(chunk);
        Ok(())
    }

    /// Moves the log into the file and gives free pages back. Returns the pages that are still only in the log.
    pub(super) fn checkpoint(&self) -> rusqlite::Result<i64> {
        let free: i64 = self.connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
        if VACUUM_PAGES_MAX / 8 < free {
            let mut statement = self.connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES_MAX})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
        }
        let (_busy, pages, done): (i64, i64, i64) =
            self.connection
                .query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(pages - done)
    }

    fn run(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }
}

/// Order matters: `auto_vacuum` before the first table, exclusive locking before WAL so that no shared memory is mapped.
fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(32);
    connection.execute_batch(&format!(
        "PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA locking_mode = EXCLUSIVE;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA journal_size_limit = {LOG_BYTES_KEPT};
         PRAGMA cache_size = -{CACHE_KIB};
         PRAGMA mmap_size = 0;
         PRAGMA temp_store = MEMORY;
         PRAGMA trusted_schema = OFF;"
    ))
}

/// An empty store is at revision 1, as an empty etcd is: 0 means "before everything" on the wire.
fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "BEGIN;
         CREATE TABLE meta (revision INTEGER NOT NULL) STRICT;
         INSERT INTO meta VALUES (1);
         CREATE TABLE collection (storage TEXT PRIMARY KEY, changed INTEGER NOT NULL) STRICT, WITHOUT ROWID;
         CREATE TABLE record (place BLOB NOT NULL UNIQUE, revision INTEGER NOT NULL, value BLOB NOT NULL) STRICT;
         PRAGMA user_version = {FORMAT};
         COMMIT;"
    ))
}

fn to_sql(revision: Revision) -> i64 {
    i64::try_from(revision.0).expect("2^63 revisions outlast the hardware")
}

fn from_sql(number: i64) -> Revision {
    Revision(u64::try_from(number).expect("only to_sql's numbers are written"))
}
