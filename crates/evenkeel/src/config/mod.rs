//! Configuration: command line over environment over the cluster file over this machine's files, everything under one set
//! of names.
//!
//! A file's keys and the environment's variables become flags in front of the user's own, so there is one parser and one
//! error message for all three. Names of k3s are accepted where the meaning is the same.

mod file;
mod k3s;
mod merge;
mod settings;

pub use file::{Values, read_files, words};
pub use merge::{Flags, Merged, given, merge};
pub use settings::overlay;

/// The file read when no other is named.
pub const CONFIG: &str = "/etc/evenkeel/config.yaml";
