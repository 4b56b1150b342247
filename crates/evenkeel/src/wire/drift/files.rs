//! Files that Evenkeel writes and nobody else should: by the marks that their writer left on them, and by what the
//! runtime and the network say they wrote.
//!
//! A file is read again only when it changed: what a look costs does not depend on what the files hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use keeper::drift::{Kind, Look, State, Thing};
use serde::{Deserialize, Serialize};

use crate::layout::{DATA, Layout};
use crate::pki::{self, Access, MARKED_BYTES_MAX, read_mark, sha256_hex};

/// Files that are watched; further ones are not.
const FILES_MAX: usize = 512;
const UNIT: &str = "/etc/systemd/system/evenkeel.service";
const MODE: u32 = 0o7777;

/// What a file was written as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    pub sha256: String,
    /// None where it is the writer's environment that decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// What was written, by path: remembered, so that a file that was replaced or removed is missed.
pub type Known = BTreeMap<PathBuf, Written>;

/// What is the same as long as nobody touched the file.
type Stamp = (u64, u64, i64, i64, u32);

pub struct Files {
    layout: Layout,
    unit: PathBuf,
    /// Written by the runtime and the network, as they say.
    told: BTreeMap<PathBuf, String>,
    links: BTreeMap<PathBuf, PathBuf>,
    digests: BTreeMap<PathBuf, (Stamp, String)>,
    /// Content to put back, where that is the policy: of what was right when it was looked at.
    contents: Option<BTreeMap<PathBuf, Vec<u8>>>,
}

// === impl Files ===

impl Files {
    pub fn new(layout: &Layout, repair: bool) -> Files {
        Files {
            layout: layout.clone(),
            unit: PathBuf::from(UNIT),
            told: BTreeMap::new(),
            links: BTreeMap::new(),
            digests: BTreeMap::new(),
            contents: repair.then(BTreeMap::new),
        }
    }

    /// What others say they wrote, all of it.
    pub fn tell(&mut self, files: BTreeMap<PathBuf, String>, links: BTreeMap<PathBuf, PathBuf>) {
        (self.told, self.links) = (files, links);
    }

    /// Adds every file to the look, and what is newly known to `known`.
    pub fn look(&mut self, known: &mut Known, look: &mut Look) {
        for path in self.marked() {
            if let Some(mark) = read_mark(&path)
                && (known.len() < FILES_MAX || known.contains_key(&path))
            {
                known.insert(path, Written { sha256: mark.sha256, mode: Some(mark.mode) });
            }
        }
        // With its folder, a file went for a reason: a machine that left, a store that moved.
        known.retain(|path, _| path.parent().is_some_and(Path::exists));
        for (path, written) in &*known {
            self.one(path, written, look);
        }
        for (path, text) in self.told.clone() {
            let written = Written { sha256: sha256_hex(text.as_bytes()), mode: None };
            self.one(&path, &written, look);
        }
        for (path, target) in &self.links {
            let thing = Thing::new(Kind::File, path.display().to_string());
            look.want(thing.clone(), State::Link(target.display().to_string()));
            if let Some(state) = seen(path, None, &mut self.digests) {
                look.see(thing, state);
            }
        }
    }

    fn one(&mut self, path: &Path, written: &Written, look: &mut Look) {
        let thing = Thing::new(self.kind(path), path.display().to_string());
        let wanted = State::Content { sha256: written.sha256.clone(), mode: written.mode };
        let seen = seen(path, written.mode, &mut self.digests);
        if seen.as_ref() == Some(&wanted)
            && let Some(contents) = &mut self.contents
            && contents.get(path).is_none_or(|content| sha256_hex(content) != written.sha256)
            && let Ok(content) = fs::read(path)
        {
            contents.insert(path.to_owned(), content);
        }
        look.want(thing.clone(), wanted);
        if let Some(seen) = seen {
            look.see(thing, seen);
        }
    }

    /// Where files with marks lie.
    fn marked(&self) -> BTreeSet<PathBuf> {
        let layout = &self.layout;
        let folders = [layout.server_tls(), layout.server().join("cred"), layout.agent_tls(), layout.machine()];
        let inside = folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
        let hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let inside = inside.map(|entry| entry.path()).filter(|path| path.is_file() && !hidden(path));
        let single = [layout.token(), layout.kubeconfig()];
        let unit = self.starts_us().then(|| self.unit.clone());
        inside.chain(single).chain(unit).collect()
    }

    /// Whether the unit is this instance's.
    fn starts_us(&self) -> bool {
        let data = &self.layout.data;
        let Ok(text) = fs::read_to_string(&self.unit) else { return false };
        let named = text.contains(&format!("--data-dir={}", data.display()));
        named || (data == Path::new(DATA) && !text.contains("--data-dir="))
    }

    fn kind(&self, path: &Path) -> Kind {
        if path == self.unit {
            return Kind::Unit;
        }
        let tls = [self.layout.server_tls(), self.layout.agent_tls()];
        if tls.iter().any(|folder| path.starts_with(folder)) { Kind::Certificate } else { Kind::File }
    }

