//! Takes one application's backup: measured first, then read piece by piece, sealed, and put beside the bundle.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use base::Clock;
use bytes::{Bytes, BytesMut};
use keeper::backup::BundleName;
use tokio::sync::mpsc;

use super::Apps;
use super::exec::Place;
use super::hook::Hook;
use super::index::Index;
use crate::pki::{seal_to, sha256_hex};
use crate::wire::SystemClock;
use crate::wire::backup::make::Openers;
use crate::wire::backup::signed::Key;
use crate::wire::backup::targets::Target;

/// What is held in memory at once, a few times over.
const PIECE_BYTES: usize = 8 << 20;
/// A terabyte.
const PIECES_MAX: usize = 1 << 17;
/// Of what a script prints as a number.
const NUMBER_BYTES_MAX: usize = 4096;
/// Frames between the container and the pieces.
pub const QUEUE: usize = 16;

pub async fn take(
    apps: &Apps,
    hook: &Hook,
    bundle: &BundleName,
    openers: &Openers,
    targets: &[Arc<dyn Target>],
) -> Result<Index> {
    let key = Key::of(&apps.layout)?;
    let mut index = Index::new(bundle, &hook.app, &hook.pod, SystemClock.now());
    index.prove.clone_from(&hook.prove);
    let place = Place { namespace: &hook.app.namespace, pod: &hook.pod, container: &hook.container };
    if let Some(script) = &hook.measure {
        // Before: what comes while the backup is taken may be in it or not.
        index.measured = Some(number(apps, &place, script, None).await.context("measure it")?);
    }
    let (sender, receiver) = mpsc::channel(QUEUE);
    let run = apps.exec.run(&place, &hook.take, None, sender);
    let keep = pieces(&mut index, receiver, openers, targets);
    let (ran, kept) = tokio::join!(run, keep);
    // Where a target failed, the script ended for that reason.
    kept?;
    ran.context("take it")?;
    ensure!(index.bytes > 0, "the script wrote nothing");
    let signed = index.sign(&key)?;
    for target in targets {
        target.put(&index.file(), &signed).await.with_context(|| target.name())?;
    }
    Ok(index)
}

/// Runs a script that prints a number.
pub async fn number(apps: &Apps, place: &Place<'_>, script: &str, input: Option<mpsc::Receiver<Bytes>>) -> Result<u64> {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(QUEUE);
    let read = async {
        let mut text = Vec::new();
        while let Some(bytes) = receiver.recv().await {
            text.extend(bytes.iter().take(NUMBER_BYTES_MAX - text.len()));
        }
        text
    };
    let (ran, text) = tokio::join!(apps.exec.run(place, script, input, sender), read);
    ran?;
    let text = String::from_utf8_lossy(&text);
    text.trim().parse().with_context(|| format!("its script printed no number: {:?}", text.trim()))
}

async fn pieces(
    index: &mut Index,
    mut receiver: mpsc::Receiver<Bytes>,
    openers: &Openers,
    targets: &[Arc<dyn Target>],
) -> Result<()> {
    let mut piece = BytesMut::with_capacity(PIECE_BYTES);
    while let Some(bytes) = receiver.recv().await {
        piece.extend_from_slice(&bytes);
        if piece.len() >= PIECE_BYTES {
            keep(index, piece.split().freeze(), openers, targets).await?;
        }
    }
    if piece.is_empty() { Ok(()) } else { keep(index, piece.freeze(), openers, targets).await }
}

async fn keep(index: &mut Index, piece: Bytes, openers: &Openers, targets: &[Arc<dyn Target>]) -> Result<()> {
    let number = index.pieces.len();
    ensure!(number < PIECES_MAX, "it is larger than {} GB", (PIECES_MAX * PIECE_BYTES) >> 30);
    index.bytes += piece.len() as u64;
    let openers = openers.list();
    let sealed = tokio::task::spawn_blocking(move || seal_to(&openers, &piece)).await??;
    index.pieces.push(sha256_hex(&sealed));
    for target in targets {
        target.put(&index.piece(number), &sealed).await.with_context(|| target.name())?;
    }
    Ok(())
}
