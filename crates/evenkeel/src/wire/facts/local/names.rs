//! Whether names are answered: one question to the address that pods ask.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use keeper::wrong::What;
use tokio::net::UdpSocket;

use super::super::ANSWER_TIMEOUT;
use crate::layout::Layout;
use crate::wire::names;

/// A name that every cluster has.
const KNOWN: &str = "kubernetes.default.svc";
/// Resolvers know the root: they need not ask for it. One that is silent must not hold up the whole answer.
const UPSTREAM_TIMEOUT: Duration = Duration::from_millis(250);
const ROOT: &str = ".";
const ANSWER_BYTES_MAX: usize = 512;
/// Identifies our question among the answers.
const ID: [u8; 2] = [0x45, 0x4b];

/// Nothing where this machine serves no names, or where their process is known not to run.
pub async fn fact(layout: &Layout) -> Option<What> {
    names::serving(layout)??;
    let dns = settings(layout)?.dns;
    let server = SocketAddr::new(*dns.addresses.first()?, dns.port);
    let known = format!("{KNOWN}.{}", dns.domain);
    let asked = tokio::time::timeout(ANSWER_TIMEOUT, ask(server, &known));
    let (asked, (outside, upstream)) = tokio::join!(asked, upstream(&dns));
    let inside = asked.is_ok_and(|answer| answer.unwrap_or(false));
    Some(What::Names { inside, outside, upstream, file: dns.resolv_conf.display().to_string() })
}

/// Whether one of the servers beyond answers anything at all, and which they are. None where there are none.
async fn upstream(dns: &net::DnsConfig) -> (Option<bool>, String) {
    let servers = net::dns::Upstreams::new(&dns.resolv_conf, &dns.upstreams, &dns.addresses).servers();
    if servers.is_empty() {
        return (None, String::new());
    }
    let names: Vec<String> = servers.iter().map(|server| server.ip().to_string()).collect();
    // The root: whoever answers names at all answers for it, if only that it will not.
    let ask = servers.into_iter().map(|server| Box::pin(heard(server, ROOT)));
    let heard = futures::future::select_ok(ask);
    let heard = tokio::time::timeout(UPSTREAM_TIMEOUT, heard).await.is_ok_and(|heard| heard.is_ok());
    (Some(heard), names.join(", "))
}

/// What the running process was told.
fn settings(layout: &Layout) -> Option<names::Settings> {
    let entries = fs::read_dir(layout.names()).ok()?.flatten();
    let files = entries.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with("edition-") && name.ends_with(".json")
    });
    files.filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()).next()
}

async fn ask(server: SocketAddr, name: &str) -> std::io::Result<bool> {
    Ok(is_good(&heard(server, name).await?))
}

/// The first answer of a server to one question.
async fn heard(server: SocketAddr, name: &str) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&question(name)).await?;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    let length = socket.recv(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}

/// One question for the address of a name.
fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![ID[0], ID[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap_or_default());
        bytes.extend_from_slice(label.as_bytes());
    }
    // The root, an A record, of the Internet.
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

/// Ours, without an error, and with an answer in it.
fn is_good(answer: &[u8]) -> bool {
    let [first, second, _, flags, _, _, high, low, ..] = answer else { return false };
    [*first, *second] == ID && flags & 0x0f == 0 && (*high, *low) != (0, 0)
}

#[cfg(test)]
mod tests {
    use super::{is_good, question};

    #[test]
    fn a_question_is_asked_and_its_answer_known() {
        let asked = question("a.bc");
        assert_eq!(&asked[12..], [1, b'a', 2, b'b', b'c', 0, 0, 1, 0, 1]);
        let mut answer = asked.clone();
        assert!(!is_good(&answer), "no answer in it");
        answer[7] = 1;
        assert!(is_good(&answer));
        answer[3] = 3;
        assert!(!is_good(&answer), "no such name");
        assert!(!is_good(&[]));
    }
}
