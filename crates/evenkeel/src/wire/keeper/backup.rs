//! The bundle that is made before a run changes anything: on this server's own disk, opened by the recovery kit. What
//! survives the machine are the bundles of the schedule.

use std::path::Path;

use anyhow::{Context, Result};
use async_trait::async_trait;

use super::ports::Backup;
use super::records::Saved;
use crate::layout::Layout;
use crate::pki::{self, Access};
use crate::wire::backup::make::{Openers, make};

/// So many of the newest are kept.
const BUNDLES_MAX: usize = 5;

pub struct Bundles {
    pub layout: Layout,
    pub store: store::Store,
    /// Of this server's node.
    pub node: String,
}

#[async_trait]
impl Backup for Bundles {
    async fn save(&self, run: &str) -> Result<Saved> {
        let (layout, store) = (self.layout.clone(), self.store.clone());
        let path = layout.backups().join(format!("before-{run}.bundle"));
        let file = path.clone();
        let made = move || -> Result<(u64, u64)> {
            let mut bytes = Vec::new();
            let summary = store.export(&mut bytes)?;
            let made = make(&layout, &Openers::default().with_standing(&layout)?, &bytes)?;
            pki::write(&file, &made.bytes, Access::Secret)?;
            prune(file.parent().context("a bundle has a folder")?)?;
            Ok((summary.revision.0, summary.records))
        };
        let (revision, objects) = tokio::task::spawn_blocking(made).await??;
        Ok(Saved { node: self.node.clone(), path: path.display().to_string(), revision, objects })
    }
}

fn prune(folder: &Path) -> Result<()> {
    let entries = std::fs::read_dir(folder)?.flatten();
    let bundle = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("before-run-");
    let age = |entry: std::fs::DirEntry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()));
    let mut bundles: Vec<_> = entries.filter(bundle).filter_map(age).collect();
    bundles.sort();
    for (_, path) in &bundles[..bundles.len().saturating_sub(BUNDLES_MAX)] {
        std::fs::remove_file(path)?;
    }
    Ok(())
}
