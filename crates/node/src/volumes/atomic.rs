//! Files that change all at once: a folder of the new content, one symlink swapped onto it.
//!
//! Readers see `name -> ..data/name` and `..data -> ..STAMP`; renaming a new `..data` over the old one is the commit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path};

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub bytes: Vec<u8>,
    pub mode: u32,
}

/// Relative path to content.
pub type Payload = BTreeMap<String, File>;

/// Brings `target` to hold exactly `payload`. `stamp` names the new folder and must differ from call to call.
/// `own` is applied to the new folder before it is seen. Returns whether anything changed.
pub fn write(
    target: &Path,
    payload: &Payload,
    stamp: &str,
    own: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<bool> {
    for path in payload.keys() {
        check(path)?;
    }
    let old = fs::read_link(target.join(DATA)).ok();
    if let Some(old) = &old
        && same(&target.join(old), payload)?
    {
        link_names(target, payload)?;
        return Ok(false);
    }
    let folder = format!("..{stamp}");
    let fresh = target.join(&folder);
    fs::create_dir_all(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        let at = fresh.join(path);
        if let Some(parent) = at.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&at, &file.bytes)?;
        fs::set_permissions(&at, fs::Permissions::from_mode(file.mode))?;
    }
    own(&fresh)?;
    let new_link = target.join(DATA_NEW);
    let _ = fs::remove_file(&new_link);
    symlink(&folder, &new_link)?;
    fs::rename(&new_link, target.join(DATA))?;
    link_names(target, payload)?;
    if let Some(old) = old.filter(|old| old.as_path() != Path::new(&folder)) {
        fs::remove_dir_all(target.join(old))?;
    }
    Ok(true)
}

/// Paths stay inside and away from our own names.
fn check(path: &str) -> io::Result<()> {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if path.is_empty() || !plain || path.starts_with("..") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path {path:?}")));
    }
    Ok(())
}

fn same(folder: &Path, payload: &Payload) -> io::Result<bool> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        let Ok(entries) = fs::read_dir(&at) else { return Ok(false) };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(relative) = path.strip_prefix(folder) {
                found.insert(relative.to_string_lossy().into_owned());
            }
        }
    }
    if !found.iter().eq(payload.keys()) {
        return Ok(false);
    }
    for (path, file) in payload {
        let at = folder.join(path);
        // Group bits may have been added by ownership.
        let mode = fs::metadata(&at)?.permissions().mode() & 0o777;
        if mode & file.mode != file.mode & 0o777 || fs::read(&at)? != file.bytes {
            return Ok(false);
        }
    }
    Ok(true)
}

/// One symlink per first path component; those of names that went are removed.
fn link_names(target: &Path, payload: &Payload) -> io::Result<()> {
    let first = |path: &String| path.split('/').next().unwrap_or_default().to_owned();
    let names: BTreeSet<String> = payload.keys().map(first).collect();
    for name in &names {
        let link = target.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(target)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !names.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files.iter().map(|(p, text)| ((*p).to_owned(), File { bytes: text.as_bytes().to_vec(), mode: 0o644 })).collect()
    }

    #[test]
    fn content_is_swapped_at_once_and_old_names_go() {
        let dir = tempfile::tempdir().unwrap();
        let put = |stamp: &str, files: &[(&str, &str)]| write(dir.path(), &payload(files), stamp, |_| Ok(())).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).ok();
        assert!(put("1", &[("a", "x"), ("sub/b", "y")]));
        assert_eq!((read("a").as_deref(), read("sub/b").as_deref()), (Some("x"), Some("y")));
        assert!(!put("2", &[("a", "x"), ("sub/b", "y")]));
        assert!(put("3", &[("a", "z")]));
        assert_eq!((read("a").as_deref(), read("sub/b")), (Some("z"), None));
        assert!(fs::symlink_metadata(dir.path().join("sub")).is_err());
        assert!(!dir.path().join("..1").exists());
        assert_eq!(fs::read_link(dir.path().join("a")).unwrap(), Path::new("..data/a"));
    }

    #[test]
    fn paths_cannot_leave_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["../x", "/x", "a/../../x", "", "..data"] {
            assert!(write(dir.path(), &payload(&[(bad, "x")]), "1", |_| Ok(())).is_err(), "{bad:?}");
        }
    }
}
