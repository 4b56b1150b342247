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
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::{ANSWER_TIMEOUT, API_PORT, fact};
use crate::layout::Layout;

/// When a door is knocked at.
const KNOCKS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(150), Duration::from_millis(300)];
/// A kernel that is there has answered one of them by then.
const KNOCK_TIMEOUT: Duration = Duration::from_millis(500);

const _: () = assert!(KNOCK_TIMEOUT.as_millis() < ANSWER_TIMEOUT.as_millis());

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

// === impl Target ===

impl Target {
    pub fn ip(&self) -> Option<IpAddr> {
        Some(self.agent.or(self.api)?.ip())
    }

    /// Whether both are at one address.
    pub fn is(&self, other: &Target) -> bool {
        self.ip().is_some() && self.ip() == other.ip()
    }

    /// Whether a door is this machine's: the kernel binds only to what it has.
    pub fn is_here(&self) -> bool {
        let addresses = self.api.iter().chain(&self.agent).map(SocketAddr::ip);
        let mut addresses = addresses.filter(|address| !address.is_unspecified());
        addresses.any(|address| UdpSocket::bind((address, 0)).is_ok())
    }
}

/// Knocks. Whoever speaks is not believed, only heard: the handshake ends as soon as the other side has shown itself.
pub struct Doors(TlsConnector);

// === impl Doors ===

impl Doors {
    pub fn new() -> Option<Doors> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
        let trusting_nobody = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        Some(Doors(TlsConnector::from(Arc::new(trusting_nobody))))
    }

    pub async fn knock(&self, target: &Target) -> What {
        let (api, agent) = tokio::join!(self.door(target.api), self.door(target.agent));
        What::Reach { api, agent }
    }

    async fn door(&self, address: Option<SocketAddr>) -> Option<Answers> {
        let address = address?;
        let until = Instant::now() + ANSWER_TIMEOUT;
        let stream = match tokio::time::timeout(KNOCK_TIMEOUT, connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return Some(Answers::Refused),
            Ok(Err(_)) | Err(_) => return Some(Answers::Silent),
        };
        // A handshake that fails was answered all the same.
        let speak = self.0.connect(ServerName::from(address.ip()), stream);
        let spoke = tokio::time::timeout_at(until, speak).await.is_ok();
        Some(if spoke { Answers::Yes } else { Answers::Frozen })
    }
}

/// The first of several tries that comes to an end: what one packet lost would be taken for silence, for the kernel
/// repeats it only after a second.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let knock = |after| {
        Box::pin(async move {
            tokio::time::sleep(after).await;
            TcpStream::connect(address).await
        })
    };
    futures::future::select_all(KNOCKS.map(knock)).await.0
}

/// Whether somebody behind one of the doors speaks.
pub fn speaks(reach: &What) -> bool {
    matches!(reach, What::Reach { api: Some(Answers::Yes), .. } | What::Reach { agent: Some(Answers::Yes), .. })
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

/// Where a machine is, for those that do not know.
pub fn addresses(own: &str, names: &BTreeMap<IpAddr, Name>) -> Vec<Fact> {
    let there = |address: &IpAddr| What::Address { address: address.to_string(), present: true, link: String::new() };
    let others = names.iter().filter(|(_, name)| *name != own);
    others.map(|(address, name)| fact(own, name, there(address))).collect()
}

/// One that could not ask the record knows machines by their addresses only: they get the names that others tell.
pub fn named(mut facts: Facts, names: &BTreeMap<IpAddr, Name>) -> Facts {
    let told = facts.facts.iter().filter_map(|fact| match &fact.what {
        What::Address { address, .. } => Some((address.parse().ok()?, fact.about.clone())),
        _ => None,
    });
    let known = names.iter().map(|(address, name)| (*address, name.clone()));
    let names: BTreeMap<IpAddr, Name> = told.chain(known).collect();
    for fact in &mut facts.facts {
        let about = fact.about.parse::<SocketAddr>().ok();
        if let Some(name) = about.and_then(|about| names.get(&about.ip())) {
            fact.about = name.clone();
        }
    }
    facts
}

/// How far another's clock is from ours: what the way of the answer cannot explain.
pub fn clock_offset(facts: &Facts, asked: Timestamp, took: Duration) -> Option<i64> {
    let theirs = facts.facts.iter().find(|fact| fact.by == facts.from).map(|fact| fact.at)?;
    let half = SignedDuration::try_from(took / 2).ok()?;
    let offset = theirs.duration_since(asked.checked_add(half).ok()?);
    let beyond = offset.abs().checked_sub(half).filter(|beyond| beyond.is_positive())?;
    let millis = i64::try_from(beyond.as_millis()).unwrap_or(i64::MAX);
    Some(if offset.is_negative() { -millis } else { millis })
}

#[cfg(test)]
mod tests {
    use super::{Doors, Target, clock_offset, named, servers};
    use jiff::{SignedDuration, Timestamp};
    use keeper::wrong::{Answers, Fact, Facts, What};
    use std::collections::BTreeMap;
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
        let found = Doors::new().unwrap().knock(&target).await;
        assert_eq!(found, What::Reach { api: Some(Answers::Refused), agent: Some(Answers::Frozen) });
    }

    #[test]
    fn machines_get_the_names_that_others_tell() {
        let at = Timestamp::UNIX_EPOCH;
        let fact = |by: &str, about: &str, what| Fact { by: by.into(), about: about.into(), at, what };
        let silent = What::Reach { api: Some(Answers::Silent), agent: None };
        let there = What::Address { address: "10.0.0.2".to_owned(), present: true, link: String::new() };
        let facts = vec![fact("agent", "10.0.0.2:6443", silent), fact("a", "b", there)];
        let found = named(Facts { facts, ..Facts::default() }, &BTreeMap::new());
        assert_eq!(found.facts[0].about, "b");
    }

    #[test]
    fn an_offset_is_what_the_way_cannot_explain() {
        let asked = Timestamp::UNIX_EPOCH;
        let of = |millis: i64| {
            let at = asked + SignedDuration::from_millis(millis);
            let one = Fact { by: "b".into(), about: "b".into(), at, what: What::Containers { running: 0 } };
            let facts = Facts { from: "b".into(), facts: vec![one], ..Facts::default() };
            clock_offset(&facts, asked, Duration::from_millis(200))
        };
        assert_eq!((of(150), of(4_200), of(-4_000)), (None, Some(4_000), Some(-4_000)));
    }
}
