//! The cluster as seen through one version of kubectl. Every case of kubectl runs with each version.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use e2e::{Cluster, Tool};

/// Programs of `target/tools`: the server's own minor, and one older.
pub const VERSIONS: [&str; 2] = ["kubectl", "kubectl-1.35"];

pub struct Session {
    cluster: Arc<Cluster>,
    version: &'static str,
}

// === impl Session ===

impl Session {
    pub fn new(cluster: &Arc<Cluster>, version: &'static str) -> Session {
        Session { cluster: cluster.clone(), version }
    }

    pub fn kubectl(&self) -> Tool {
        self.cluster.client(self.version)
    }

    /// A name that the other version's run of the same case does not use.
    pub fn own(&self, name: &str) -> String {
        match self.version.split_once("-1.") {
            Some((_, minor)) => format!("{name}-{minor}"),
            None => name.to_owned(),
        }
    }

    /// A path for files of the case.
    pub fn file(&self, name: &str) -> PathBuf {
        self.cluster.data.join(self.own(name))
    }

    /// kubectl with a namespace of the case's own, made anew.
    pub fn namespaced(&self, name: &str) -> anyhow::Result<Tool> {
        self.kubectl().namespaced(&self.own(name))
    }
}

impl Deref for Session {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}
