//! The parts of backups put together from a server's flags.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use apiserver::{Extension, Server};
use keeper::backup::{Retention, Schedule};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::info;
use view::Drain;

use super::super::agreed::ClusterFlags;
use super::apps::Apps;
use super::run::{Order, orders};
use super::targets::{Folder, S3, S3Options, Target};
use super::{Backups, Config, Paths, Peers, Records, kit};
use crate::cli::{BackupFlags, ServerArgs};
use crate::layout::Layout;
use crate::pki::ServerPki;
use crate::wire::inprocess;

/// What is known before the server is there.
pub struct Wiring {
    layout: Layout,
    flags: BackupFlags,
    targets: Vec<Arc<dyn Target>>,
    sender: mpsc::Sender<Order>,
    receiver: mpsc::Receiver<Order>,
}

/// Who this server is.
pub struct Me {
    pub name: String,
    pub pki: Arc<ServerPki>,
    /// Where others reach it.
    pub own: BTreeSet<SocketAddr>,
}

// === impl Wiring ===

impl Wiring {
    /// Draws the recovery kit on the first start.
    pub fn new(args: &ServerArgs, layout: &Layout) -> Result<Wiring> {
        let first = !layout.kit_recipient().exists();
        kit::standing(layout).context("draw the recovery kit")?;
        kit::copy(layout).context("keep a sealed copy of the recovery kit")?;
        if first {
            let path = layout.recovery_kit();
            info!(path = %path.display(), "the recovery kit opens every backup: move it off this machine");
        }
        ClusterFlags::of(args).note(layout).context("note the cluster's flags")?;
        let targets = targets(&args.backup, layout)?;
        let (sender, receiver) = orders();
        Ok(Wiring { layout: layout.clone(), flags: args.backup.clone(), targets, sender, receiver })
    }

    pub fn paths(&self) -> Arc<dyn Extension> {
        Arc::new(Paths::new(&self.targets, &self.layout, self.sender.clone()))
    }

    /// Starts the tasks: one that makes and proves, and one that fetches copies.
    pub fn start(
        self,
        server: &Server,
        me: Me,
        leading: watch::Receiver<bool>,
        tasks: &mut JoinSet<()>,
        drain: &Drain,
    ) {
        let client = inprocess::administrator(server, "evenkeel-backup");
        let retention = retention(&self.flags);
        let peers = Peers {
            client: client.clone(),
            records: Records::new(client.clone()),
            pki: me.pki,
            own: me.own,
            target: self.targets[0].clone(),
            retention,
            layout: self.layout.clone(),
        };
        let layout = self.layout;
        let config = Config {
            layout: layout.clone(),
            schedule: self.flags.backup_schedule,
            proofs: self.flags.backup_prove_schedule,
            retention,
            recipients: self.flags.backup_recipient,
            targets: self.targets,
            apps: Apps::new(client.clone(), &layout),
            by: me.name,
        };
        let several = config.schedule != Schedule::Off;
        let backups = Backups::new(config, server.store().clone(), Records::new(client), leading, self.receiver);
        tasks.spawn(backups.run(drain.clone()));
        if several {
            tasks.spawn(peers.run(drain.clone()));
        }
    }
}

/// The folder first, then what is elsewhere.
fn targets(flags: &BackupFlags, layout: &Layout) -> Result<Vec<Arc<dyn Target>>> {
    let folder = flags.backup_dir.clone().unwrap_or_else(|| layout.backups());
    let mut targets: Vec<Arc<dyn Target>> = vec![Arc::new(Folder::new(folder))];
    if let Some(options) = s3_options(flags) {
        targets.push(Arc::new(S3::new(options).context("--backup-s3")?));
    }
    Ok(targets)
}

fn s3_options(flags: &BackupFlags) -> Option<S3Options> {
    let url = flags.backup_s3.clone()?;
    Some(S3Options { url, credentials: flags.s3.backup_s3_credentials.clone(), ca: flags.s3.backup_s3_ca.clone() })
}

fn retention(flags: &BackupFlags) -> Retention {
    Retention { count: flags.backup_retention, age: flags.backup_retention_age }
}
