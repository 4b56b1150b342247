//! The virtual address of the API: `--virtual-address`, held through a lease by a server whose own API serves.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use api::Key;
use ipnet::IpNet;
use net::{Vip, VirtualAddress};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;
use view::{Client, Drain, Endpoint, Https, TlsConfig};

use super::SystemClock;
use crate::pki::{ServerPki, client_config};

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
    pki: Arc<ServerPki>,
    tasks: &mut JoinSet<()>,
    drain: &Drain,
) -> Result<()> {
    let trusting = move || client_config(&pki.current().server.pem, None, false);
    let first = trusting()?;
    let (serves, ready) = watch::channel(false);
    let tls: TlsConfig = Arc::new(move || trusting().unwrap_or_else(|_| first.clone()));
    tasks.spawn(look(own, tls, serves, drain.clone()));
    let config = VirtualAddress { address, lease: Key::new("kube-system", LEASE), identity: name.to_owned() };
    tasks.spawn(Vip::new(config, &client, Arc::new(SystemClock), ready).run(drain.clone()));
    Ok(())
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
