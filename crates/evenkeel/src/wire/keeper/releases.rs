//! Programs that lie on a machine: `<data>/releases/<version>-<sha256>/evenkeel`. What lies there is whole: it was
//! compared with its name and said what it is.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use keeper::{Digest, Release};
use tokio::sync::Mutex;

use super::ports::{Piece, Programs};
use super::program::About;
use super::{PIECE_BYTES, Received};
use crate::layout::Layout;

/// The one that runs, the one before, and one that is to come; a few more make going back and forth cheap.
const RELEASES_MAX: usize = 4;
/// A program larger than this is none.
pub const PROGRAM_BYTES_MAX: u64 = 1 << 30;
/// What a disk keeps free beside the program.
pub const RESERVE_BYTES: u64 = 256 << 20;
const NAME: &str = "evenkeel";
const ABSENT: &str = "this program does not lie here";

pub struct Releases {
    folder: PathBuf,
    /// Pieces are taken one after the other.
    receiving: Mutex<()>,
}

// === impl Releases ===

impl Releases {
    pub fn new(layout: &Layout) -> Releases {
        Releases { folder: layout.releases(), receiving: Mutex::new(()) }
    }

    /// What lies here, the oldest first.
    pub fn list(&self) -> Vec<Release> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries
            .filter_map(|entry| {
                Some((entry.metadata().ok()?.modified().ok()?, parse(&entry.file_name().to_string_lossy())?))
            })
            .collect();
        found.sort_by_key(|(at, _)| *at);
        found.into_iter().map(|(_, release)| release).collect()
    }

    pub fn find(&self, program: &Digest) -> Option<(Release, PathBuf)> {
        let release = self.list().into_iter().find(|release| release.program == *program)?;
        let path = self.path(&release);
        Some((release, path))
    }

    fn path(&self, release: &Release) -> PathBuf {
        self.folder.join(format!("{}-{}", release.version, release.program)).join(NAME)
    }

    /// Takes a piece where it fits at the end of what is here; a repeated piece changes nothing.
    pub async fn take(&self, program: &Digest, offset: u64, size: u64, piece: &[u8]) -> Result<Received> {
        ensure!(size <= PROGRAM_BYTES_MAX, "a program of {size} bytes is larger than {PROGRAM_BYTES_MAX}");
        let _one = self.receiving.lock().await;
        if let Some((_, path)) = self.find(program) {
            let about = Some(About::of(&path).await?);
            return Ok(Received { bytes: fs::metadata(&path)?.len(), about });
        }
        let part = self.folder.join(format!(".{program}.part"));
        fs::create_dir_all(&self.folder).with_context(|| format!("make {}", self.folder.display()))?;
        let written = append(&part, offset, piece).with_context(|| format!("write {}", part.display()))?;
        if written < size {
            return Ok(Received { bytes: written, about: None });
        }
        match self.admit(&part, program).await {
            Ok(about) => Ok(Received { bytes: size, about: Some(about) }),
            Err(failure) => {
                let _ = fs::remove_file(&part);
                Err(failure)
            }
        }
    }

    /// A whole program gets its place once it is what its name says, and can say what it is.
    async fn admit(&self, part: &Path, program: &Digest) -> Result<About> {
        let opened = File::open(part)?;
        opened.sync_all()?;
        let found = tokio::task::spawn_blocking(move || Digest::of_reader(opened)).await??;
        ensure!(found == *program, "it is not the program that was sent: its SHA-256 is {}", found.short());
        fs::set_permissions(part, fs::Permissions::from_mode(0o755))?;
        let about = About::of(part).await?;
        let path = self.path(&Release { version: about.version.as_str().into(), program: program.clone() });
        place(part, &path)?;
        Ok(about)
    }

    /// Keeps the program that runs, so that there is a way back to it.
    pub async fn keep_own(&self, own: &Release) -> Result<PathBuf> {
        let _one = self.receiving.lock().await;
        if let Some((_, path)) = self.find(&own.program) {
            return Ok(path);
        }
        fs::create_dir_all(&self.folder).with_context(|| format!("make {}", self.folder.display()))?;
        let part = self.folder.join(format!(".{}.own", own.program));
        let (from, to) = (PathBuf::from("/proc/self/exe"), part.clone());
        tokio::task::spawn_blocking(move || fs::copy(from, to)).await?.context("keep this program")?;
        File::open(&part)?.sync_all()?;
        fs::set_permissions(&part, fs::Permissions::from_mode(0o755))?;
        let path = self.path(own);
        place(&part, &path)?;
        Ok(path)
    }

    /// A piece of what lies here, for another node.
    pub fn read(&self, program: &Digest, offset: u64) -> Result<Vec<u8>> {
        let (_, path) = self.find(program).context(ABSENT)?;
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut piece = Vec::new();
        file.take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
        Ok(piece)
    }

    pub fn free_bytes(&self) -> Result<u64> {
        let folder = if self.folder.exists() { self.folder.as_path() } else { Path::new("/") };
        let disk = rustix::fs::statvfs(folder).with_context(|| format!("look at the disk of {}", folder.display()))?;
        Ok(disk.f_bavail * disk.f_frsize)
    }

    /// Removes the oldest beyond what is kept, and what was never whole.
    pub fn prune(&self, needed: &[Digest]) -> Result<()> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with('.')) {
            fs::remove_file(entry.path())?;
        }
        let list = self.list();
        let surplus = list.len().saturating_sub(RELEASES_MAX);
        for release in list.into_iter().filter(|release| !needed.contains(&release.program)).take(surplus) {
            let path = self.path(&release);
            fs::remove_dir_all(path.parent().context("a release has a folder")?)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Programs for Releases {
    fn lies_here(&self, program: &Digest) -> Option<Release> {
        self.find(program).map(|(release, _)| release)
    }

    fn size(&self, program: &Digest) -> Result<u64> {
        let (_, path) = self.find(program).context(ABSENT)?;
        Ok(fs::metadata(path)?.len())
    }

    fn piece(&self, program: &Digest, offset: u64) -> Result<Bytes> {
        self.read(program, offset).map(Bytes::from)
    }

    async fn receive(&self, piece: &Piece) -> Result<Received> {
        self.take(&piece.program, piece.offset, piece.size, &piece.bytes).await
    }

    async fn about(&self, program: &Digest) -> Result<About> {
        let (_, path) = self.find(program).context(ABSENT)?;
        About::of(&path).await
    }
}

fn parse(name: &str) -> Option<Release> {
    let (version, program) = name.rsplit_once('-')?;
    Some(Release { version: version.into(), program: Digest::parse(program)? })
}

/// Answers how much is there afterwards.
fn append(part: &Path, offset: u64, piece: &[u8]) -> std::io::Result<u64> {
    let mut file = OpenOptions::new().create(true).append(true).open(part)?;
    let have = file.metadata()?.len();
    if have != offset {
        return Ok(have);
    }
    file.write_all(piece)?;
    Ok(have + piece.len() as u64)
}

/// Gives a file its place: durable with the folder that names it.
fn place(part: &Path, path: &Path) -> Result<()> {
    let folder = path.parent().context("a release has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    fs::rename(part, path).with_context(|| format!("write {}", path.display()))?;
    File::open(folder)?.sync_all()?;
    Ok(File::open(folder.parent().unwrap_or(folder))?.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::Releases;
    use crate::layout::Layout;
    use keeper::Digest;

    /// Says of itself what a program says.
    const PROGRAM: &[u8] =
        b"#!/bin/sh\necho '{\"version\":\"0.2.0\",\"kubernetes\":\"v1\",\"level\":1,\"levelMin\":1}'\n";

    #[tokio::test]
    async fn pieces_make_a_program_that_is_what_its_name_says() {
        let folder = tempfile::tempdir().unwrap();
        let releases = Releases::new(&Layout::new(folder.path()));
        let (digest, size) = (Digest::of_bytes(PROGRAM), PROGRAM.len() as u64);
        let half = releases.take(&digest, 0, size, &PROGRAM[..20]).await.unwrap();
        assert_eq!((half.bytes, half.about), (20, None));
        // A piece that does not fit says where the next one begins.
        assert_eq!(releases.take(&digest, 40, size, &PROGRAM[40..]).await.unwrap().bytes, 20);
        let whole = releases.take(&digest, 20, size, &PROGRAM[20..]).await.unwrap();
        assert_eq!(whole.about.unwrap().version, "0.2.0");
        assert_eq!(releases.find(&digest).unwrap().0.version, "0.2.0");
        assert_eq!(releases.read(&digest, 20).unwrap(), &PROGRAM[20..]);
        assert!(releases.take(&digest, 0, size, PROGRAM).await.unwrap().about.is_some(), "again is the same");
    }

    #[tokio::test]
    async fn what_is_damaged_or_no_program_has_no_place() {
        let folder = tempfile::tempdir().unwrap();
        let releases = Releases::new(&Layout::new(folder.path()));
        let other = Digest::of_bytes(b"another");
        let said = releases.take(&other, 0, 3, b"abc").await.unwrap_err().to_string();
        assert!(said.contains("not the program that was sent"), "{said}");
        let text = Digest::of_bytes(b"abc");
        assert!(releases.take(&text, 0, 3, b"abc").await.is_err());
        assert_eq!(releases.list(), []);
    }

    #[tokio::test]
    async fn few_are_kept_and_those_that_are_needed() {
        let folder = tempfile::tempdir().unwrap();
        let releases = Releases::new(&Layout::new(folder.path()));
        let mut digests = Vec::new();
        for number in 0..7 {
            let program = [PROGRAM, format!("# {number}\n").as_bytes()].concat();
            let digest = Digest::of_bytes(&program);
            releases.take(&digest, 0, program.len() as u64, &program).await.unwrap();
            digests.push(digest);
        }
        releases.prune(&digests[..1]).unwrap();
        assert!(releases.list().len() <= 4 && releases.find(&digests[0]).is_some());
    }
}
