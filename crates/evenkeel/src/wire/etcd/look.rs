//! The managed etcd for somebody who only looks: no process is started, nothing is issued, and no quorum is needed.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Context, Result};
use store::etcd::{Config, Members};

use super::member::{Files, Founding, own_url};
use super::{PREFIX, flags};
use crate::layout::Layout;
use crate::pki::{self, Leaf, client_config};

/// Members that this server knows of, and the way to ask each.
pub struct Known {
    pub members: Members,
    /// Name of this server's own member.
    pub own: String,
    pub own_url: String,
    /// Client URLs of the others.
    pub others: Vec<String>,
    /// Names by address, as of the founding.
    pub names: BTreeMap<IpAddr, String>,
    /// The size at which writes stop, as the member was told.
    pub quota: u64,
    pub running: bool,
}

/// What is known from the files of this server; None where it has no member.
pub fn known(layout: &Layout) -> Result<Option<Known>> {
    let Some(founding) = Founding::read(layout)? else { return Ok(None) };
    let files = Files::new(layout);
    let others: Vec<String> =
        pki::read(&files.others())?.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let folder = layout.server_tls();
    let ca = pki::read(&folder.join(format!("{}.crt", pki::ETCD_CA)))?.context("the authority of etcd is not there")?;
    let leaf = Leaf::load(&folder, pki::ETCD_MEMBER)?.context("the certificate of etcd is not there")?;
    let tls = client_config(&ca, Some(&leaf), true)?;
    let own_url = own_url(Ipv4Addr::LOCALHOST.into());
    let running = container::child::running(&files.record());
    let config = Config {
        endpoints: [vec![own_url.clone()], others.clone()].concat(),
        others: None,
        prefix: PREFIX.to_owned(),
        tls: Some(Arc::new(move || tls.clone())),
    };
    Ok(Some(Known {
        members: Members::new(config)?,
        names: names(&founding.initial_cluster),
        own: founding.name,
        own_url,
        others,
        quota: running.map_or(flags::QUOTA_BYTES, quota),
        running: running.is_some(),
    }))
}

/// Only the process knows what an operator added to its flags.
fn quota(pid: u32) -> u64 {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let flags: Vec<String> = line.split('\0').filter_map(|word| Some(word.strip_prefix("--")?.to_owned())).collect();
    flags::quota(&flags)
}

/// `a=https://10.0.0.1:2380,b=...`.
fn names(initial_cluster: &str) -> BTreeMap<IpAddr, String> {
    let pairs = initial_cluster.split(',').filter_map(|pair| pair.split_once('='));
    pairs.filter_map(|(name, url)| Some((address(url)?, name.to_owned()))).collect()
}

/// The address in a URL of a member.
pub fn address(url: &str) -> Option<IpAddr> {
    let uri: http::Uri = url.parse().ok()?;
    uri.host()?.trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn members_are_named_by_their_address() {
        let found = names("a=https://10.0.0.1:2380,b=https://[fd00::2]:2380");
        assert_eq!(found[&"10.0.0.1".parse().unwrap()], "a");
        assert_eq!(found[&"fd00::2".parse().unwrap()], "b");
    }
}
