//! The end-to-end test kit: simulated hosts, a real cluster of real processes on them, and foreign clients.
//!
//! Needs root, the packages `cargo xtask test` installs, and the images it builds. Everything a test starts lies in
//! namespaces of its own and goes away with them.

mod cgroups;
mod cluster;
mod dialogue;
mod disk;
mod host;
mod http;
mod load;
mod rack;
mod run;
pub mod saas;
mod samples;
mod tool;
mod traffic;
mod wait;

pub use cgroups::cgroups;
pub use cluster::{Agent, Cluster, Options, target};
pub use dialogue::Dialogue;
pub use disk::Disk;
pub use host::{Host, Segment};
pub use http::Http;
pub use load::{Answer, Call, Connection, Endpoint};
pub use rack::Rack;
pub use run::{Case, run_all};
pub use samples::Samples;
pub use tool::{Tool, Transcript};
pub use traffic::{Tally, Traffic};
pub use wait::{eventually, holds, pause};
