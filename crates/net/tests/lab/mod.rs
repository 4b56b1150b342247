//! Namespaces for tests: a host, an outside, pods; and a node agent with a fake API.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use api::{Gvr, Key};
use async_trait::async_trait;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use net::service::ProxyStatus;
use net::{Agent, Config, LiveSandboxes, NetStatus};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use view::fake::FakeApi;
use view::{Drain, PatchRequest, View};

const WAIT: Duration = Duration::from_secs(15);
/// A change of a path is noticed by the next probe.
const PROBED: Duration = Duration::from_secs(50);
const DIAL: Duration = Duration::from_millis(900);
const POUR_BYTES: usize = 4 << 20;

/// A network namespace; removed when dropped.
pub struct Netns {
    pub name: String,
    pub address: IpAddr,
}

pub struct Lab {
    pub host: Netns,
    pub host_address: IpAddr,
    folder: tempfile::TempDir,
    prefix: String,
}

pub struct Pod {
    netns: Netns,
    sandbox: String,
    config: Value,
    pub address: IpAddr,
    /// Of the second range, where the node has one.
    pub second: Option<IpAddr>,
}

pub struct Node {
    pub api: FakeApi,
    config: Config,
    status: watch::Receiver<NetStatus>,
    drain: Drain,
    task: JoinHandle<()>,
}

struct Sandboxes(BTreeSet<String>);

#[async_trait]
impl LiveSandboxes for Sandboxes {
    async fn ids(&self) -> Result<BTreeSet<String>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.0.clone())
    }
}

pub fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

// === impl Netns ===

impl Netns {
    fn new(name: String) -> Netns {
        ip(&format!("netns add {name}"));
        Netns { name, address: IpAddr::from([127, 0, 0, 1]) }
    }

    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/run/netns/{}", self.name))
    }

    /// Runs `work` on a thread inside.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let netns: OwnedFd = File::open(self.path()).unwrap().into();
        std::thread::scope(|scope| {
            let body = move || {
                move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            };
            scope.spawn(body).join().unwrap()
        })
    }

    /// Connects and answers which address the other side saw.
    pub fn dial(&self, to: SocketAddr) -> io::Result<IpAddr> {
        self.inside(|| {
            let mut stream = TcpStream::connect_timeout(&to, DIAL)?;
            stream.set_read_timeout(Some(DIAL))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text.parse().unwrap())
        })
    }

    /// Accepts for ever and tells everybody who they are. Ends with the process.
    pub fn listen(&self, port: u16) -> SocketAddr {
        let listener = self.inside(|| TcpListener::bind(("::", port)).unwrap());
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, peer)) = listener.accept() {
                let _ = write!(stream, "{}", peer.ip().to_canonical());
            }
        });
        address
    }

    /// Accepts for ever and gives each as much as fills many packets.
    pub fn pour(&self, port: u16) {
        let listener = self.inside(|| TcpListener::bind(("::", port)).unwrap());
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                std::thread::spawn(move || stream.write_all(&vec![b'x'; POUR_BYTES]));
            }
        });
    }

    /// Takes all that [`Netns::pour`] gives, which must keep coming.
    pub fn drink(&self, from: SocketAddr) -> io::Result<()> {
        self.inside(|| {
            let mut stream = TcpStream::connect_timeout(&from, DIAL)?;
            stream.set_read_timeout(Some(DIAL))?;
            let mut all = Vec::new();
            stream.read_to_end(&mut all)?;
            if all.len() == POUR_BYTES { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
        })
    }

    pub fn udp_socket(&self) -> UdpSocket {
        let socket = self.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket
    }

    pub fn answer_udp(&self, port: u16, text: &'static str) {
        let socket = self.inside(|| UdpSocket::bind(("0.0.0.0", port)).unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(text.as_bytes(), peer);
            }
        });
    }
}

