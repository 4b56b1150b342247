//! `fsGroup`: a volume's files belong to the pod's group.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

const DIR_BITS: u32 = 0o2770;
const FILE_BITS: u32 = 0o660;
const READONLY_MASK: u32 = 0o7550 | 0o2000;

/// Whether the top folder already looks as `apply` leaves it (`fsGroupChangePolicy: OnRootMismatch`).
pub fn root_matches(root: &Path, group: u32, readonly: bool) -> bool {
    let wanted = bits(true, readonly);
    fs::metadata(root).is_ok_and(|meta| meta.gid() == group && meta.permissions().mode() & wanted == wanted)
}

/// Gives everything below `root` to `group`, readable (and writable unless `readonly`) by it; folders pass the group on.
pub fn apply(root: &Path, group: u32, readonly: bool) -> io::Result<()> {
    let mut open = vec![root.to_path_buf()];
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path)?;
        if meta.gid() != group {
            lchown(&path, None, Some(group))?;
        }
        if meta.file_type().is_symlink() {
            continue;
        }
        let mode = meta.permissions().mode() & 0o7777;
        let wanted = mode | bits(meta.is_dir(), readonly);
        if wanted != mode {
            fs::set_permissions(&path, fs::Permissions::from_mode(wanted))?;
        }
        if meta.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        }
    }
    Ok(())
}

fn bits(dir: bool, readonly: bool) -> u32 {
    let bits = if dir { DIR_BITS } else { FILE_BITS };
    if readonly { bits & READONLY_MASK } else { bits }
}
