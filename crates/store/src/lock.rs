//! The data lock: one process per data folder, released by the kernel when the process dies.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Held for as long as the process uses the folder.
#[derive(Debug)]
pub struct DataLock {
    /// Closing the file releases the lock.
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another process uses {path}")]
    Held { path: PathBuf },
    #[error("lock {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl DataLock {
    /// Takes the lock of a data folder, or says at once that another process has it.
    ///
    /// # Errors
    /// When it is held, or the lock file cannot be made.
    pub fn acquire(folder: &Path) -> Result<DataLock, LockError> {
        let path = folder.join("lock");
        let io_error = |source: io::Error| LockError::Io { path: path.clone(), source };
        std::fs::create_dir_all(folder).map_err(io_error)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(io_error)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(DataLock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Held { path: folder.to_owned() }),
            Err(errno) => Err(io_error(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DataLock, LockError};

    #[test]
    fn a_folder_has_one_holder() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataLock::acquire(folder.path()).unwrap();
        assert!(matches!(DataLock::acquire(folder.path()), Err(LockError::Held { .. })));
        drop(first);
        DataLock::acquire(folder.path()).unwrap();
    }
}
