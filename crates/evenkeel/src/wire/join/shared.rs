//! The flags that all servers must agree on: those of the first server are everybody's.

use anyhow::{Result, bail};
use clap::Parser;

use super::messages::SharedFlags;
use crate::cli::{Cli, Command, ServerArgs};

// === impl SharedFlags ===

impl SharedFlags {
    pub fn of(args: &ServerArgs) -> SharedFlags {
        SharedFlags {
            cluster_cidr: args.cluster_cidr.clone(),
            service_cidr: args.service_cidr.clone(),
            service_node_port_range: args.service_node_port_range.clone(),
            cluster_dns: args.cluster_dns,
            cluster_domain: args.cluster_domain.clone(),
            default_local_storage_path: Some(args.local_storage()),
        }
    }

    /// Puts the cluster's values into a server's arguments. One that was given and differs is an error with both.
    pub fn adopt(&self, args: &mut ServerArgs) -> Result<()> {
        let (given, default) = (SharedFlags::of(args).texts(), SharedFlags::default().texts());
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
        Ok(())
    }

    fn texts(&self) -> [(&'static str, String); 5] {
        let dns = self.cluster_dns.map_or_else(|| "the tenth of the service range".to_owned(), |dns| dns.to_string());
        [
            ("cluster-cidr", self.cluster_cidr.join(",")),
            ("service-cidr", self.service_cidr.join(",")),
            ("service-node-port-range", self.service_node_port_range.clone()),
            ("cluster-dns", dns),
            ("cluster-domain", self.cluster_domain.clone()),
        ]
    }
}

impl Default for SharedFlags {
    fn default() -> SharedFlags {
        match Cli::parse_from(["evenkeel", "server"]).command {
            Command::Server(args) => SharedFlags::of(&args),
            _ => unreachable!("the words name that command"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SharedFlags;
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
        let cluster = SharedFlags::of(&server(&["--cluster-cidr=10.1.0.0/16", "--cluster-domain=rack.local"]));
        let mut plain = server(&[]);
        cluster.adopt(&mut plain).unwrap();
        assert_eq!(SharedFlags::of(&plain), cluster);
        cluster.adopt(&mut plain).unwrap();
        let error = cluster.adopt(&mut server(&["--cluster-domain=other"])).unwrap_err().to_string();
        assert!(error.contains("--cluster-domain is other here and rack.local in the cluster"), "{error}");
    }
}
