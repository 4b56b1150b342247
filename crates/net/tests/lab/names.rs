//! The name server on loopback with an upstream of the test's own: needs no privileges.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use net::DnsConfig;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use view::fake::FakeApi;
use view::{Drain, View};

const WAIT: Duration = Duration::from_secs(10);

struct Server {
    at: SocketAddr,
    drain: Drain,
}

/// A cluster with one Service that has many endpoints, and an alias.
async fn cluster() -> FakeApi {
    let api = FakeApi::new();
    let meta = json!({ "name": "db", "namespace": "default" });
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": { "clusterIP": "None" } });
    let far = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "far", "namespace": "default" },
        "spec": { "type": "ExternalName", "externalName": "kept.test" } });
    let many: Vec<String> = (1..=100).map(|n| format!("10.42.0.{n}")).collect();
    let slice = super::lab::endpoints(
        "db",
        &many.iter().map(|address| (address.as_str(), "n1", true)).collect::<Vec<_>>(),
        5432,
        "TCP",
    );
    let services = api::Gvr::new("", "v1", "services");
    api.client().create(&services, "default", &service).await.unwrap();
    api.client().create(&services, "default", &far).await.unwrap();
    api.client().create(&api::Gvr::new("discovery.k8s.io", "v1", "endpointslices"), "default", &slice).await.unwrap();
    api
}

fn config(port: u16, upstreams: Vec<SocketAddr>) -> DnsConfig {
    DnsConfig {
        addresses: vec![IpAddr::from([127, 0, 0, 1])],
        port,
        domain: "cluster.local".into(),
        resolv_conf: "/absent".into(),
        upstreams,
    }
}

impl Server {
    /// Serves a cluster, forwarding to `upstreams`.
    async fn start(port: u16, upstreams: Vec<SocketAddr>) -> Server {
        let drain = Drain::new();
        let view = View::start(&cluster().await.client(), net::dns::watched(), &drain);
        view.synced().await;
        let config = config(port, upstreams);
        let sockets = net::dns::bind(&config, Vec::new()).unwrap();
        let serving = drain.clone();
        tokio::spawn(async move { net::dns::serve(&config, &[], view, sockets, serving).await.unwrap() });
        let server = Server { at: SocketAddr::from(([127, 0, 0, 1], port)), drain };
        let up = async { while server.ask("cluster.local.", RecordType::SOA, 0).await.is_none() {} };
        tokio::time::timeout(WAIT, up).await.unwrap();
        server
    }

    async fn ask(&self, name: &str, kind: RecordType, payload: u16) -> Option<Message> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&question(name, kind, payload), self.at).await.unwrap();
        receive(&socket).await.map(|(message, _)| message)
    }

    async fn ask_tcp(&self, name: &str, kind: RecordType) -> Message {
        let mut stream = TcpStream::connect(self.at).await.unwrap();
        let bytes = question(name, kind, 0);
        stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut reply = vec![0; usize::from(length)];
        stream.read_exact(&mut reply).await.unwrap();
        Message::from_vec(&reply).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.drain.cancel();
    }
}

