//! The flags that all servers of a cluster must agree on: those of the first server are everybody's, and a bundle's.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;
use serde::{Deserialize, Serialize};

use crate::cli::{Cli, Command, ServerArgs};
use crate::layout::Layout;
use crate::pki::{self, Access};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterFlags {
    pub cluster_cidr: Vec<String>,
    pub service_cidr: Vec<String>,
    pub service_node_port_range: String,
    #[serde(default)]
    pub cluster_dns: Option<IpAddr>,
    pub cluster_domain: String,
    #[serde(default)]
    pub disable: Vec<String>,
    /// A volume's path is written down once and must be that of a folder on every node.
    #[serde(default)]
    pub default_local_storage_path: Option<PathBuf>,
}

// === impl ClusterFlags ===

impl ClusterFlags {
    pub fn of(args: &ServerArgs) -> ClusterFlags {
        ClusterFlags {
            cluster_cidr: args.cluster_cidr.clone(),
            service_cidr: args.service_cidr.clone(),
            service_node_port_range: args.service_node_port_range.clone(),
            cluster_dns: args.cluster_dns,
            cluster_domain: args.cluster_domain.clone(),
            disable: args.disable.clone(),
            default_local_storage_path: Some(args.local_storage()),
        }
    }

    /// Puts the cluster's values into a server's arguments. One that was given and differs is an error with both.
    pub fn adopt(&self, args: &mut ServerArgs) -> Result<()> {
        let (given, default) = (ClusterFlags::of(args).texts(), ClusterFlags::default().texts());
        for (((flag, given), (_, default)), (_, wanted)) in given.into_iter().zip(default).zip(self.texts()) {
            if given != default && given != wanted {
                bail!("--{flag} is {given} here and {wanted} in the cluster; leave it out, or give the cluster's");
            }
        }
        if let (Some(given), Some(wanted)) = (&args.default_local_storage_path, &self.default_local_storage_path)
            && given != wanted
        {
            let (given, wanted) = (given.display(), wanted.display());
            bail!("--default-local-storage-path is {given} here and {wanted} in the cluster; leave it out");
        }
        args.default_local_storage_path.clone_from(&self.default_local_storage_path);
        args.cluster_cidr.clone_from(&self.cluster_cidr);
        args.service_cidr.clone_from(&self.service_cidr);
        args.service_node_port_range.clone_from(&self.service_node_port_range);
        args.cluster_dns = self.cluster_dns;
        args.cluster_domain.clone_from(&self.cluster_domain);
        args.disable.clone_from(&self.disable);
        Ok(())
    }

    /// Notes them in the data folder, where a bundle finds them.
    pub fn note(&self, layout: &Layout) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        if pki::read(&layout.cluster_flags())?.as_deref() != Some(text.as_str()) {
            pki::write(&layout.cluster_flags(), text.as_bytes(), Access::Secret)?;
        }
        Ok(())
    }

    pub fn noted(layout: &Layout) -> Result<Option<ClusterFlags>> {
        let text = pki::read(&layout.cluster_flags())?;
        text.map(|text| serde_json::from_str(&text).context("read the noted flags")).transpose()
    }

    /// As words of a command line, where something is set.
    pub fn words(&self) -> Vec<String> {
        let dns = self.cluster_dns.map(|dns| dns.to_string()).unwrap_or_default();
        let storage = self.default_local_storage_path.as_ref().map(|path| path.display().to_string());
        let rest = [("cluster-dns", dns), ("default-local-storage-path", storage.unwrap_or_default())];
        let texts = self.texts().into_iter().filter(|(flag, _)| *flag != "cluster-dns").chain(rest);
        texts.filter(|(_, text)| !text.is_empty()).map(|(flag, text)| format!("--{flag}={text}")).collect()
    }

    fn texts(&self) -> [(&'static str, String); 6] {
        let dns = self.cluster_dns.map_or_else(|| "the tenth of the service range".to_owned(), |dns| dns.to_string());
        [
            ("cluster-cidr", self.cluster_cidr.join(",")),
            ("service-cidr", self.service_cidr.join(",")),
            ("service-node-port-range", self.service_node_port_range.clone()),
            ("cluster-dns", dns),
            ("cluster-domain", self.cluster_domain.clone()),
            ("disable", self.disable.join(",")),
        ]
    }
}

impl Default for ClusterFlags {
    fn default() -> ClusterFlags {
        match Cli::parse_from(["evenkeel", "server"]).command {
            Command::Server(args) => ClusterFlags::of(&args),
            _ => unreachable!("the words name that command"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ClusterFlags;
    use crate::cli::{Cli, Command, ServerArgs};
    use clap::Parser;

    fn server(words: &[&str]) -> ServerArgs {
        match Cli::parse_from(["evenkeel", "server"].iter().chain(words)).command {
            Command::Server(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_clusters_flags_hold_and_a_contradiction_names_both() {
        let cluster = ClusterFlags::of(&server(&["--cluster-cidr=10.1.0.0/16", "--cluster-domain=rack.local"]));
        let mut plain = server(&[]);
        cluster.adopt(&mut plain).unwrap();
        assert_eq!(ClusterFlags::of(&plain), cluster);
        cluster.adopt(&mut plain).unwrap();
        let error = cluster.adopt(&mut server(&["--cluster-domain=other"])).unwrap_err().to_string();
        assert!(error.contains("--cluster-domain is other here and rack.local in the cluster"), "{error}");
    }

    #[test]
    fn a_bundle_of_before_is_read_and_told_in_words() {
        let text = r#"{"clusterCidr": ["10.1.0.0/16"], "serviceCidr": [], "serviceNodePortRange": "1-2", "clusterDomain": "c"}"#;
        let flags: ClusterFlags = serde_json::from_str(text).unwrap();
        let words = ["--cluster-cidr=10.1.0.0/16", "--service-node-port-range=1-2", "--cluster-domain=c"];
        assert_eq!(flags.words(), words);
        let all = ClusterFlags::of(&server(&["--cluster-dns=10.43.0.9", "--disable=dns", "--data-dir=/d"])).words();
        for word in ["--cluster-dns=10.43.0.9", "--disable=dns", "--default-local-storage-path=/d/storage"] {
            assert!(all.contains(&word.to_owned()), "{all:?}");
        }
    }
}
