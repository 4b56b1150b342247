//! The virtual address of the API: `--virtual-address`, held through a lease by a server whose own API serves.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use api::Key;
use base::Chain;
use ipnet::IpNet;
use net::{Vip, VipStatus, VirtualAddress};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;
use view::{Client, Drain, Endpoint, Https, TlsConfig};

use super::SystemClock;
use crate::layout::Layout;
use crate::pki::{self, Access, ServerPki, client_config};

/// The lease that decides; its holder is where the address is.
const LEASE: &str = "evenkeel-virtual-address";
/// Between two looks at the own API.
const LOOK: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Looks in a row that must fail before the address is given up for it: a busy moment is no reason.
const FAILURES_MAX: u32 = 3;

/// Starts to wait for the address, under this server's name.
pub fn start(
    address: IpNet,
    name: &str,
    client: Client,
    own: Endpoint,
    (pki, layout): (Arc<ServerPki>, &Layout),
    tasks: &mut JoinSet<()>,
    drain: &Drain,
) -> Result<()> {
    let trusting = move || client_config(&pki.current().server.pem, None, false);
    let first = trusting()?;
    let (serves, ready) = watch::channel(false);
    let tls: TlsConfig = Arc::new(move || trusting().unwrap_or_else(|_| first.clone()));
    tasks.spawn(look(own, tls, serves, drain.clone()));
    let noted = layout.virtual_address();
    let config = VirtualAddress { address, lease: Key::new("kube-system", LEASE), identity: name.to_owned() };
    let vip = Vip::new(config, &client, Arc::new(SystemClock), ready);
    tasks.spawn(note(noted, address, vip.status(), drain.clone()));
    tasks.spawn(vip.run(drain.clone()));
    Ok(())
}

/// For whoever looks from outside of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    pub address: IpNet,
    /// This server has the lease and the address.
    pub here: bool,
}

async fn note(path: PathBuf, address: IpNet, mut status: watch::Receiver<VipStatus>, drain: Drain) {
    loop {
        let here = matches!(*status.borrow_and_update(), VipStatus::Here { .. });
        let text = serde_json::to_string(&Noted { address, here }).expect("plain data");
        if let Err(error) = pki::write(&path, text.as_bytes(), Access::Public) {
            warn!(error = %Chain(&error), "where the virtual address is is not noted");
        }
        match drain.run_until_cancelled(status.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
    }
}

/// Asks the own API as people do: over a connection that is new each time.
async fn look(own: Endpoint, tls: TlsConfig, serves: watch::Sender<bool>, drain: Drain) {
    let mut failures = 0;
    loop {
        let client = Client::new(Arc::new(Https::new(own.clone(), tls.clone())), "evenkeel-virtual-address");
        match client.with_timeout(ANSWER_TIMEOUT).raw("/readyz").await {
            Ok(_) => failures = 0,
            Err(error) => {
                failures += 1;
                if failures == FAILURES_MAX {
                    warn!(%error, "the API of this server does not answer; it will not have the virtual address");
                }
            }
        }
        let serving = failures < FAILURES_MAX && (failures == 0 || *serves.borrow());
        serves.send_if_modified(|old| std::mem::replace(old, serving) != serving);
        if drain.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
            return;
        }
    }
}
