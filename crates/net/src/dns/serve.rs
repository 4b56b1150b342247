//! Serving: questions out of UDP and TCP sockets, answers from zone or forwarder.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};
use ipnet::IpNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use view::{Drain, View};

use super::control;
use super::forward::{Forwarder, PAYLOAD_BYTES, QUESTION_TIMEOUT};
use super::socket::Socket;
use super::upstream::Upstreams;
use super::zone::{Answer, Zone};
use crate::config::DnsConfig;

/// Questions in work at once; further datagrams wait in the socket and are dropped there.
const QUESTIONS_MAX: usize = 2048;
/// TCP connections at once.
const CONNECTIONS_MAX: usize = 256;
/// Longest silence on a TCP connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(250);
/// What a client takes that says nothing (RFC 1035).
const PLAIN_BYTES_MAX: u16 = 512;
const DATAGRAM_BYTES_MAX: usize = 4096;
/// Links of a chain of aliases that are followed.
const ALIASES_MAX: usize = 1;

/// What every socket needs.
#[derive(Clone)]
struct Names {
    zone: Arc<Zone>,
    forwarder: Forwarder,
    view: View,
}

/// The life of a process that serves names: waits for sockets on `control`, then serves until drain.
pub async fn run(config: DnsConfig, ranges: Vec<IpNet>, view: View, control: &Path, drain: Drain) -> io::Result<()> {
    let held = watch::Sender::new(Vec::new());
    let given = async {
        let mut given = held.subscribe();
        let sockets = drain.run_until_cancelled(given.wait_for(|sockets| !sockets.is_empty())).await;
        let Some(Ok(sockets)) = sockets.map(|found| found.map(|sockets| control::duplicates(&sockets))) else {
            return Ok(());
        };
        serve(&config, &ranges, view.clone(), sockets?, drain.clone()).await
    };
    tokio::try_join!(control::answer(control, &view, &held, &drain), given).map(drop)
}

/// Serves names on these sockets until drain; questions in work are answered first.
pub async fn serve(
    config: &DnsConfig,
    ranges: &[IpNet],
    view: View,
    sockets: Vec<OwnedFd>,
    drain: Drain,
) -> io::Result<()> {
    let upstreams = Upstreams::new(&config.resolv_conf, &config.upstreams, &config.addresses);
    let zone = Arc::new(Zone::new(&config.domain, ranges));
    let names = Names { zone, forwarder: Forwarder::new(upstreams), view };
    let mut tasks = JoinSet::new();
    let count = sockets.len();
    for socket in sockets {
        match Socket::of(socket)? {
            Socket::Udp(socket) => tasks.spawn(serve_udp(names.clone(), Arc::new(socket), drain.clone())),
            Socket::Tcp(listener) => tasks.spawn(serve_tcp(names.clone(), listener, drain.clone())),
        };
    }
    tracing::info!(sockets = count, "names are served");
    while tasks.join_next().await.is_some() {}
    Ok(())
}

async fn serve_udp(names: Names, socket: Arc<UdpSocket>, drain: Drain) {
    let slots = Arc::new(Semaphore::new(QUESTIONS_MAX));
    let mut questions = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (count, peer) = match drain.run_until_cancelled(socket.recv_from(&mut buffer)).await {
            None => break,
            Some(Ok(received)) => received,
            // A client that went away before its answer came (ICMP) is no trouble of the socket's.
            Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Some(Err(error)) => {
                trouble(&error, &drain).await;
                continue;
            }
        };
        while questions.try_join_next().is_some() {}
        let (names, socket, datagram) = (names.clone(), socket.clone(), buffer[..count].to_vec());
        questions.spawn(async move {
            let _slot = slot;
            if let Some(reply) = names.reply(&datagram, true).await {
                let _ = socket.send_to(&reply, peer).await;
            }
        });
    }
    finish(questions).await;
}

async fn serve_tcp(names: Names, listener: TcpListener, drain: Drain) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        let stream = match drain.run_until_cancelled(listener.accept()).await {
            None => break,
            Some(Ok((stream, _))) => stream,
            Some(Err(error)) => {
                trouble(&error, &drain).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let (names, drain) = (names.clone(), drain.clone());
        connections.spawn(async move {
            let _slot = slot;
            // Ends with the client, with its silence, or with nonsense: none of it is ours to report.
            let _ = serve_connection(&names, stream, &drain).await;
        });
    }
    finish(connections).await;
}

/// The socket stays: whoever asks meanwhile waits in it.
async fn trouble(error: &io::Error, drain: &Drain) {
    tracing::warn!(err = %error, "the socket of names");
    drain.run_until_cancelled(tokio::time::sleep(RETRY)).await;
}

