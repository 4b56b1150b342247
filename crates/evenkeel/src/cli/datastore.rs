//! `evenkeel datastore`: where this server's state is, and its move into a managed etcd.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

use super::args::{DatastoreCommand, DatastoreCommandArgs};
use crate::layout::Layout;
use crate::wire::admin;
use crate::wire::etcd::{Datastore, EngineKind};

/// A server with a large state on a slow disk, started again.
const CONVERT_TIMEOUT: Duration = Duration::from_secs(300);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

pub async fn run(args: DatastoreCommandArgs) -> Result<()> {
    let layout = args.common.layout();
    match args.command {
        DatastoreCommand::Show => {
            println!("{}", describe(&layout, &admin::datastore(&layout).await?));
            Ok(())
        }
        DatastoreCommand::Convert => convert(&layout).await,
    }
}

async fn convert(layout: &Layout) -> Result<()> {
    if admin::datastore(layout).await?.engine == EngineKind::ManagedEtcd {
        println!("the state is in a managed etcd already; nothing to do");
        return Ok(());
    }
    admin::convert_datastore(layout).await?;
    println!("the server starts again and moves its state; pods go on, the API is away for some seconds");
    let deadline = Instant::now() + CONVERT_TIMEOUT;
    while Instant::now() < deadline {
        tokio::time::sleep(LOOK_AGAIN).await;
        // Away, or not yet away.
        let Ok(now) = admin::datastore(layout).await else { continue };
        match (now.engine, now.conversion) {
            (EngineKind::ManagedEtcd, _) => {
                println!("the state is in etcd; what was its file is kept in {}", layout.server().join("db").display());
                return Ok(());
            }
            (_, Some(intent)) if intent.failed.is_some() => {
                bail!("the state was not moved and is in its file as before: {}", intent.failed.unwrap_or_default());
            }
            _ => {}
        }
    }
    bail!("no answer from the server within {} s; see its log", CONVERT_TIMEOUT.as_secs())
}

fn describe(layout: &Layout, datastore: &Datastore) -> String {
    let place = match datastore.engine {
        EngineKind::Sqlite => format!("in a file (SQLite), {}", layout.database().display()),
        EngineKind::ManagedEtcd => format!("in an etcd that this server runs, {}", layout.etcd().display()),
        EngineKind::ExternalEtcd => "in an etcd that somebody else runs (--datastore-endpoint)".to_owned(),
    };
    match &datastore.conversion {
        Some(intent) => {
            let outcome = intent.failed.as_deref().unwrap_or("it comes with the next start");
            format!("the state is {place}\nasked to move it into etcd at {}: {outcome}", intent.asked)
        }
        None => format!("the state is {place}"),
    }
}
