//! A disk of a simulated host: a file system in a file, which can be filled, frozen, or fail.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::host::Host;
use crate::tool::Tool;

/// Few enough to be used up quickly.
const INODES: u32 = 2_000;

/// The disk, and where it is mounted.
pub struct Disk {
    pub file: PathBuf,
    pub folder: PathBuf,
}

// === impl Disk ===

impl Disk {
    pub fn new(file: PathBuf, folder: PathBuf) -> Disk {
        Disk { file, folder }
    }

    /// Has it mounted on the host, made anew where there is none.
    pub fn insert(&self, host: &Host, megabytes: u32) -> anyhow::Result<()> {
        let (file, folder) = (self.file.display(), self.folder.display());
        if host.tool("mountpoint")?.call(&["-q", &folder.to_string()], "")?.success {
            return Ok(());
        }
        fs::create_dir_all(&self.folder).with_context(|| format!("create {folder}"))?;
        if !self.file.exists() {
            fs::File::create(&self.file).and_then(|file| file.set_len(u64::from(megabytes) << 20))?;
            Tool::new("mkfs.ext4").ok(&format!("-q -F -m 0 -N {INODES} {file}"))?;
        }
        host.tool("mount")?.ok(&format!("-o loop {file} {folder}"))?;
        host.tool("chmod")?.ok(&format!("700 {folder}")).map(drop)
    }

    /// Has it mounted on this machine, made anew.
    pub fn attach(&self, megabytes: u32) -> anyhow::Result<()> {
        fs::File::create(&self.file).and_then(|file| file.set_len(u64::from(megabytes) << 20))?;
        Tool::new("mkfs.ext4").ok(&format!("-q -F -m 0 {}", self.file.display()))?;
        Tool::new("mount").ok(&format!("-o loop {} {}", self.file.display(), self.folder.display())).map(drop)
    }

    /// Takes it away again, with its content.
    pub fn detach(&self) -> anyhow::Result<()> {
        Tool::new("umount").ok(&self.folder.display().to_string())?;
        self.throw_away()
    }

    /// Nothing that writes to it comes back until it is thawed.
    pub fn freeze(&self, host: &Host) -> anyhow::Result<()> {
        host.tool("fsfreeze")?.ok(&format!("-f {}", self.folder.display())).map(drop)
    }

    pub fn thaw(&self, host: &Host) -> anyhow::Result<()> {
        host.tool("fsfreeze")?.ok(&format!("-u {}", self.folder.display())).map(drop)
    }

    /// Its content is gone; whoever reads or writes it is told of an I/O error.
    pub fn destroy(&self) -> anyhow::Result<()> {
        let file = fs::File::options().write(true).open(&self.file).context("open the disk")?;
        file.set_len(0).context("cut the disk off")?;
        // The kernel would go on with the size that it knew, and make the file longer again.
        let device = Tool::new("losetup").ok(&format!("-n -O NAME -j {}", self.file.display()))?;
        Tool::new("losetup").ok(&format!("-c {}", device.trim())).map(drop)
    }

    pub fn throw_away(&self) -> anyhow::Result<()> {
        remove_if_there(&self.file)
    }
}

fn remove_if_there(file: &Path) -> anyhow::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", file.display()))
        }
        _ => Ok(()),
    }
}
