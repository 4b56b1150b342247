//! The end-to-end test kit: simulated hosts, a real cluster of real processes on them, and foreign clients.
//!
//! Needs root, the packages `cargo xtask test` installs, and the images it builds. Everything a test starts lies in
//! namespaces of its own and goes away with them.

mod agent;
mod cgroups;
mod cluster;
mod data;
mod dialogue;
mod disk;
mod host;
mod http;
mod load;
pub mod manifests;
mod options;
mod rack;
mod run;
pub mod saas;
mod samples;
mod tool;
mod traffic;
mod wait;

pub use agent::Agent;
pub use cgroups::cgroups;
pub use cluster::Cluster;
pub use data::target;
pub use dialogue::Dialogue;
pub use disk::Disk;
pub use host::{Host, Segment};
pub use http::Http;
pub use load::{Answer, Call, Connection, Endpoint};
pub use options::Options;
pub use rack::Rack;
pub use run::{Case, run_all};
pub use samples::Samples;
pub use tool::{Tool, Transcript, printed};
pub use traffic::{Tally, Traffic};
pub use wait::{eventually, holds, pause};
