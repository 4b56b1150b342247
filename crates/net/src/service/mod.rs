//! Service translation: what the cluster says ([`state`]) becomes rules ([`rules`]), applied as one transaction.

pub mod conntrack;
mod kept;
mod listing;
pub mod nft;
mod proxy;
mod rules;
mod state;
mod table;

pub use kept::{Looked, Looker, Rules};
pub use listing::{Blocks, Change, Listing, changes};
pub use proxy::{Proxy, ProxyStatus};
pub use rules::rules;
pub use state::{Endpoint, HostPort, Protocol, ServicePort, ServiceState, host_ports, services};
pub use table::{Chain, Set, Table};
