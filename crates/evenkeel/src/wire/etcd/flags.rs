//! The flags that a member is started with: ours, then the operator's.

use std::path::Path;

use anyhow::{Result, bail};

use super::member::{Files, Member, client_url, own_url, peer_url};
use crate::pki::{ETCD_CA, ETCD_MEMBER};

/// Writes stop when the database is this large. etcd's own default, said aloud because what is done about it depends on
/// it; beyond 8 GiB etcd advises against more.
pub const QUOTA_BYTES: u64 = 2 << 30;
/// A batch of the store is one request, and holds several of the largest objects.
const REQUEST_BYTES_MAX: u64 = 8 << 20;
/// Entries between two snapshots. etcd keeps as many in memory; its default of before 3.6 costs hundreds of megabytes.
const SNAPSHOT_ENTRIES: u64 = 10_000;
/// How long a silent leader is waited for, at least; at most it is twice as long. etcd's own default of a second is made
/// for networks that are slower than one rack, and its heartbeats of 100 ms stay.
const ELECTION_MILLIS: u32 = 700;
/// An operator who says one of these says what suits the other as well.
const PACE: [&str; 2] = ["heartbeat-interval", "election-timeout"];
/// Who it is, where it listens, whom it trusts, where its data is: not an operator's to change. A name that ends with a
/// dash is a beginning.
const OWN: [&str; 14] = [
    "name",
    "data-dir",
    "wal-dir",
    "config-file",
    "listen-client-urls",
    "listen-peer-urls",
    "advertise-client-urls",
    "initial-",
    "cert-file",
    "key-file",
    "trusted-ca-file",
    "client-cert-auth",
    "auto-tls",
    "peer-",
];

/// All flags of a member.
pub(super) fn of(member: &Member) -> Vec<String> {
    let (peer, founding) = (peer_url(member.address), &member.founding);
    let mut listen = vec![own_url(member.address), client_url(member.address)];
    listen.dedup();
    let own = [
        ("name", founding.name.clone()),
        ("data-dir", path(&Files::new(&member.layout).data())),
        ("listen-client-urls", listen.join(",")),
        ("advertise-client-urls", client_url(member.address)),
        ("listen-peer-urls", peer.clone()),
        ("initial-advertise-peer-urls", peer),
        ("initial-cluster", founding.initial_cluster.clone()),
        ("initial-cluster-state", if founding.existing { "existing" } else { "new" }.to_owned()),
        ("initial-cluster-token", "evenkeel".to_owned()),
        ("quota-backend-bytes", QUOTA_BYTES.to_string()),
        ("max-request-bytes", REQUEST_BYTES_MAX.to_string()),
        ("snapshot-count", SNAPSHOT_ENTRIES.to_string()),
        // One that comes back does not make a healthy leader step down.
        ("pre-vote", "true".to_owned()),
        ("logger", "zap".to_owned()),
        ("log-outputs", "stderr".to_owned()),
    ];
    let own = own.into_iter().chain(tls(&member.layout.server_tls())).chain(pace(&member.arguments));
    let own = own.map(|(name, value)| format!("--{name}={value}"));
    // The last of two wins.
    own.chain(member.arguments.iter().map(|text| format!("--{text}"))).collect()
}

fn pace(arguments: &[String]) -> Option<(&'static str, String)> {
    let given = arguments.iter().any(|text| PACE.iter().any(|key| text.starts_with(&format!("{key}="))));
    (!given).then(|| ("election-timeout", ELECTION_MILLIS.to_string()))
}

/// Both ways, for clients and peers, with one leaf. etcd reads the files at every handshake.
pub fn tls(folder: &Path) -> [(&'static str, String); 8] {
    let file = |name: &str, end: &str| path(&folder.join(format!("{name}.{end}")));
    let (ca, certificate, key) = (file(ETCD_CA, "crt"), file(ETCD_MEMBER, "crt"), file(ETCD_MEMBER, "key"));
    [
        ("cert-file", certificate.clone()),
        ("key-file", key.clone()),
        ("trusted-ca-file", ca.clone()),
        ("client-cert-auth", "true".to_owned()),
        ("peer-cert-file", certificate),
        ("peer-key-file", key),
        ("peer-trusted-ca-file", ca),
        ("peer-client-cert-auth", "true".to_owned()),
    ]
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// What an operator adds reads `KEY=VALUE` and touches none of what is ours.
pub(super) fn check(arguments: &[String]) -> Result<()> {
    for argument in arguments {
        let Some((key, _)) = argument.split_once('=') else { bail!("--etcd-arg {argument}: it reads KEY=VALUE") };
        let ours = |own: &&str| if own.ends_with('-') { key.starts_with(*own) } else { key == *own };
        if OWN.iter().any(ours) {
            bail!("--etcd-arg {key}: Evenkeel decides about this one itself");
        }
    }
    Ok(())
}

/// The size at which the member takes no more writes.
pub(super) fn quota(arguments: &[String]) -> u64 {
    let given = arguments.iter().rev().find_map(|text| text.strip_prefix("quota-backend-bytes="));
    given.and_then(|text| text.parse().ok()).filter(|bytes| 0 < *bytes).unwrap_or(QUOTA_BYTES)
}

#[cfg(test)]
mod tests {
    use super::{QUOTA_BYTES, check, pace, quota};

    #[test]
    fn what_an_operator_adds_is_checked() {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        check(&list(&["quota-backend-bytes=100", "heartbeat-interval=200"])).unwrap();
        for bad in ["data-dir=/x", "peer-auto-tls=true", "initial-cluster=a=b", "client-cert-auth=false", "debug"] {
            assert!(check(&list(&[bad])).is_err(), "{bad}");
        }
        assert!(pace(&list(&["quota-backend-bytes=100"])).is_some());
        assert_eq!(pace(&list(&["heartbeat-interval=200"])), None, "etcd wants five times that at least");
        assert_eq!(quota(&[]), QUOTA_BYTES);
        assert_eq!(quota(&list(&["quota-backend-bytes=1", "quota-backend-bytes=16777216"])), 16 << 20);
    }
}
