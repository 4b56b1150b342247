//! Whether a pod fits a node: what it asks for, which nodes it selects, what it tolerates. The scheduler asks before it
//! binds, the node asks again before it starts, controllers ask for pods that are made for one node.

mod amounts;
mod demand;
mod selection;
mod taint;

pub use amounts::Amounts;
pub use demand::{HostPort, clash, host_ports, requests};
pub use selection::{Labels, NodeTerm, any_term, parse_selector, selected};
pub use taint::{Taint, Toleration};
