//! Takes away everything the agent made on a machine: for `stop --pods`, uninstall and tests.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::config::{Config, PodNetwork};
use crate::link::{self, LinkError, Netlink};
use crate::peers::Underlay;
use crate::service::nft::{self, NftError};

#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    #[error("netlink")]
    Netlink(#[source] io::Error),
    #[error("remove links and routes")]
    Link(#[from] LinkError),
    #[error("remove the rules")]
    Rules(#[from] NftError),
    #[error("remove {path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Removes links, routes, rules, addresses of names, address records and the plugin's configuration of this instance.
/// What is absent is done. The agent must not be running.
pub async fn cleanup(config: &Config) -> Result<(), CleanupError> {
    let names = config.names();
    let netlink = Netlink::open().map_err(CleanupError::Netlink)?;
    link::sync_routes(&netlink.handle, names.route_protocol, &BTreeMap::new()).await?;
    for name in link::names_with(&netlink.handle, &names.link_prefix).await? {
        link::remove(&netlink.handle, &name).await?;
    }
    link::remove(&netlink.handle, &names.bridge).await?;
    for underlay in Underlay::ALL {
        link::remove(&netlink.handle, &names.tunnel(underlay)).await?;
    }
    if config.pod_network == PodNetwork::External {
        let index = link::index_of(&netlink.handle, "lo").await?;
        for address in config.dns.iter().flat_map(|dns| &dns.addresses) {
            link::drop_address(&netlink.handle, index, IpNet::from(*address)).await?;
        }
    }
    nft::remove(&names.table).await?;
    let folder = config.folder.join("addresses");
    for path in [config.conflist(), config.socket(), folder] {
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(CleanupError::File { path, source }),
            _ => {}
        }
    }
    Ok(())
}
