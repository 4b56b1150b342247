//! Where bundles are kept. A target is a flat set of files: bundles, and beside each what a proof of it said.

mod folder;
mod s3;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use jiff::Timestamp;
use keeper::backup::{BundleName, Evidence, Held, Retention};

use super::apps::{bundle_of, files_of};
use super::kit;

pub use folder::Folder;
pub use s3::{S3, S3Options};

/// Added to a bundle's name for the evidence of a proof that passed, or of one that failed.
const PROVEN: &str = ".proven.json";
const FAILED: &str = ".failed.json";

/// Keeps files by name.
#[async_trait]
pub trait Target: Send + Sync {
    /// How people know it: a folder or an address.
    fn name(&self) -> String;

    fn kind(&self) -> &'static str;

    /// Whether it outlives this machine.
    fn is_offsite(&self) -> bool;

    /// Names and sizes of all files.
    async fn list(&self) -> Result<BTreeMap<String, u64>>;

    /// Writes a file whole or not at all.
    async fn put(&self, file: &str, content: &[u8]) -> Result<()>;

    async fn get(&self, file: &str) -> Result<Vec<u8>>;

    /// Removing what is not there is no error.
    async fn remove(&self, file: &str) -> Result<()>;
}

/// A bundle in a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub name: BundleName,
    pub bytes: u64,
    /// What the newest proof said; None where none was tried.
    pub proven: Option<bool>,
}

/// Whether a file belongs beside bundles, and is sealed as they are: of an application's backup, or a copy of the kit.
pub fn is_beside(file: &str) -> bool {
    bundle_of(file).is_some() || kit::copies::is_one(file)
}

/// What lies beside the bundles of a target.
pub async fn beside(target: &dyn Target) -> Result<BTreeMap<String, u64>> {
    let mut files = target.list().await?;
    files.retain(|file, _| is_beside(file));
    Ok(files)
}

/// The bundles of a target, oldest first.
pub async fn bundles(target: &dyn Target) -> Result<Vec<Stored>> {
    Ok(stored(&target.list().await?))
}

fn stored(files: &BTreeMap<String, u64>) -> Vec<Stored> {
    let one = |(file, bytes): (&String, &u64)| {
        let name: BundleName = file.parse().ok()?;
        let has = |end: &str| files.contains_key(&format!("{name}{end}"));
        let proven = if has(PROVEN) { Some(true) } else { has(FAILED).then_some(false) };
        Some(Stored { name, bytes: *bytes, proven })
    };
    let mut found: Vec<Stored> = files.iter().filter_map(one).collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

/// Writes a bundle and reads it back: a target that takes and does not give is found at once.
pub async fn keep(target: &dyn Target, name: &BundleName, bytes: &[u8]) -> Result<()> {
    let name = name.to_string();
    // A store that refuses says so to a question. To a large body it may hang up before anybody reads why.
    target.list().await?;
    target.put(&name, bytes).await?;
    let back = target.get(&name).await.context("read the bundle back")?;
    ensure!(back == bytes, "what was read back is not what was written");
    Ok(())
}

/// Puts the evidence beside the bundle, where the target has that bundle.
pub async fn note_proof(target: &dyn Target, name: &BundleName, evidence: &Evidence) -> Result<()> {
    if !target.list().await?.contains_key(&name.to_string()) {
        return Ok(());
    }
    let (now, before) = if evidence.passed { (PROVEN, FAILED) } else { (FAILED, PROVEN) };
    target.put(&format!("{name}{now}"), &serde_json::to_vec_pretty(evidence)?).await?;
    target.remove(&format!("{name}{before}")).await
}

/// Removes what is beyond the retention; answers what went.
pub async fn prune(target: &dyn Target, retention: &Retention, now: Timestamp) -> Result<Vec<BundleName>> {
    let files = target.list().await?;
    let stored = stored(&files);
    let held: Vec<Held> =
        stored.into_iter().map(|one| Held { name: one.name, proven: one.proven == Some(true) }).collect();
    let surplus = retention.surplus(&held, now);
    for name in &surplus {
        let beside = files_of(name, &files);
        // The evidence last: a bundle without its evidence would count as never proven.
        for file in beside.chain([name.to_string(), format!("{name}{PROVEN}"), format!("{name}{FAILED}")]) {
            target.remove(&file).await.with_context(|| format!("remove {file}"))?;
        }
    }
    Ok(surplus)
}

#[cfg(test)]
mod tests {
    use super::{Folder, Target, bundles, keep, note_proof, prune};
    use jiff::{SignedDuration, Timestamp};
    use keeper::backup::{BundleName, Evidence, Retention};

    fn evidence(name: &BundleName, passed: bool) -> Evidence {
        Evidence {
            at: Timestamp::UNIX_EPOCH,
            by: "a".to_owned(),
            bundle: name.to_string(),
            passed,
            millis: 1,
            checks: Vec::new(),
            packets: Some(0),
            not_covered: Vec::new(),
        }
    }

    #[tokio::test]
    async fn the_last_proven_bundle_outlives_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let target = Folder::new(folder.path().join("backups"));
        assert!(bundles(&target).await.unwrap().is_empty(), "no folder is an empty one");
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let names: Vec<BundleName> =
            (1..=4).map(|at| BundleName::new(now + SignedDuration::from_secs(at), at as u64)).collect();
        for name in &names {
            keep(&target, name, b"content").await.unwrap();
        }
        note_proof(&target, &names[0], &evidence(&names[0], true)).await.unwrap();
        note_proof(&target, &names[2], &evidence(&names[2], false)).await.unwrap();
        let retention = Retention { count: 1, age: None };
        assert_eq!(prune(&target, &retention, now).await.unwrap(), [names[1].clone(), names[2].clone()]);
        let left = bundles(&target).await.unwrap();
        let left: Vec<_> = left.into_iter().map(|one| (one.name, one.proven)).collect();
        assert_eq!(left, [(names[0].clone(), Some(true)), (names[3].clone(), None)]);
        assert_eq!(target.list().await.unwrap().len(), 3, "evidence of bundles that went stays");
        // A proof that fails takes the word of the one before back.
        note_proof(&target, &names[0], &evidence(&names[0], false)).await.unwrap();
        assert_eq!(bundles(&target).await.unwrap()[0].proven, Some(false));
    }
}
