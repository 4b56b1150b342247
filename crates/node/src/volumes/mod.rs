//! A pod's volumes on this machine: made, kept up to date, taken away.
//!
//! Layout as upstream's kubelet, below the data folder: `kubelet/pods/UID/volumes/kubernetes.io~TYPE/NAME`. Making is
//! safe to repeat; taking away follows the mount list, so that a mount is never deleted through.

pub mod atomic;
pub mod claims;
pub mod host_path;
pub mod local_path;
pub mod mounts;
pub mod ownership;
pub mod payload;
pub mod setup;
pub mod subpath;
pub mod tokens;

use std::io;
use std::path::PathBuf;

pub use setup::{Volumes, VolumesContext};

/// Where one volume of a pod lies on the host.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct VolumePath {
    pub path: PathBuf,
    pub readonly: bool,
    /// A block device, for `volumeDevices`.
    pub block: bool,
    /// The pod's `fsGroup` is to own it. Never what an administrator's `hostPath` names.
    pub group_owned: bool,
}

/// Why a volume cannot be made. Users see the text in a `FailedMount` event.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("MountVolume.SetUp failed for volume {volume:?} : {message}")]
    SetUp { volume: String, message: String },
    #[error("{what} {}", .path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl VolumeError {
    pub fn set_up(volume: &str, message: impl Into<String>) -> VolumeError {
        VolumeError::SetUp { volume: volume.to_owned(), message: message.into() }
    }

    pub fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> VolumeError {
        let path = path.into();
        move |source| VolumeError::Io { what, path, source }
    }
}
