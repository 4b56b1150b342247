//! What a server gives to one that joins: exactly what a backup seals, and where the etcd is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use anyhow::{Context, Result};
use base::Chain;

use super::super::agreed::ClusterFlags;
use super::messages::ServerJoinAnswer;
use crate::layout::Layout;
use crate::wire::backup::contents;
use crate::wire::etcd::{EngineKind, Intent, Managed, Settings, request_conversion};
use crate::wire::restart::Restart;

/// What this server knows for those that join.
pub struct Side {
    pub settings: Settings,
    pub kind: EngineKind,
    pub etcd: Option<Managed>,
    pub restart: Restart,
    pub shared: ClusterFlags,
}

#[derive(Debug, thiserror::Error)]
pub enum GiveError {
    #[error("this server moves its state into etcd first, so that more servers can join; ask again")]
    Converting,
    #[error("this cluster's state is in a file of one server and cannot be moved into etcd: {0}")]
    Stuck(String),
    #[error("{0}")]
    Failed(String),
}

// === impl Side ===

impl Side {
    pub async fn give(&self) -> Result<ServerJoinAnswer, GiveError> {
        let failed = |failure: anyhow::Error| GiveError::Failed(Chain(failure.as_ref()).to_string());
        let etcd = match (self.kind, &self.etcd) {
            (EngineKind::Sqlite, _) => return Err(self.convert()),
            (EngineKind::ManagedEtcd, Some(managed)) => client_urls(managed).await.map_err(failed)?,
            (EngineKind::ManagedEtcd | EngineKind::ExternalEtcd, _) => Vec::new(),
        };
        let files = files(&self.settings.layout).map_err(failed)?;
        Ok(ServerJoinAnswer { files, shared: self.shared.clone(), etcd })
    }

    fn convert(&self) -> GiveError {
        match Intent::read(&self.settings.layout) {
            Ok(Some(Intent { failed: Some(why), .. })) => {
                return GiveError::Stuck(format!("{why}; `evenkeel datastore convert` on that server tries again"));
            }
            Ok(_) => {}
            Err(failure) => return GiveError::Failed(Chain(failure.as_ref()).to_string()),
        }
        match request_conversion(&self.settings, self.kind, &self.restart) {
            Ok(()) => GiveError::Converting,
            Err(failure) => GiveError::Stuck(Chain(&failure).to_string()),
        }
    }
}

async fn client_urls(managed: &Managed) -> Result<Vec<String>> {
    let members = managed.members()?.list().await.context("list the members of etcd")?;
    Ok(members.into_iter().filter(|member| !member.learner).flat_map(|member| member.client_urls).collect())
}

/// Authorities, signing keys, encryption keys and the servers' token. Leaf certificates are each server's own.
fn files(layout: &Layout) -> Result<std::collections::BTreeMap<String, String>> {
    let mut files = std::collections::BTreeMap::new();
    for path in contents::key_files(layout)? {
        let name = path.display().to_string();
        let leaf = name.strip_prefix("server/tls/").is_some_and(|rest| {
            // What lies there of the cluster's own is named after an authority.
            !rest.contains('/') && !rest.trim_end_matches(".crt").trim_end_matches(".key").ends_with("-ca")
        });
        if !leaf {
            let content = std::fs::read(layout.data.join(&path)).with_context(|| format!("read {name}"))?;
            files.insert(name, STANDARD.encode(content));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::files;
    use crate::layout::Layout;
    use crate::pki::{ServerPki, leaf::LEAF_LIFE};
    use jiff::Timestamp;

    #[test]
    fn what_is_the_clusters_is_given_and_what_is_a_servers_own_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let pki = ServerPki::load_or_make(&layout, LEAF_LIFE, Timestamp::UNIX_EPOCH).unwrap();
        pki.admin(Timestamp::UNIX_EPOCH).unwrap();
        crate::wire::keyring(&layout).unwrap();
        crate::pki::MachineKey::load_or_draw(&layout.machine_key()).unwrap();
        let names: Vec<String> = files(&layout).unwrap().into_keys().collect();
        let authorities = ["client-ca", "etcd-ca", "request-header-ca", "server-ca"];
        let mut wanted: Vec<String> =
            vec!["server/cred/encryption.keys".into(), "server/tls/service-account/0001.key".into()];
        for name in authorities {
            wanted.extend(["crt", "key"].map(|ending| format!("server/tls/{name}.{ending}")));
        }
        wanted.sort();
        assert_eq!(names, wanted);
    }
}
