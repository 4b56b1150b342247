//! The word of a file's writer on the file itself: an extended attribute with the digest and the mode it was written with.
//!
//! It is set before the file gets its name, so it is there whenever the file is; whoever changes the content leaves a digest
//! that does not fit, and whoever replaces the file leaves none. A file system that has no such attributes is no reason to
//! fail: its files are not watched.

use std::fs::File;
use std::path::Path;

use rustix::fs::{XattrFlags, fsetxattr, getxattr};

use super::sha256_hex;

const NAME: &str = "user.evenkeel.written";
/// Files larger than this carry no mark: bundles are sealed, and nobody edits them.
pub const MARKED_BYTES_MAX: usize = 1 << 20;
const MARK_BYTES_MAX: usize = 128;

/// What a file was written as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub sha256: String,
    pub mode: u32,
}

pub(super) fn set(file: &File, content: &[u8], mode: u32) {
    if content.len() <= MARKED_BYTES_MAX {
        let text = format!("{} {mode:o}", sha256_hex(content));
        let _ = fsetxattr(file, NAME, text.as_bytes(), XattrFlags::empty());
    }
}

/// The mark of a file; None where it has none.
pub fn read(path: &Path) -> Option<Mark> {
    let mut bytes = [0; MARK_BYTES_MAX];
    let length = getxattr(path, NAME, &mut bytes[..]).ok()?;
    let text = std::str::from_utf8(bytes.get(..length)?).ok()?;
    let (sha256, mode) = text.split_once(' ')?;
    Some(Mark { sha256: sha256.to_owned(), mode: u32::from_str_radix(mode, 8).ok()? })
}

#[cfg(test)]
mod tests {
    use super::super::{Access, sha256_hex, write};
    use super::read;

    #[test]
    fn a_mark_stays_with_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write(&path, b"one", Access::Secret).unwrap();
        let Some(mark) = read(&path) else { return eprintln!("skipped: no extended attributes here") };
        assert_eq!((mark.sha256.clone(), mark.mode), (sha256_hex(b"one"), 0o600));
        std::fs::write(&path, "two").unwrap();
        assert_eq!(read(&path), Some(mark), "a change in place leaves a mark that does not fit");
        let other = folder.path().join("other");
        std::fs::write(&other, "three").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(read(&path), None);
    }
}
