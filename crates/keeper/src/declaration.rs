//! The cluster file: what every node shall be, as people write it down. It becomes a generation.

use std::collections::BTreeMap;

use base::SmolStr;
use serde::{Deserialize, Serialize};

use crate::generation::{Generation, NodeName, NodeTarget, Release, Role, Runs};
use crate::settings::{Settings, SettingsError};

/// What is said of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Declared {
    pub role: Role,
    #[serde(default)]
    pub settings: Settings,
}

/// The nodes of a cluster, and what they shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Declaration {
    pub cluster: SmolStr,
    pub nodes: BTreeMap<NodeName, Declared>,
}

/// Why a declaration is not one of this cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeclarationError {
    #[error("the file is for cluster {declared:?}, and this cluster is {current:?}")]
    AnotherCluster { declared: SmolStr, current: SmolStr },
    #[error(
        "node {node} is in the cluster and not in the file: name it there, or take it out of the cluster: \
         evenkeel node remove {node}"
    )]
    NotDeclared { node: SmolStr },
    #[error(
        "node {node} is {} and declared as {}: a node changes its role by leaving and joining as the other",
        is.word(), declared.word()
    )]
    Role { node: SmolStr, is: Role, declared: Role },
    #[error("node {node}: {source}")]
    Settings { node: SmolStr, source: SettingsError },
}

// === impl Declaration ===

impl Declaration {
    /// What `current` becomes by it: each node with its settings, and with this program where one is named.
    ///
    /// # Errors
    /// Says what does not fit.
    pub fn nodes(
        &self,
        current: &Generation,
        release: Option<&Release>,
    ) -> Result<BTreeMap<NodeName, NodeTarget>, DeclarationError> {
        if self.cluster != current.cluster {
            let (declared, current) = (self.cluster.clone(), current.cluster.clone());
            return Err(DeclarationError::AnotherCluster { declared, current });
        }
        let target = |(name, is): (&NodeName, &NodeTarget)| {
            let node = || name.0.clone();
            let declared = self.nodes.get(name).ok_or_else(|| DeclarationError::NotDeclared { node: node() })?;
            if declared.role != is.role {
                return Err(DeclarationError::Role { node: node(), is: is.role, declared: declared.role });
            }
            let settings = declared.settings.clone();
            settings.check().map_err(|source| DeclarationError::Settings { node: node(), source })?;
            let release = release.unwrap_or(&is.runs.release).clone();
            Ok((name.clone(), NodeTarget { role: is.role, runs: Runs { release, settings } }))
        };
        current.nodes.iter().map(target).collect()
    }

    /// Nodes that are declared and have not joined yet.
    pub fn missing<'a>(&'a self, current: &'a Generation) -> impl Iterator<Item = (&'a NodeName, Role)> {
        let missing = self.nodes.iter().filter(|(name, _)| !current.nodes.contains_key(*name));
        missing.map(|(name, declared)| (name, declared.role))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn release(version: &str) -> Release {
        Release { version: version.into(), program: Digest::of_bytes(version.as_bytes()) }
    }

    fn current() -> Generation {
        let target = |role| NodeTarget { role, runs: release("0.1.0").into() };
        let nodes = [("a", Role::Server), ("b", Role::Agent)];
        let nodes = nodes.map(|(name, role)| (NodeName(name.into()), target(role))).into();
        Generation { cluster: "shop".into(), number: 3, parent: Digest::none(), level: 1, nodes }
    }

    fn declaration(cluster: &str, nodes: &[(&str, Role)]) -> Declaration {
        let settings = Settings::new([("drift-policy".into(), vec!["repair".into()])].into()).unwrap();
        let declared = |(name, role): &(&str, Role)| {
            (NodeName((*name).into()), Declared { role: *role, settings: settings.clone() })
        };
        Declaration { cluster: cluster.into(), nodes: nodes.iter().map(declared).collect() }
    }

    #[test]
    fn every_node_gets_its_settings_and_keeps_its_program_unless_one_is_named() {
        let all = [("a", Role::Server), ("b", Role::Agent), ("c", Role::Agent)];
        let declaration = declaration("shop", &all);
        let nodes = declaration.nodes(&current(), None).unwrap();
        assert!(nodes.values().all(|node| node.runs.release == release("0.1.0") && !node.runs.settings.is_empty()));
        assert_eq!(nodes.len(), 2);
        assert_eq!(declaration.missing(&current()).collect::<Vec<_>>(), [(&NodeName("c".into()), Role::Agent)]);
        let nodes = declaration.nodes(&current(), Some(&release("0.2.0"))).unwrap();
        assert!(nodes.values().all(|node| node.runs.release == release("0.2.0")));
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let check = |declaration: Declaration, wanted: &str| {
            let told = declaration.nodes(&current(), None).unwrap_err().to_string();
            assert!(told.contains(wanted), "{told}");
        };
        check(declaration("staging", &[]), "the file is for cluster \"staging\", and this cluster is \"shop\"");
        check(declaration("shop", &[("a", Role::Server)]), "node b is in the cluster and not in the file");
        check(declaration("shop", &[("a", Role::Agent), ("b", Role::Agent)]), "node a is server and declared as agent");
    }
}
