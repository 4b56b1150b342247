//! The CNI plugin and the agent's side of it.
//!
//! The plugin ([`main`]) only carries: it hands its standard input, its variables and an open descriptor of the pod's
//! network namespace to the agent's socket and prints what comes back. The descriptor, not the path, because the
//! runtime may keep the path in a mount namespace that the agent does not see.

mod client;
mod server;
mod types;

pub use client::main;
pub use server::Server;
pub use types::{CniError, Code, Command, NetConf, Reply, Request};

use std::time::Duration;

/// Largest configuration a runtime may hand us, and largest answer.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Longest one verb may take.
pub const VERB_TIMEOUT: Duration = Duration::from_secs(60);
/// The version of the specification that answers are written in, unless the configuration asks for an older one.
pub const VERSION: &str = "1.0.0";
/// Versions we speak: their results differ only in the text of the version.
pub const VERSIONS: [&str; 4] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0"];
/// The plugin's name in configurations and in the folder of programs.
pub const PLUGIN: &str = "evenkeel-cni";
/// containerd insists on a plugin of this name for the loopback link.
pub const LOOPBACK: &str = "loopback";
