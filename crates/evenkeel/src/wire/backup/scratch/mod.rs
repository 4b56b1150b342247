//! The scratch control plane: a bundle restored where it can touch nothing, and looked at.
//!
//! A process of its own in an empty network namespace. It has the state, the keys and the API of the cluster, and no
//! sockets, no node, no drivers and no loops: nothing in it acts. Everything it knows comes out of the bundle, opened with
//! a secret like a person's, so that what the bundle lacks is lacking here.

mod checks;
mod plane;
mod sys;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use base::Chain;
use keeper::backup::{Check, Outcome};

use super::bundle::{Bundle, Manifest};
use super::contents::{Volume, missing};
use super::prove::Report;
use crate::layout::Layout;
use crate::pki::Opener;
pub use sys::leave_the_network;

/// What a check found: a value for the next ones, and a sentence.
type Found<T> = Result<(T, String)>;

/// The checks so far.
#[derive(Default)]
struct Notes {
    checks: Vec<Check>,
}

/// Restores the bundle below `folder` and reports. Errors are of the proof itself; what is wrong with the bundle is in the
/// report.
pub async fn run(bundle: &Path, opener: &Opener, folder: &Path) -> Result<Report> {
    let mut notes = Notes::default();
    let mut not_covered = Vec::new();
    if let Some(bundle) = notes.note("whole", async { read(bundle) }).await {
        not_covered = lacks(&bundle.manifest);
        look(&mut notes, &bundle, opener, &Layout::new(folder)).await;
    }
    let packets = notes.note("isolated", async { isolated() }).await;
    Ok(Report { checks: notes.checks, packets, not_covered })
}

/// Each step needs the one before; the first that fails ends the row.
async fn look(notes: &mut Notes, bundle: &Bundle, opener: &Opener, layout: &Layout) -> Option<()> {
    let keys = notes.note("opens", async { open(bundle, opener) }).await?;
    notes.note("complete", async { complete(keys.keys()) }).await?;
    let store = notes.note("loads", plane::load(bundle, &keys, layout)).await?;
    notes.note("counts", async { checks::counts(&store, &bundle.manifest) }).await;
    notes.note("authorities", async { checks::authorities(layout) }).await?;
    let server = notes.note("serves", plane::serve(&store, layout, &bundle.manifest)).await?;
    notes.note("secrets", checks::secrets(&server)).await;
    notes.note("tokens", checks::tokens(&server)).await;
    match checks::has_room(&server).await {
        true => drop(notes.note("pod", checks::pod(&server)).await),
        false => notes.skip("pod", "no node of the bundle was ready to take one"),
    }
    Some(())
}

fn read(path: &Path) -> Found<Bundle> {
    let bundle = Bundle::read(path)?;
    let said = format!("format {}, revision {}", bundle.manifest.format, bundle.manifest.revision);
    Ok((bundle, said))
}

fn open(bundle: &Bundle, opener: &Opener) -> Found<BTreeMap<PathBuf, Vec<u8>>> {
    let keys = bundle.keys(opener)?;
    let said = format!("{} key files, sealed to {} recipients", keys.len(), bundle.manifest.opens_with.len());
    Ok((keys, said))
}

fn complete<'a>(files: impl Iterator<Item = &'a PathBuf>) -> Found<()> {
    let missing = missing(files);
    ensure!(missing.is_empty(), "the bundle lacks {}", missing.join(", "));
    Ok(((), "every key that a restore needs is there".to_owned()))
}

fn isolated() -> Found<u64> {
    let (packets, interfaces) = sys::packets().context("count packets")?;
    ensure!(interfaces == ["lo"], "it had interfaces beside the loopback: {}", interfaces.join(", "));
    ensure!(packets == 0, "{packets} packets were seen");
    Ok((packets, "no packet left or came".to_owned()))
}

fn lacks(manifest: &Manifest) -> Vec<String> {
    manifest.not_included.iter().cloned().chain(manifest.volumes.iter().map(Volume::sentence)).collect()
}

// === impl Notes ===

impl Notes {
    async fn note<T>(&mut self, name: &str, work: impl Future<Output = Found<T>>) -> Option<T> {
        let start = Instant::now();
        let found = work.await;
        let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (outcome, said, value) = match found {
            Ok((value, said)) => (Outcome::Passed, said, Some(value)),
            Err(failure) => (Outcome::Failed, Chain(failure.as_ref()).to_string(), None),
        };
        self.checks.push(Check { name: name.to_owned(), outcome, said, millis });
        value
    }

    fn skip(&mut self, name: &str, why: &str) {
        self.checks.push(Check { name: name.to_owned(), outcome: Outcome::Skipped, said: why.to_owned(), millis: 0 });
    }
}
