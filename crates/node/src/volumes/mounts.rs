//! The machine's mount list, and taking mounts away by it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

/// Tries for a mount that is stacked or busy before it is detached lazily.
const UNMOUNT_TRIES_MAX: usize = 8;

/// Mount points at or below `root`, deepest first.
pub fn below(root: &Path) -> io::Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let mut found: Vec<PathBuf> = parse(&text).filter(|path| path.starts_with(root)).collect();
    found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    Ok(found)
}

fn parse(text: &str) -> impl Iterator<Item = PathBuf> + '_ {
    text.lines().filter_map(|line| line.split(' ').nth(4)).map(|path| PathBuf::from(unescape(path)))
}

/// Blank, tab, newline and backslash are written as three octal digits.
fn unescape(path: &str) -> String {
    let mut out = String::new();
    let mut rest = path;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

pub fn is_mounted(path: &Path) -> bool {
    below(path).is_ok_and(|list| list.iter().any(|mounted| mounted == path))
}

pub fn tmpfs(path: &Path, size_bytes: Option<u64>) -> io::Result<()> {
    if is_mounted(path) {
        return Ok(());
    }
    let options = size_bytes.map_or_else(String::new, |bytes| format!("size={bytes}"));
    let options = std::ffi::CString::new(options).expect("digits hold no NUL");
    rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), Some(options.as_c_str())).map_err(io::Error::from)
}

pub fn bind(from: &Path, to: &Path) -> io::Result<()> {
    rustix::mount::mount_bind(from, to).map_err(io::Error::from)
}

/// Unmounts everything at or below `root`.
pub fn unmount_below(root: &Path) -> io::Result<()> {
    for _ in 0..UNMOUNT_TRIES_MAX {
        let list = below(root)?;
        if list.is_empty() {
            return Ok(());
        }
        for path in list {
            let plain = rustix::mount::unmount(&path, UnmountFlags::NOFOLLOW);
            if plain.is_err() {
                let _ = rustix::mount::unmount(&path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH);
            }
        }
    }
    match below(root)?.first() {
        None => Ok(()),
        Some(path) => Err(io::Error::other(format!("{} stays mounted", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_paths_are_unescaped() {
        let text = "36 35 98:0 / /mnt/a\\040b rw,noatime master:1 - ext3 /dev/root rw\n";
        assert_eq!(parse(text).collect::<Vec<_>>(), [PathBuf::from("/mnt/a b")]);
    }
}
