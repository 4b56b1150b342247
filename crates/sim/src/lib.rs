//! The control plane as a whole in one thread: real stores, API servers, controllers and schedulers of three servers on
//! one record, nodes that only report, virtual time, and faults from a seed.
//!
//! A run makes trouble for a while: servers are killed, cut off from the record and started again, nodes lose their
//! power, clocks are wrong, history is compacted, answers are lost, writes arrive late. Then everything is whole again,
//! and within bounded time every acknowledged wish must be true, nothing else be there, and nothing be written any more.
//!
//! [`run_rack`] does the same with the keeper: the servers are machines that are upgraded and taken back meanwhile.

mod check;
mod cluster;
mod kubelet;
mod person;
mod rack;
mod record;
mod server;
mod transport;
mod world;

pub use cluster::{Report, run, run_rack};
pub use rack::Report as RackReport;
pub use world::Weather;
