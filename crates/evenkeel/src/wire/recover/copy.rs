//! A folder copied whole, and whether it kept still meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

/// Files with their lengths and times, to see whether somebody writes.
pub type Stamp = BTreeMap<PathBuf, (u64, SystemTime)>;

/// Copies a folder and everything below it, durably.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let source = entry?.path();
        let target = to.join(source.file_name().unwrap_or_default());
        if source.is_dir() {
            copy(&source, &target)?;
        } else if source.is_file() {
            fs::copy(&source, &target).with_context(|| format!("copy to {}", target.display()))?;
            fs::File::open(&target).and_then(|file| file.sync_all())?;
        }
    }
    fs::File::open(to).and_then(|folder| folder.sync_all()).with_context(|| format!("sync {}", to.display()))
}

pub fn stamp(folder: &Path) -> Result<Stamp> {
    let mut stamp = Stamp::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            stamp.extend(self::stamp(&path)?);
        } else {
            let meta = fs::metadata(&path).with_context(|| format!("look at {}", path.display()))?;
            stamp.insert(path, (meta.len(), meta.modified()?));
        }
    }
    Ok(stamp)
}

/// Removes a folder that may not be there.
pub fn clear(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{clear, copy, stamp};
    use std::fs;

    #[test]
    fn a_copy_is_whole_and_a_change_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("member/wal")).unwrap();
        fs::write(from.join("member/wal/0.wal"), "log").unwrap();
        let before = stamp(&from).unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("member/wal/0.wal")).unwrap(), "log");
        assert_eq!(before, stamp(&from).unwrap());
        fs::write(from.join("member/wal/0.wal"), "more log").unwrap();
        assert_ne!(before, stamp(&from).unwrap());
        clear(&to).unwrap();
        clear(&to).unwrap();
        assert!(!to.exists());
    }
}
