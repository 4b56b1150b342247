//! What clusters of different lanes are started with.

use std::path::PathBuf;

/// Choices of a cluster that differ between lanes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Number of the first host; lanes that run at once use different ones.
    pub host: u8,
    /// Further arguments of `evenkeel server`.
    pub arguments: Vec<String>,
    /// Puts the store on a disk of this size.
    pub store_megabytes: Option<u32>,
    /// Puts all data on a disk of this size: how full the machine's own is must not matter to what is tested.
    pub data_megabytes: Option<u32>,
    /// Puts the server's folder on a disk of its own with this size, which stays when the power goes.
    pub disk_megabytes: Option<u32>,
    /// The data folder of a server whose keys this one has as well: servers of one store.
    pub keys_of: Option<PathBuf>,
    /// Folder for all data; removed with the cluster.
    pub name: String,
    /// Every host has a copy of the program, which may be replaced there.
    pub own_program: bool,
    /// Only the images that small pods need: the others are large, and every host unpacks its own.
    pub small_images: bool,
    /// One of several servers: volumes lie on a disk of the host's own.
    pub own_disk: bool,
}

// === impl Options ===

impl Options {
    /// The cluster of a lane. `EVENKEEL_HOST` moves it to other host numbers, so that two people can run one lane.
    pub fn lane(name: &str, host: u8) -> Options {
        let shift: u8 = std::env::var("EVENKEEL_HOST").ok().and_then(|text| text.parse().ok()).unwrap_or_default();
        Options { host: host + shift, name: format!("{name}{shift}"), ..Options::default() }
    }
}
