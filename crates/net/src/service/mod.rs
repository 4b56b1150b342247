//! Service translation: what the cluster says ([`state`]) becomes rules ([`rules`]), applied as one transaction.

pub mod conntrack;
pub mod nft;
mod proxy;
mod rules;
mod state;
mod table;

pub use proxy::{Proxy, ProxyStatus};
pub use rules::rules;
pub use state::{Endpoint, HostPort, Protocol, ServicePort, ServiceState, host_ports, services};
pub use table::{Chain, Set, Table};
