//! The composition root: adapters between ports, and the order in which things start. Only here are two engines named
//! together.

pub mod admin;
pub mod agent;
mod agreed;
mod apiserver;
pub mod backup;
mod control_plane;
pub mod controllers;
mod door;
pub mod drift;
pub mod endpoints;
pub mod etcd;
mod extensions;
pub mod facts;
pub mod ghosts;
mod host;
mod inprocess;
mod join;
mod joining;
pub mod keeper;
mod keys;
mod kinds;
pub mod leaving;
mod leftovers;
mod manifests;
pub mod names;
mod node;
mod nodeproxy;
pub mod pid;
mod presence;
pub mod recover;
pub mod replace;
pub mod restart;
pub mod rotation;
mod runtime;
pub mod schedule;
pub mod server;
mod signals;
mod signer;
mod silence;
mod vip;
mod world;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;

use crate::layout::Layout;
use crate::pki;

pub use apiserver::engine;
pub use join::Refused;
pub use join::messages::Leaving;
pub use join::records::Records;
pub use keys::keyring;
pub use world::{SystemClock, SystemRng};

/// Name of this instance's things on the machine: the plain one for the default data folder, else one of its own.
pub fn instance(layout: &Layout) -> String {
    if layout.data == Path::new(crate::layout::DATA) {
        return net::config::INSTANCE_DEFAULT.to_owned();
    }
    let hash = pki::sha256_hex(layout.data.as_os_str().as_encoded_bytes());
    format!("evenkeel-{}", &hash[..8])
}

/// Certificates are looked at this often at least: the clock may have been set, a file restored.
const RENEWAL_LOOK: Duration = Duration::from_secs(3600);
/// And no more often than this, when something that is due could not be issued.
const RENEWAL_RETRY: Duration = Duration::from_secs(10);

/// How long to wait until certificates are looked at again.
fn renewal_pause(due: Timestamp, now: Timestamp) -> Duration {
    let left = Duration::try_from(due.duration_since(now)).unwrap_or_default();
    // A moment late, so that it is surely due.
    (left + Duration::from_secs(1)).clamp(RENEWAL_RETRY, RENEWAL_LOOK)
}

/// The containerd of this instance.
pub fn containerd_config(layout: &Layout) -> container::containerd::Config {
    container::containerd::Config::new(&layout.containerd(), &instance(layout), &host::sandbox_image(layout))
}

/// Where the container runtime answers: the given endpoint, or our own containerd.
pub fn cri_socket(layout: &Layout, endpoint: Option<&str>) -> PathBuf {
    match endpoint {
        Some(endpoint) => PathBuf::from(endpoint.strip_prefix("unix://").unwrap_or(endpoint)),
        None => containerd_config(layout).socket(),
    }
}

/// Unmounts the volumes of this instance's pods and what its runtime mounted, once none of them runs.
pub fn clean_mounts(layout: &Layout) -> Result<()> {
    for folder in [layout.agent().join("kubelet/pods"), containerd_config(layout).settings.state] {
        ::node::mounts::unmount_below(&folder).with_context(|| format!("unmount below {}", folder.display()))?;
    }
    Ok(())
}

/// What is mounted below the data folder by others: a disk of the administrator's.
pub fn foreign_mounts(layout: &Layout) -> Result<Vec<PathBuf>> {
    let mut mounts = ::node::mounts::below(&layout.data).context("read the list of mounts")?;
    mounts.retain(|path| *path != layout.data);
    Ok(mounts)
}

/// Removes the cgroups that this instance's pods were in; those that still hold processes stay.
pub fn clean_cgroups(layout: &Layout) -> Result<()> {
    let root = host::cgroup_root(layout);
    ::node::Cgroups::detect(&root).remove_root().with_context(|| format!("remove the cgroups {root}"))
}

/// Removes what the network of this instance made on the machine, and what its runtime left in shared places.
pub async fn clean_network(layout: &Layout) -> Result<()> {
    host::clean_network(layout).await?;
    leftovers::remove(&instance(layout))
}
