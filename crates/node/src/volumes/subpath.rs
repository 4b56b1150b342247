//! `subPath`: a file or folder inside a volume, found without leaving the volume through a symlink.
//!
//! The kernel resolves the path beneath the volume's root; what it found is bind-mounted to a place of ours, so that
//! nobody can swap it afterwards.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::mounts;

/// Binds `root/sub` to `place`, making missing folders of it. Does nothing when it is bound already.
pub fn bind(root: &Path, sub: &Path, place: &Path, writable: bool) -> io::Result<()> {
    if mounts::is_mounted(place) {
        return Ok(());
    }
    if !sub.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("subPath {} is not below its volume", sub.display()),
        ));
    }
    let found = open(root, sub, writable)?;
    let is_dir = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode).is_dir();
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    if is_dir {
        fs::create_dir_all(place)?;
    } else if !place.exists() {
        fs::write(place, b"")?;
    }
    let link = format!("/proc/self/fd/{}", found.as_raw_fd());
    mounts::bind(Path::new(&link), place)
}

fn open(root: &Path, sub: &Path, create: bool) -> io::Result<OwnedFd> {
    let top = rustix::fs::open(root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    match beneath(&top, sub) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && create => {}
        found => return found,
    }
    let mut done = std::path::PathBuf::new();
    let mut parent = beneath(&top, Path::new("."))?;
    for part in sub.components() {
        done.push(part);
        parent = match beneath(&top, &done) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                rustix::fs::mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o750))?;
                let mode = rustix::fs::fstat(&top)?.st_mode & 0o7777;
                let made = beneath(&top, &done)?;
                // As the volume itself, so that the pod's users may use what they asked for.
                let link = format!("/proc/self/fd/{}", made.as_raw_fd());
                fs::set_permissions(link, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
                made
            }
            found => found?,
        };
    }
    Ok(parent)
}

fn beneath(top: &impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(top, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).map_err(io::Error::from)
}
