//! The doors of other machines: who answers, who only has a kernel that answers, who is silent.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use keeper::wrong::{Answers, Fact, Facts, Name, What};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{ANSWER_TIMEOUT, API_PORT, fact};
use crate::layout::Layout;

/// A machine and its doors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub node: Name,
    pub api: Option<SocketAddr>,
    pub agent: Option<SocketAddr>,
    /// Where its pods are; empty while it is new, for others learn of it within a moment.
    #[serde(default)]
    pub ranges: Vec<IpNet>,
}

/// Knocks at all doors at once.
pub async fn all(own: &str, targets: &[Target]) -> Vec<Fact> {
    let Some(tls) = trusting_nobody() else { return Vec::new() };
    let knock = targets.iter().map(|target| {
        let tls = tls.clone();
        async move {
            let (api, agent) = tokio::join!(door(target.api, &tls), door(target.agent, &tls));
            fact(own, &target.node, What::Reach { api, agent })
        }
    });
    futures::future::join_all(knock).await
}

/// Whoever speaks is not believed, only heard: the handshake ends as soon as the other side has shown itself.
fn trusting_nobody() -> Option<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    Some(Arc::new(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()))
}

async fn door(address: Option<SocketAddr>, tls: &Arc<ClientConfig>) -> Option<Answers> {
    let address = address?;
    let stream = match tokio::time::timeout(ANSWER_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return Some(Answers::Refused),
        Ok(Err(_)) | Err(_) => return Some(Answers::Silent),
    };
    let speak = TlsConnector::from(tls.clone()).connect(ServerName::from(address.ip()), stream);
    // A handshake that fails was answered all the same.
    let spoke = tokio::time::timeout(ANSWER_TIMEOUT, speak).await.is_ok();
    Some(if spoke { Answers::Yes } else { Answers::Frozen })
}

/// Whether a door is this machine's: the kernel binds only to what it has.
pub fn is_own(target: &Target) -> bool {
    let addresses = target.api.iter().chain(&target.agent).map(SocketAddr::ip);
    let mut addresses = addresses.filter(|address| !address.is_unspecified());
    addresses.any(|address| UdpSocket::bind((address, 0)).is_ok())
}

/// Servers that this machine was told of last, where the record cannot be asked.
pub fn remembered(layout: &Layout) -> Vec<Target> {
    let text = fs::read_to_string(layout.known_servers()).unwrap_or_default();
    servers(&text)
}

/// A list of `https://HOST:PORT`, as texts anywhere in the document.
fn servers(text: &str) -> Vec<Target> {
    let found = text.split('"').filter_map(|word| {
        let word = word.trim().trim_start_matches("https://");
        let parsed = word.parse::<SocketAddr>().ok();
        parsed.or_else(|| Some(SocketAddr::new(word.parse::<IpAddr>().ok()?, API_PORT)))
    });
    found
        .map(|address| Target { node: address.to_string().into(), api: Some(address), agent: None, ranges: Vec::new() })
        .collect()
}

/// Where the record has a machine, for those that cannot ask it.
pub fn address(own: &str, target: &Target) -> Option<Fact> {
    let address = target.agent.or(target.api)?.ip().to_string();
    (target.node != own).then(|| fact(own, &target.node, What::Address { address, present: true, link: String::new() }))
}

/// One that could not ask the record knows machines by their addresses only: they get the names that others tell.
pub fn named(mut facts: Facts, targets: &[Target]) -> Facts {
    let recorded = targets.iter().filter_map(|target| Some((target.agent.or(target.api)?.ip(), target.node.clone())));
    let told = facts.facts.iter().filter_map(|fact| match &fact.what {
        What::Address { address, .. } => Some((address.parse().ok()?, fact.about.clone())),
        _ => None,
    });
    let names: BTreeMap<IpAddr, Name> = told.chain(recorded).collect();
    for fact in &mut facts.facts {
        let about = fact.about.parse::<SocketAddr>().ok();
        if let Some(name) = about.and_then(|about| names.get(&about.ip())) {
            fact.about = name.clone();
        }
    }
    facts
}

/// How far another's clock is from ours: what the way of the answer cannot explain.
pub fn clock_offset(facts: &Facts, node: &str, asked: Timestamp, took: Duration) -> Option<i64> {
    let theirs = facts.facts.iter().find(|fact| fact.by == node).map(|fact| fact.at)?;
    let half = SignedDuration::try_from(took / 2).ok()?;
    let offset = theirs.duration_since(asked.checked_add(half).ok()?);
    let beyond = offset.abs().checked_sub(half).filter(|beyond| beyond.is_positive())?;
    let millis = i64::try_from(beyond.as_millis()).unwrap_or(i64::MAX);
    Some(if offset.is_negative() { -millis } else { millis })
}

#[cfg(test)]
mod tests {
    use super::{Target, all, clock_offset, named, servers};
    use jiff::{SignedDuration, Timestamp};
    use keeper::wrong::{Answers, Fact, Facts, What};
    use std::time::Duration;
    use tokio::net::TcpListener;

    #[test]
    fn servers_are_found_in_any_list() {
        let found = servers(r#"{"servers": ["https://10.0.0.1:6443", "10.0.0.2:7000", "no address"]}"#);
        let ports: Vec<u16> = found.iter().filter_map(|target| target.api.map(|api| api.port())).collect();
        assert_eq!(ports, [6443, 7000]);
        assert!(servers("").is_empty());
    }

    #[tokio::test]
    async fn a_door_that_is_open_and_says_nothing_is_frozen() {
        let frozen = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let target = Target {
            node: "b".into(),
            api: Some(closed),
            agent: Some(frozen.local_addr().unwrap()),
            ranges: Vec::new(),
        };
        let found = all("a", &[target]).await;
        let wanted = What::Reach { api: Some(Answers::Refused), agent: Some(Answers::Frozen) };
        assert_eq!(found[0].what, wanted);
    }

    #[test]
    fn machines_get_the_names_that_others_tell() {
        let at = Timestamp::UNIX_EPOCH;
        let fact = |by: &str, about: &str, what| Fact { by: by.into(), about: about.into(), at, what };
        let silent = What::Reach { api: Some(Answers::Silent), agent: None };
        let there = What::Address { address: "10.0.0.2".to_owned(), present: true, link: String::new() };
        let facts = vec![fact("agent", "10.0.0.2:6443", silent), fact("a", "b", there)];
        let found = named(Facts { facts, ..Facts::default() }, &[]);
        assert_eq!(found.facts[0].about, "b");
    }

    #[test]
    fn an_offset_is_what_the_way_cannot_explain() {
        let asked = Timestamp::UNIX_EPOCH;
        let of = |millis: i64| {
            let at = asked + SignedDuration::from_millis(millis);
            let one = Fact { by: "b".into(), about: "b".into(), at, what: What::Containers { running: 0 } };
            let facts = Facts { facts: vec![one], ..Facts::default() };
            clock_offset(&facts, "b", asked, Duration::from_millis(200))
        };
        assert_eq!((of(150), of(4_200), of(-4_000)), (None, Some(4_000), Some(-4_000)));
    }
}