fn question(name: &str, kind: RecordType, payload: u16) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if payload != 0 {
        let mut edns = Edns::new();
        edns.set_max_payload(payload).set_version(0);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

async fn receive(socket: &UdpSocket) -> Option<(Message, SocketAddr)> {
    let mut buffer = vec![0; 4096];
    let received = tokio::time::timeout(Duration::from_secs(6), socket.recv_from(&mut buffer)).await.ok()?;
    let (count, peer) = received.ok()?;
    Some((Message::from_vec(&buffer[..count]).unwrap(), peer))
}

/// A port that is free for both protocols now.
async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// An upstream that knows `kept.test`, denies `gone.test`, and is cut short over UDP for `long.test`.
async fn upstream(asked: Arc<AtomicUsize>) -> SocketAddr {
    let port = free_port().await;
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let (udp, tcp) = (UdpSocket::bind(at).await.unwrap(), TcpListener::bind(at).await.unwrap());
    let count = asked.clone();
    tokio::spawn(async move {
        while let Some((query, peer)) = receive(&udp).await {
            count.fetch_add(1, Ordering::SeqCst);
            let short = query.queries[0].name().to_ascii() == "long.test.";
            let reply = if short { answer(&query).truncate() } else { answer(&query) };
            udp.send_to(&reply.to_vec().unwrap(), peer).await.unwrap();
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let length = stream.read_u16().await.unwrap();
            let mut bytes = vec![0; usize::from(length)];
            stream.read_exact(&mut bytes).await.unwrap();
            let reply = answer(&Message::from_vec(&bytes).unwrap()).to_vec().unwrap();
            stream.write_u16(u16::try_from(reply.len()).unwrap()).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    });
    at
}

fn answer(query: &Message) -> Message {
    let mut reply = Message::response(query.metadata.id, OpCode::Query);
    reply.queries.clone_from(&query.queries);
    let name = query.queries[0].name().clone();
    if name.to_ascii() == "gone.test." {
        reply.metadata.response_code = ResponseCode::NXDomain;
        let soa = SOA::new(name.clone(), name.clone(), 1, 1, 1, 1, 60);
        reply.authorities.push(Record::from_rdata(name, 60, RData::SOA(soa)));
    } else {
        reply.add_answer(Record::from_rdata(name, 60, RData::A(A([192, 0, 2, 1].into()))));
    }
    reply
}

#[tokio::test]
async fn names_elsewhere_are_forwarded_and_kept() {
    let asked = Arc::new(AtomicUsize::new(0));
    let upstream = upstream(asked.clone()).await;
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = Server::start(free_port().await, vec![upstream, silent.local_addr().unwrap()]).await;
    for _ in 0..3 {
        let reply = server.ask("kept.test.", RecordType::A, 1232).await.unwrap();
        assert_eq!(reply.answers[0].data.to_string(), "192.0.2.1");
        assert!(reply.metadata.recursion_available && reply.edns.is_some());
        let reply = server.ask("gone.test.", RecordType::A, 0).await.unwrap();
        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2, "each was asked for once");
    let reply = server.ask("far.default.svc.cluster.local.", RecordType::A, 0).await.unwrap();
    assert_eq!(reply.answers.len(), 2, "the alias and what stands behind it");
    let reply = server.ask("long.test.", RecordType::A, 0).await.unwrap();
    assert!(!reply.metadata.truncation && reply.answers.len() == 1, "asked again over TCP");
}

#[tokio::test]
async fn long_answers_are_cut_and_whole_over_tcp() {
    let server = Server::start(free_port().await, Vec::new()).await;
    let name = "db.default.svc.cluster.local.";
    let cut = server.ask(name, RecordType::A, 0).await.unwrap();
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    assert_eq!(server.ask_tcp(name, RecordType::A).await.answers.len(), 100);
    let absent = server.ask("absent.default.svc.cluster.local.", RecordType::A, 0).await.unwrap();
    assert_eq!(absent.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(absent.authorities.len(), 1);
    let nobody = server.ask("example.test.", RecordType::A, 0).await.unwrap();
    assert_eq!(nobody.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn a_loop_ends_by_itself() {
    let port = free_port().await;
    let server = Server::start(port, vec![SocketAddr::from(([127, 0, 0, 1], port))]).await;
    let reply = server.ask("round.test.", RecordType::A, 0).await.unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn garbage_gets_at_most_an_error() {
    let server = Server::start(free_port().await, Vec::new()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for bytes in [&[][..], &[0; 3], &[0xff; 40], &[7; 12], &[0; 4000]] {
        socket.send_to(bytes, server.at).await.unwrap();
    }
    let mut bad = question("db.default.svc.cluster.local.", RecordType::A, 0);
    bad.truncate(20);
    socket.send_to(&bad, server.at).await.unwrap();
    let mut axfr = question("cluster.local.", RecordType::AXFR, 0);
    axfr[1] ^= 1;
    socket.send_to(&axfr, server.at).await.unwrap();
    let refused = async {
        loop {
            let (reply, _) = receive(&socket).await.unwrap();
            if reply.metadata.response_code == ResponseCode::Refused {
                return;
            }
        }
    };
    tokio::time::timeout(WAIT, refused).await.unwrap();
    assert!(server.ask("db.default.svc.cluster.local.", RecordType::A, 1232).await.is_some());
}

/// One process after the other serves on the same sockets. Nobody who asks meanwhile meets a closed port, also while
/// none of them runs.
#[tokio::test]
async fn sockets_outlive_who_serves_on_them() {
    let api = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let config = config(free_port().await, Vec::new());
    let at = SocketAddr::from(([127, 0, 0, 1], config.port));
    let start = |name: &str| {
        let (control, drain) = (folder.path().join(name), Drain::new());
        let view = View::start(&api.client(), net::dns::watched(), &drain);
        let (config, path, stop) = (config.clone(), control.clone(), drain.clone());
        let task = tokio::spawn(async move { net::dns::run(config, Vec::new(), view, &path, stop).await });
        (control, drain, task)
    };
    let complete = async |control: &std::path::Path| {
        let asked = async {
            loop {
                match net::dns::exchange(control, &[]).await {
                    Ok(serving) if serving.complete => return serving,
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        tokio::time::timeout(WAIT, asked).await.unwrap()
    };
    let asking = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    asking.connect(at).await.unwrap();
    let name = "db.default.svc.cluster.local.";
    let ask = async || asking.send(&question(name, RecordType::A, 1232)).await.unwrap();
    let answered = async || receive(&asking).await.expect("an answer").0.metadata.response_code;

    let (control, drain, first) = start("first");
    assert!(complete(&control).await.sockets.is_empty(), "it was not given any yet");
    let serving = net::dns::exchange(&control, &net::dns::bind(&config, Vec::new()).unwrap()).await.unwrap();
    let kept = serving.sockets;
    assert_eq!(kept.len(), 2);
    ask().await;
    assert_eq!(answered().await, ResponseCode::NoError);

    // It is drained; a question waits in the socket; the next one answers it.
    drain.cancel();
    first.await.unwrap().unwrap();
    assert!(!control.exists());
    ask().await;
    let mut queued = TcpStream::connect(at).await.unwrap();
    let (control, drain, second) = start("second");
    complete(&control).await;
    let serving = net::dns::exchange(&control, &kept).await.unwrap();
    assert_eq!(serving.sockets.len(), 2);
    assert_eq!(answered().await, ResponseCode::NoError);
    let bytes = question(name, RecordType::A, 0);
    queued.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    queued.write_all(&bytes).await.unwrap();
    assert!(0 < queued.read_u16().await.unwrap());

    // What is given later is not taken: sockets serve until the end.
    let elsewhere = self::config(free_port().await, Vec::new());
    let other = net::dns::bind(&elsewhere, Vec::new()).unwrap();
    let serving = net::dns::exchange(&control, &other).await.unwrap();
    assert_eq!(serving.sockets.len(), 2);

    // Sockets of another address are not used again, those of the same one are: it could not be bound twice.
    assert!(net::dns::bind(&config, Vec::new()).is_err());
    net::dns::bind(&config, serving.sockets).unwrap();
    assert!(net::dns::bind(&elsewhere, kept).is_err());
    drain.cancel();
    second.await.unwrap().unwrap();
}
