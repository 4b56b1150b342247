//! etcd as the store: one that somebody else runs, named by flags, or a member of this server's own.

mod care;
mod convert;
mod external;
mod flags;
mod look;
mod managed;
mod member;
mod path;

pub use convert::{Datastore, EngineKind, Intent, Opened, check_flags, open, request_conversion};
pub use external::connect;
pub use flags::tls as tls_flags;
pub use look::{Known, address, known};
pub use managed::{Managed, Running, Settings, attend, stop};
pub use member::{PEER_PORT, peer_url, program};
pub use path::{DatastorePath, PATH};

/// Everything of ours in an etcd is below this.
const PREFIX: &str = "/evenkeel";

#[cfg(test)]
mod tests;