pub fn ask(socket: &UdpSocket, at: SocketAddr) -> Option<String> {
    socket.send_to(b"?", at).ok()?;
    let mut buffer = [0; 64];
    let (count, _) = socket.recv_from(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

/// Asks the cluster's name server for an address.
pub fn resolve(socket: &UdpSocket, name: &str) -> Option<String> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    socket.send_to(&message.to_vec().unwrap(), "10.43.0.10:53").ok()?;
    let mut buffer = [0; 1500];
    let (count, _) = socket.recv_from(&mut buffer).ok()?;
    Message::from_vec(&buffer[..count]).ok()?.answers.first().map(|record| record.data.to_string())
}

/// Gives the machine outside a pod address and a route back to our pods.
pub fn neighbour(outside: &Netns, address: &str, ours: &str) {
    ip(&format!("-n {} addr add {address}/32 dev lo", outside.name));
    ip(&format!("-n {} route add {ours} via 172.31.0.1", outside.name));
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

// === impl Lab ===

impl Lab {
    pub fn new(name: &str) -> Option<Lab> {
        let root = std::fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t0");
        let tools = ["ip", "nft"].iter().all(|tool| Command::new(tool).arg("-V").output().is_ok());
        if !root || !tools {
            eprintln!("skipped: needs root, ip and nft");
            return None;
        }
        let prefix = format!("ekt{}{name}", std::process::id());
        let host = Netns::new(format!("{prefix}-host"));
        ip(&format!("-n {} link set lo up", host.name));
        let host_address = IpAddr::from([172, 31, 0, 1]);
        Some(Lab { host, host_address, folder: tempfile::tempdir().unwrap(), prefix })
    }

    /// Runs the test's body on a runtime that lives in the host's namespace.
    pub fn run(&self, body: impl AsyncFnOnce(&Lab) + Send) {
        self.host.inside(|| {
            // The body blocks while it dials; the agent runs on the workers, which inherit the namespace.
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(body(self));
        });
    }

    /// A machine on the host's other side; the host's default route leads there.
    pub fn outside(&self) -> Netns {
        let mut outside = self.router();
        self.uplink(&outside, 0);
        outside.address = IpAddr::from([172, 31, 0, 2]);
        outside
    }

    /// A machine that forwards between the segments of hosts.
    pub fn router(&self) -> Netns {
        let router = Netns::new(format!("{}-out", self.prefix));
        ip(&format!("-n {} link set lo up", router.name));
        router.inside(|| {
            for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{setting}"), "1").unwrap();
            }
        });
        router
    }

    /// Joins the host to a router by a segment of its own, in both families: `172.31.N.1`, `fd31:N::1`.
    pub fn uplink(&self, router: &Netns, segment: u8) {
        let (host, out) = (&self.host.name, &router.name);
        ip(&format!("link add up0 netns {host} type veth peer name up{segment} netns {out}"));
        for (netns, link, number) in [(host, "up0".to_owned(), 1), (out, format!("up{segment}"), 2)] {
            ip(&format!("-n {netns} addr add 172.31.{segment}.{number}/24 dev {link}"));
            ip(&format!("-n {netns} addr add fd31:{segment}::{number}/64 dev {link} nodad"));
            ip(&format!("-n {netns} link set {link} up"));
        }
        ip(&format!("-n {host} route add default via 172.31.{segment}.2"));
        ip(&format!("-n {host} route add default via fd31:{segment}::2"));
    }

    /// Whether the host's bridges call netfilter; the pod network must work either way.
    pub fn bridge_netfilter(&self, on: bool) {
        self.host.inside(|| {
            let path = "/proc/sys/net/bridge/bridge-nf-call-iptables";
            if std::fs::write(path, if on { "1" } else { "0" }).is_err() {
                eprintln!("no br_netfilter here");
            }
        });
    }

    pub fn routes(&self) -> String {
        self.output("ip", &["route"])
    }

    pub fn addresses(&self) -> String {
        self.output("ip", &["-o", "addr"])
    }

    pub fn links(&self) -> String {
        self.output("ip", &["-o", "link"])
    }

    pub fn tables(&self) -> String {
        self.output("nft", &["list", "tables"])
    }

    fn output(&self, program: &str, arguments: &[&str]) -> String {
        self.host.inside(|| {
            let output = Command::new(program).args(arguments).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    }
}

// === impl Pod ===

impl std::ops::Deref for Pod {
    type Target = Netns;
    fn deref(&self) -> &Netns {
        &self.netns
    }
}

impl Pod {
    /// Runs the plugin as the runtime would.
    pub fn cni(&self, command: &str) -> (u8, Value) {
        let variables = [
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", self.sandbox.clone()),
            ("CNI_NETNS", self.netns.path().display().to_string()),
            ("CNI_IFNAME", "eth0".into()),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=p".into()),
        ];
        let config = self.config.to_string();
        std::thread::spawn(move || {
            let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
            let mut out = Vec::new();
            let code = net::cni::main(config.as_bytes(), &variable, &mut out);
            (code, serde_json::from_slice(&out).unwrap_or(Value::Null))
        })
        .join()
        .unwrap()
    }

    /// The namespace goes, as after a crash.
    pub fn remove(self) {}
}

// === impl Node ===

fn gvr(kind: &str) -> Gvr {
    match kind {
        "Node" => Gvr::new("", "v1", "nodes"),
        "Service" => Gvr::new("", "v1", "services"),
        "EndpointSlice" => Gvr::new("discovery.k8s.io", "v1", "endpointslices"),
        other => panic!("{other}"),
    }
}

impl Node {
    pub async fn start(lab: &Lab, name: &str, range: &str) -> Node {
        let api = FakeApi::new();
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
            "spec": { "podCIDR": range, "podCIDRs": [range] } });
        api.client().create(&gvr("Node"), "", &node).await.unwrap();
        Node::start_with(lab, name, api, &[]).await
    }

    pub async fn start_with(lab: &Lab, name: &str, api: FakeApi, sandboxes: &[&str]) -> Node {
        let config = Config::new(name, lab.folder.path());
        let live = Sandboxes(sandboxes.iter().map(|id| (*id).to_owned()).collect());
        let agent = Agent::new(config.clone(), api.client(), Arc::new(live));
        let mut status = agent.status();
        let drain = Drain::new();
        let task = tokio::spawn(agent.run(drain.clone()));
        tokio::time::timeout(WAIT, status.wait_for(|status| status.ready)).await.expect("ready in time").unwrap();
        Node { api, config, status, drain, task }
    }

    /// Serves names as the node's own process does, until the node stops.
    pub async fn serve_names(&self) {
        let dns = self.config.dns.clone().unwrap();
        net::dns::put_addresses(&dns, &self.config.names_link()).await.unwrap();
        let sockets = net::dns::bind(&dns, Vec::new()).unwrap();
        let view = View::start(&self.api.client(), net::dns::watched(), &self.drain);
        let drain = self.drain.clone();
        tokio::spawn(async move { net::dns::serve(&dns, &[], view, sockets, drain).await });
    }

    pub fn connect_pod(&self, lab: &Lab, sandbox: &str, ports: Value) -> Pod {
        let netns = Netns::new(format!("{}-{sandbox}", lab.prefix));
        let list: Value =
            serde_json::from_slice(&std::fs::read(self.config.cni_networks.join("10-evenkeel.conflist")).unwrap())
                .unwrap();
        let mut config = list["plugins"][0].clone();
        config["cniVersion"] = list["cniVersion"].clone();
        config["name"] = list["name"].clone();
        config["runtimeConfig"] = json!({ "portMappings": ports });
        let address = IpAddr::from([0, 0, 0, 0]);
        let mut pod = Pod { netns, sandbox: sandbox.to_owned(), config, address, second: None };
        let (code, reply) = pod.cni("ADD");
        assert_eq!(code, 0, "{reply}");
        let address = |number: usize| -> Option<IpAddr> {
            reply["ips"][number]["address"].as_str()?.split_once('/')?.0.parse().ok()
        };
        pod.address = address(0).unwrap();
        pod.second = address(1);
        pod
    }

    pub async fn create(&self, object: &Value) {
        let kind = object["kind"].as_str().unwrap();
        self.api.client().create(&gvr(kind), "default", object).await.unwrap();
    }

    pub async fn replace_endpoints(&self, service: &str, to: &[(&str, &str, bool)]) {
        let list = endpoints(service, to, 0, "TCP")["endpoints"].clone();
        let body = json!({ "endpoints": list });
        let key = Key::new("default", &format!("{service}-1"));
        let (gvr, patch) = (gvr("EndpointSlice"), api::PatchType::Merge);
        let request = PatchRequest { gvr: &gvr, key: &key, subresource: None, patch, body: &body };
        self.api.client().patch(&request).await.unwrap();
    }

    /// Waits until the rules know `count` service ports and an endpoint for each.
    pub async fn synced(&self, count: usize) {
        let mut status = self.status.clone();
        let level = status.wait_for(|status| {
            matches!(&status.proxy, Some(ProxyStatus::Synced { services, endpoints, .. }) if *services == count && *endpoints > 0)
        });
        let reached = tokio::time::timeout(WAIT, level).await.is_ok();
        assert!(reached, "rules not in time: {:?}", self.status.borrow().proxy);
    }

    /// Waits until the rules know so many endpoints.
    pub async fn endpoints(&self, count: usize) {
        let mut status = self.status.clone();
        let level = status.wait_for(
            |status| matches!(&status.proxy, Some(ProxyStatus::Synced { endpoints, .. }) if *endpoints == count),
        );
        tokio::time::timeout(WAIT, level).await.expect("rules in time").unwrap();
    }

    /// Another node appears.
    pub async fn join(&self, name: &str, range: &str, address: &str) {
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
            "spec": { "podCIDR": range, "podCIDRs": [range] },
            "status": { "addresses": [{ "type": "InternalIP", "address": address }] } });
        self.api.client().create(&gvr("Node"), "", &node).await.unwrap();
    }

    /// Waits until exactly these paths are known to be narrow, each by what the second number says at most.
    pub async fn narrow(&self, paths: &[(&str, u32)]) {
        let mut status = self.status.clone();
        let level = status.wait_for(|status| {
            let found = status.narrow_paths.iter();
            let fits =
                |(path, (node, most)): (&net::NarrowPath, &(&str, u32))| path.node == *node && path.path_mtu <= *most;
            status.narrow_paths.len() == paths.len() && found.zip(paths).all(fits)
        });
        let reached = tokio::time::timeout(PROBED, level).await.is_ok();
        assert!(reached, "paths: {:?}", self.status.borrow().narrow_paths);
    }

    pub async fn leave(&self, name: &str) {
        self.api.client().delete(&gvr("Node"), &Key::cluster(name), &json!({})).await.unwrap();
    }

    pub async fn unreachable(&self, name: &str) {
        let mut status = self.status.clone();
        let level = status.wait_for(|status| status.unreachable == [name]);
        tokio::time::timeout(WAIT, level).await.expect("told in time").unwrap();
    }

    /// Waits for a level that only the network shows.
    pub async fn until(&self, condition: impl Fn() -> bool) {
        let deadline = tokio::time::Instant::now() + WAIT;
        while !condition() {
            assert!(tokio::time::Instant::now() < deadline, "not within {WAIT:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn records(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.config.folder.join("addresses"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().trim_end_matches(".eth0").to_owned())
            .collect();
        names.sort();
        names
    }

    pub async fn stop(self) {
        self.drain.cancel();
        tokio::time::timeout(WAIT, self.task).await.expect("drained in time").unwrap();
    }

    pub async fn cleanup(self) {
        let config = self.config.clone();
        self.stop().await;
        for _ in 0..2 {
            net::cleanup(&config).await.unwrap();
        }
    }
}

// === Objects ===

pub fn service(name: &str, ip: &str, spec: Value, port: u16, node_port: u16, protocol: &str) -> Value {
    let mut spec = spec;
    spec["clusterIP"] = json!(ip);
    spec["clusterIPs"] = json!([ip]);
    spec["ports"] = json!([{ "port": port, "protocol": protocol, "name": "main" }]);
    if node_port != 0 {
        spec["ports"][0]["nodePort"] = json!(node_port);
    }
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": "default" }, "spec": spec })
}

pub fn endpoints(service: &str, to: &[(&str, &str, bool)], port: u16, protocol: &str) -> Value {
    let list: Vec<Value> = to
        .iter()
        .map(|(address, node, ready)| {
            json!({ "addresses": [address], "nodeName": node, "conditions": { "ready": ready, "serving": ready } })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": format!("{service}-1"), "namespace": "default",
            "labels": { "kubernetes.io/service-name": service } },
        "ports": [{ "name": "main", "port": port, "protocol": protocol }],
        "endpoints": list,
    })
}
