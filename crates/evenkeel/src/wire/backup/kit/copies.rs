//! Sealed copies of the recovery kit beside the bundles of every server: who lost the first machine before the kit was
//! carried away has it on the others. A copy opens with the proof key, which opens every bundle anyway.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::layout::Layout;
use crate::pki::{self, Access, Opener, seal_to};
use crate::wire::backup::signed::Key;

/// The kit that bundles are sealed to, and the one before.
pub const COPIES_MAX: usize = 2;
const PREFIX: &str = "evenkeel-kit-";
const END: &str = ".sealed";

/// Under the cluster's signature.
#[derive(Serialize, Deserialize)]
struct Copy {
    recipient: String,
    sealed: String,
}

/// Whether a file's name is that of a copy.
pub fn is_one(file: &str) -> bool {
    let time = file.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(END));
    time.is_some_and(|time| time.bytes().all(|byte| byte.is_ascii_digit() || b"tz".contains(&byte)))
}

/// The newest copies that one server has and another lacks.
pub fn missing<'a>(theirs: impl Iterator<Item = &'a String>, ours: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    let ours: BTreeSet<&str> = ours.map(String::as_str).filter(|file| is_one(file)).collect();
    let all: BTreeSet<&str> =
        theirs.map(String::as_str).filter(|file| is_one(file)).chain(ours.iter().copied()).collect();
    all.into_iter().rev().take(COPIES_MAX).filter(|file| !ours.contains(file)).collect()
}

/// Keeps a copy of a kit, and no more than the last ones.
pub fn keep(layout: &Layout, recipient: &str, text: &str, now: Timestamp) -> Result<()> {
    if open(layout, recipient)?.is_none() {
        let (key, own) = (Key::of(layout)?, super::standing(layout)?.proof);
        let sealed = STANDARD.encode(seal_to(&[Opener::recipient(&own)?], text.as_bytes())?);
        let copy = serde_json::to_string(&Copy { recipient: recipient.to_owned(), sealed })?;
        let mut at = now;
        let file = loop {
            let file = format!("{PREFIX}{}{END}", at.to_zoned(TimeZone::UTC).strftime("%Y%m%dt%H%M%Sz"));
            // Two within one second: the later one is the newer one.
            if !layout.backups().join(&file).exists() {
                break file;
            }
            at += jiff::SignedDuration::from_secs(1);
        };
        pki::write(&layout.backups().join(file), &key.sign(copy)?, Access::Secret)?;
    }
    prune(layout)
}

/// Lets those go that are older than the last ones.
pub fn prune(layout: &Layout) -> Result<()> {
    for file in files(layout)?.into_iter().rev().skip(COPIES_MAX) {
        fs::remove_file(layout.backups().join(&file)).with_context(|| format!("remove {file}"))?;
    }
    Ok(())
}

/// Whom the newest kit's bundles are sealed to.
pub fn newest(layout: &Layout) -> Result<Option<String>> {
    Ok(copies(layout)?.into_iter().next().map(|copy| copy.recipient))
}

/// The kit of a recipient, where there is a copy of it.
pub fn open(layout: &Layout, recipient: &str) -> Result<Option<String>> {
    let Some(copy) = copies(layout)?.into_iter().find(|copy| copy.recipient == recipient) else { return Ok(None) };
    let sealed = STANDARD.decode(&copy.sealed).context("the copy of the kit is damaged")?;
    let text = Key::of(layout)?.open(&sealed).context("open the copy of the kit")?;
    Ok(Some(String::from_utf8(text).context("the copy of the kit is damaged")?))
}

/// Newest first. What this cluster did not write is told and passed over.
fn copies(layout: &Layout) -> Result<Vec<Copy>> {
    let files = files(layout)?;
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let key = Key::of(layout)?;
    let read = |file: &String| -> Result<Copy> {
        Ok(serde_json::from_str(&key.read(&fs::read(layout.backups().join(file))?)?)?)
    };
    let told = |file: String| read(&file).inspect_err(|why| warn!(file, "no copy of the kit: {why:#}")).ok();
    Ok(files.into_iter().rev().filter_map(told).collect())
}

/// Oldest first.
fn files(layout: &Layout) -> Result<BTreeSet<String>> {
    let entries = match fs::read_dir(layout.backups()) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries.with_context(|| format!("read {}", layout.backups().display()))?,
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| is_one(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::{COPIES_MAX, files, is_one, keep, missing, newest};
    use crate::layout::Layout;
    use crate::pki::recipient;
    use crate::wire::backup::kit::standing;
    use jiff::Timestamp;

    #[test]
    fn the_last_kits_are_kept_and_the_newest_counts() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        standing(&layout).unwrap();
        for _ in 0..3 {
            let (public, secret) = recipient().unwrap();
            let now = Timestamp::MAX - jiff::SignedDuration::from_hours(1);
            keep(&layout, &public, &secret, now).unwrap();
            keep(&layout, &public, &secret, now).unwrap();
            assert_eq!(newest(&layout).unwrap(), Some(public));
        }
        assert_eq!(files(&layout).unwrap().len(), COPIES_MAX);
    }

    #[test]
    fn what_retention_let_go_is_not_fetched_again() {
        let name = |day: u32| format!("evenkeel-kit-202601{day:02}t000000z.sealed");
        let wanted = |theirs: &[u32], ours: &[u32]| {
            let (theirs, ours): (Vec<String>, Vec<String>) =
                (theirs.iter().map(|day| name(*day)).collect(), ours.iter().map(|day| name(*day)).collect());
            missing(theirs.iter(), ours.iter()).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(wanted(&[1, 2, 3], &[]), [name(3), name(2)]);
        assert_eq!(wanted(&[1, 2], &[2, 3]), Vec::<String>::new());
        assert!(!is_one("evenkeel-kit-../../x.sealed") && !is_one("evenkeel-20260101t000000z-r7.bundle"));
    }
}
