//! The folders of `local-path` volumes: made for any user when the first pod comes, removed when the control plane asks.
//!
//! All lie side by side under one root. A path that is not exactly one name below it is refused, whoever wrote it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// Pods run as any user; what keeps them apart is that a pod sees only its own folder.
const MODE: u32 = 0o777;

/// Makes the folder of a volume, unless it is there.
pub fn make(root: Option<&Path>, path: &Path) -> io::Result<()> {
    let root = root.ok_or_else(|| io::Error::other("this node keeps no local-path volumes"))?;
    let outside = || refused(&format!("{} is not a folder of {}", path.display(), root.display()));
    let name = path.strip_prefix(root).map_err(|_| outside())?;
    let place = place(root, name).ok_or_else(outside)?;
    fs::create_dir_all(root)?;
    match fs::create_dir(&place) {
        Ok(()) => fs::set_permissions(&place, fs::Permissions::from_mode(MODE)),
        // What lies there is the claim's data, with the mode that its pods gave it. A link could lead anywhere.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::symlink_metadata(&place)?.is_dir() {
                Ok(())
            } else {
                Err(outside())
            }
        }
        Err(error) => Err(error),
    }
}

/// Removes a folder by name; one that is not there counts as removed. Links are removed, not followed.
pub fn remove(root: &Path, name: &str) -> io::Result<()> {
    let outside = || refused(&format!("{name:?} is not a folder of {}", root.display()));
    let place = place(root, Path::new(name)).ok_or_else(outside)?;
    match fs::remove_dir_all(&place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn place(root: &Path, name: &Path) -> Option<PathBuf> {
    let mut parts = name.components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) => Some(root.join(name)),
        _ => None,
    }
}

fn refused(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn folders_are_for_everybody_and_stay_below_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("storage");
        make(Some(&root), &root.join("pvc-1")).unwrap();
        assert_eq!(fs::metadata(root.join("pvc-1")).unwrap().permissions().mode() & 0o7777, 0o777);
        // A pod may close its folder; a second look leaves that.
        fs::set_permissions(root.join("pvc-1"), fs::Permissions::from_mode(0o700)).unwrap();
        make(Some(&root), &root.join("pvc-1")).unwrap();
        assert_eq!(fs::metadata(root.join("pvc-1")).unwrap().permissions().mode() & 0o7777, 0o700);
        symlink("/etc", root.join("link")).unwrap();
        for bad in ["../x", "a/b", "", ".", "link"] {
            assert!(make(Some(&root), &root.join(bad)).is_err(), "{bad:?}");
        }
        assert!(make(Some(&root), Path::new("/etc")).is_err());
        assert!(make(None, &root.join("pvc-1")).is_err());
    }

    #[test]
    fn removal_takes_one_folder_and_follows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("storage");
        let outside = dir.path().join("outside");
        fs::create_dir_all(root.join("pvc-1/deep")).unwrap();
        fs::create_dir_all(&outside).unwrap();
        symlink(&outside, root.join("pvc-1/deep/link")).unwrap();
        remove(&root, "pvc-1").unwrap();
        remove(&root, "pvc-1").unwrap();
        assert!(!root.join("pvc-1").exists() && outside.exists());
        for bad in ["../outside", "/etc", "", "..", "."] {
            assert!(remove(&root, bad).is_err(), "{bad:?}");
        }
        assert!(outside.exists() && root.exists());
    }
}
