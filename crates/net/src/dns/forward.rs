//! Asks upstream servers: one question at a time is on its way for any name, answers are kept, loops end by themselves.
//!
//! A question that comes back to us (a server that forwards to this node) joins the one that is already on its way and
//! waits for it, so a loop costs one timeout and never grows.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::DNSClass;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::Instant;

use super::cache::{Cache, CacheKey};
use super::upstream::Upstreams;

/// Longest wait for one server.
pub const SERVER_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for all of them.
pub const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Questions on their way at once.
pub const QUESTIONS_MAX: usize = 1024;
/// Payload we take over UDP: what passes every path unfragmented (DNS flag day 2020).
pub const PAYLOAD_BYTES: u16 = 1232;
/// A datagram cannot be larger.
const DATAGRAM_BYTES_MAX: usize = 65_535;

const _: () = assert!(SERVER_TIMEOUT.as_secs() < QUESTION_TIMEOUT.as_secs());

type Outcome = Option<Arc<Message>>;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Forwarder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    upstreams: Mutex<Upstreams>,
    cache: Mutex<Cache>,
    asking: Mutex<BTreeMap<CacheKey, watch::Receiver<Option<Outcome>>>>,
}

/// Takes the question off the list however its asking ends.
struct Asking<'a> {
    shared: &'a Shared,
    key: CacheKey,
}

// === impl Forwarder ===

impl Forwarder {
    pub fn new(upstreams: Upstreams) -> Forwarder {
        let shared = Shared {
            start: Instant::now(),
            upstreams: Mutex::new(upstreams),
            cache: Mutex::new(Cache::default()),
            asking: Mutex::new(BTreeMap::new()),
        };
        Forwarder { shared: Arc::new(shared) }
    }

    /// The answer to a question; a refusal of ours where nobody answers. Its id and flags are the caller's to set.
    pub async fn resolve(&self, query: &Query, signatures: bool) -> Arc<Message> {
        let key = CacheKey { name: query.name().to_lowercase(), kind: query.query_type(), signatures };
        let internet = query.query_class() == DNSClass::IN;
        let kept = lock(&self.shared.cache).get(&key, self.shared.start.elapsed());
        if let Some(kept) = kept.filter(|_| internet) {
            return Arc::new(kept);
        }
        let outcome = match self.join(&key) {
            Join::Wait(mut receiver) => {
                let done = receiver.wait_for(Option::is_some);
                let done = tokio::time::timeout(QUESTION_TIMEOUT, done).await;
                done.ok().and_then(Result::ok).and_then(|outcome| outcome.clone().flatten())
            }
            Join::Ask(sender) => {
                let _asking = Asking { shared: &self.shared, key: key.clone() };
                let asked = tokio::time::timeout(QUESTION_TIMEOUT, self.ask(query, signatures)).await;
                let outcome = asked.ok().flatten().map(Arc::new);
                if let Some(message) = outcome.as_ref().filter(|_| internet) {
                    lock(&self.shared.cache).put(key.clone(), message, self.shared.start.elapsed());
                }
                sender.send_replace(Some(outcome.clone()));
                outcome
            }
            Join::Full => None,
        };
        outcome.unwrap_or_else(|| {
            let op_code = hickory_proto::op::OpCode::Query;
            Arc::new(Message::error_msg(0, op_code, ResponseCode::ServFail))
        })
    }

    fn join(&self, key: &CacheKey) -> Join {
        let mut asking = lock(&self.shared.asking);
        if let Some(receiver) = asking.get(key) {
            return Join::Wait(receiver.clone());
        }
        if QUESTIONS_MAX <= asking.len() {
            return Join::Full;
        }
        let (sender, receiver) = watch::channel(None);
        asking.insert(key.clone(), receiver);
        Join::Ask(sender)
    }

    /// One server after the other until one gives an answer worth having.
    async fn ask(&self, query: &Query, signatures: bool) -> Option<Message> {
        let servers = lock(&self.shared.upstreams).servers();
        let mut last = None;
        for server in servers {
            match tokio::time::timeout(SERVER_TIMEOUT, exchange(server, query, signatures)).await {
                Ok(Ok(message)) => match message.metadata.response_code {
                    ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp => last = Some(message),
                    _ => return Some(message),
                },
                Ok(Err(error)) => tracing::debug!(server = %server, err = %error, "upstream name server"),
                Err(_) => tracing::debug!(server = %server, "upstream name server is silent"),
            }
        }
        last
    }
}

enum Join {
    Ask(watch::Sender<Option<Outcome>>),
    Wait(watch::Receiver<Option<Outcome>>),
    Full,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        lock(&self.shared.asking).remove(&self.key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

/// Over UDP from a port of its own; over TCP where the answer does not fit.
async fn exchange(server: SocketAddr, query: &Query, signatures: bool) -> io::Result<Message> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD_BYTES).set_version(0).set_dnssec_ok(signatures);
    message.set_edns(edns);
    let bytes = message.to_vec().map_err(io::Error::other)?;
    let local = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    socket.send(&bytes).await?;
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let count = socket.recv(&mut buffer).await?;
        match answer_to(&message, &buffer[..count]) {
            Some(answer) if answer.metadata.truncation => return over_tcp(server, &message, &bytes).await,
            Some(answer) => return Ok(answer),
            // Not ours: a late or forged datagram. The real one may still come.
            None => {}
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    answer_to(query, &buffer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an answer to the question"))
}

fn answer_to(query: &Message, bytes: &[u8]) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let same = answer.metadata.id == query.metadata.id && answer.queries == query.queries;
    let is_response = answer.metadata.message_type == hickory_proto::op::MessageType::Response;
    (same && is_response).then_some(answer)
}
