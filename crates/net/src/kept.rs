//! What the agent keeps on the machine, said where it is written: for those who look whether it is still so.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Everything but the rules, which change all the time: those are [`crate::service::Rules`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub files: BTreeMap<PathBuf, String>,
    /// Symbolic links, and where they lead.
    pub links: BTreeMap<PathBuf, PathBuf>,
    /// Kernel settings, by their path below `/proc/sys`.
    pub settings: BTreeMap<String, String>,
}