    /// Puts a file back as it was written; false where that content is not known.
    pub fn repair(&self, thing: &Thing, known: &Known) -> io::Result<bool> {
        let path = Path::new(&thing.name);
        if let Some(target) = self.links.get(path) {
            let part = path.with_extension("part");
            let _ = fs::remove_file(&part);
            std::os::unix::fs::symlink(target, &part)?;
            return fs::rename(&part, path).map(|()| true);
        }
        let mode = known.get(path).and_then(|written| written.mode);
        if let (Some(written), Some(mode)) = (known.get(path), mode)
            && fs::read(path).is_ok_and(|content| sha256_hex(&content) == written.sha256)
        {
            return fs::set_permissions(path, Permissions::from_mode(mode)).map(|()| true);
        }
        let told = self.told.get(path).map(|text| text.as_bytes().to_vec());
        let held = || self.contents.as_ref()?.get(path).cloned();
        let right = |content: &Vec<u8>| known.get(path).is_none_or(|written| sha256_hex(content) == written.sha256);
        let Some(content) = told.or_else(held).filter(right) else { return Ok(false) };
        // Settings of the runtime may hold passwords: what is made anew is for its owner alone.
        let mode = mode.or_else(|| Some(fs::metadata(path).ok()?.mode() & MODE)).unwrap_or(0o600);
        pki::write(path, &content, Access::Mode(mode)).map_err(io::Error::other)?;
        Ok(true)
    }
}

/// How a file is; None where there is none.
fn seen(path: &Path, mode: Option<u32>, digests: &mut BTreeMap<PathBuf, (Stamp, String)>) -> Option<State> {
    let metadata = fs::symlink_metadata(path).ok()?;
    if metadata.is_symlink() {
        let target = fs::read_link(path).map(|target| target.display().to_string());
        return Some(State::Link(target.unwrap_or_default()));
    }
    let stamp = stamp(&metadata);
    let sha256 = match digests.get(path).filter(|(known, _)| *known == stamp) {
        Some((_, sha256)) => sha256.clone(),
        None => {
            let sha256 = digest(path, &metadata);
            digests.insert(path.to_owned(), (stamp, sha256.clone()));
            sha256
        }
    };
    Some(State::Content { sha256, mode: mode.map(|_| metadata.mode() & MODE) })
}

fn digest(path: &Path, metadata: &Metadata) -> String {
    if MARKED_BYTES_MAX as u64 <= metadata.len() {
        return "too large".to_owned();
    }
    fs::read(path).map_or_else(|error| error.to_string(), |content| sha256_hex(&content))
}

fn stamp(metadata: &Metadata) -> Stamp {
    let nanos = |seconds: i64, nanos: i64| seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos);
    (
        metadata.ino(),
        metadata.len(),
        nanos(metadata.mtime(), metadata.mtime_nsec()),
        nanos(metadata.ctime(), metadata.ctime_nsec()),
        metadata.mode(),
    )
}

/// When a file was last changed in any way.
pub fn changed(path: &Path) -> Option<Timestamp> {
    Timestamp::from_second(fs::symlink_metadata(path).ok()?.ctime()).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use keeper::drift::{Kind, Look, compare};

    use super::{Files, Known};
    use crate::layout::Layout;
    use crate::pki::{Access, read_mark, write};

    fn differences(files: &mut Files, known: &mut Known) -> Vec<(Kind, String)> {
        let mut look = Look::default();
        files.look(known, &mut look);
        let short = |name: &str| name.rsplit('/').next().unwrap().to_owned();
        compare(&look).into_iter().map(|(thing, how)| (thing.kind, format!("{} {how}", short(&thing.name)))).collect()
    }

    #[test]
    fn changes_by_hand_are_found_and_the_writers_own_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path().join("data"));
        let (key, ca) = (layout.server_tls().join("ca.key"), layout.server_tls().join("ca.crt"));
        let token = layout.token();
        for path in [&key, &ca, &token] {
            write(path, b"one", Access::Secret).unwrap();
        }
        if read_mark(&key).is_none() {
            return eprintln!("skipped: no extended attributes here");
        }
        let (mut files, mut known) = (Files::new(&layout, true), Known::new());
        files.unit = folder.path().join("evenkeel.service");
        write(&files.unit, format!("ExecStart=e --data-dir={}", layout.data.display()).as_bytes(), Access::Public)
            .unwrap();
        assert!(differences(&mut files, &mut known).is_empty());
        write(&ca, b"renewed", Access::Secret).unwrap();
        assert!(differences(&mut files, &mut known).is_empty());
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&ca, "by hand").unwrap();
        fs::remove_file(&token).unwrap();
        // As an editor does it: another file in its place.
        let edited = folder.path().join("edited");
        fs::write(&edited, "ExecStart=other").unwrap();
        fs::rename(&edited, &files.unit).unwrap();
        let found = differences(&mut files, &mut known);
        let wanted = [
            (Kind::Certificate, "ca.crt its content was changed"),
            (Kind::Certificate, "ca.key its mode is 0644, was 0600"),
            (Kind::File, "token is gone"),
            (Kind::Unit, "evenkeel.service its content was changed"),
        ];
        assert_eq!(found, wanted.map(|(kind, text)| (kind, text.to_owned())));
        let mut look = Look::default();
        files.look(&mut known, &mut look);
        for thing in compare(&look).keys() {
            assert!(files.repair(thing, &known).unwrap(), "{}", thing.name);
        }
        assert!(differences(&mut files, &mut known).is_empty());
        assert_eq!(fs::read(&ca).unwrap(), b"renewed");
    }
}