async fn finish(mut work: JoinSet<()>) {
    let _ = tokio::time::timeout(QUESTION_TIMEOUT, async { while work.join_next().await.is_some() {} }).await;
}

async fn serve_connection(names: &Names, mut stream: TcpStream, drain: &Drain) -> io::Result<()> {
    loop {
        let next = drain.run_until_cancelled(tokio::time::timeout(IDLE_TIMEOUT, stream.read_u16())).await;
        let Some(length) = next else { return Ok(()) };
        let mut bytes = vec![0; usize::from(length??)];
        tokio::time::timeout(IDLE_TIMEOUT, stream.read_exact(&mut bytes)).await??;
        let Some(reply) = names.reply(&bytes, false).await else { return Ok(()) };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &reply].concat();
        tokio::time::timeout(IDLE_TIMEOUT, stream.write_all(&framed)).await??;
    }
}

// === impl Names ===

impl Names {
    /// The reply to one message; None for what deserves none.
    async fn reply(&self, bytes: &[u8], datagram: bool) -> Option<Vec<u8>> {
        let request = match Message::from_vec(bytes) {
            Ok(request) if request.metadata.message_type == MessageType::Query => request,
            // Answering answers would make two servers talk for ever.
            Ok(_) => return None,
            Err(_) => {
                let id = u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?);
                let is_query = bytes.get(2).is_some_and(|flags| flags & 0x80 == 0);
                let reply = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
                return is_query.then(|| reply.to_vec().ok()).flatten();
            }
        };
        let mut reply = self.answer(&request).await;
        reply.metadata.id = request.metadata.id;
        reply.metadata.op_code = request.metadata.op_code;
        reply.metadata.message_type = MessageType::Response;
        reply.metadata.recursion_desired = request.metadata.recursion_desired;
        reply.metadata.recursion_available = true;
        reply.queries.clone_from(&request.queries);
        reply.edns = request.edns.as_ref().map(|edns| {
            let mut own = Edns::new();
            own.set_max_payload(PAYLOAD_BYTES).set_version(0).set_dnssec_ok(edns.flags().dnssec_ok);
            own
        });
        let whole = reply.to_vec().ok()?;
        let payload = request.edns.as_ref().map_or(PLAIN_BYTES_MAX, |edns| edns.max_payload());
        let limit = usize::from(payload.clamp(PLAIN_BYTES_MAX, PAYLOAD_BYTES));
        if datagram && limit < whole.len() {
            return reply.truncate().to_vec().ok();
        }
        Some(whole)
    }

    async fn answer(&self, request: &Message) -> Message {
        let refuse = |code| Message::error_msg(0, OpCode::Query, code);
        if request.metadata.op_code != OpCode::Query {
            return refuse(ResponseCode::NotImp);
        }
        if request.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
            return refuse(ResponseCode::BADVERS);
        }
        let [query] = request.queries.as_slice() else { return refuse(ResponseCode::FormErr) };
        if matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR) {
            return refuse(ResponseCode::Refused);
        }
        let signatures = request.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        let internet = query.query_class() == DNSClass::IN;
        let answer = if internet {
            self.zone.answer(&self.view.snapshot(), query.name(), query.query_type())
        } else {
            Answer::Foreign
        };
        let mut reply = refuse(ResponseCode::NoError);
        reply.metadata.authoritative = true;
        match answer {
            Answer::Records { answers, additionals } => {
                reply.answers = answers;
                reply.additionals = additionals;
            }
            Answer::NoData => reply.authorities.push(self.zone.authority()),
            Answer::NoName => {
                reply.metadata.response_code = ResponseCode::NXDomain;
                reply.authorities.push(self.zone.authority());
            }
            Answer::Alias { alias, target } => {
                let mut next = query.clone();
                next.set_name(target);
                reply.answers.push(*alias);
                self.follow(&next, signatures, &mut reply).await;
            }
            Answer::NotReady => return refuse(ResponseCode::ServFail),
            Answer::Foreign => return (*self.forwarder.resolve(query, signatures).await).clone(),
        }
        reply
    }

    /// What stands behind an alias: in the cluster once more, else elsewhere.
    async fn follow(&self, query: &hickory_proto::op::Query, signatures: bool, reply: &mut Message) {
        const _: () = assert!(ALIASES_MAX == 1, "an alias to an alias is left to the client");
        match self.zone.answer(&self.view.snapshot(), query.name(), query.query_type()) {
            Answer::Records { answers, .. } => reply.answers.extend(answers),
            Answer::Foreign => {
                let found = self.forwarder.resolve(query, signatures).await;
                reply.answers.extend(found.answers.iter().cloned());
            }
            Answer::Alias { alias, .. } => reply.answers.push(*alias),
            Answer::NoData | Answer::NoName | Answer::NotReady => {}
        }
    }
}
