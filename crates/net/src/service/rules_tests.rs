//! The text of the rules for small clusters, held against `testdata/`. `BLESS=1` rewrites the files; their diff is the
//! review.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::config::Names;
use crate::service::{HostPort, Protocol};

fn endpoint(address: &str, local: bool) -> Endpoint {
    Endpoint {
        address: address.parse().unwrap(),
        port: 8080,
        node: Some(if local { "n1" } else { "n2" }.into()),
        local,
        ready: true,
        serving: true,
        terminating: false,
        zones: BTreeSet::new(),
        nodes: BTreeSet::new(),
    }
}

fn service(name: &str, ip: &str) -> ServicePort {
    ServicePort {
        service: format!("default/{name}"),
        name: "http".into(),
        protocol: Protocol::Tcp,
        port: 80,
        node_port: None,
        cluster_ips: vec![ip.parse().unwrap()],
        external_ips: Vec::new(),
        balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        affinity_seconds: None,
        internal_local: false,
        external_local: false,
        endpoints: vec![endpoint("10.42.0.5", true), endpoint("10.42.1.7", false)],
        left_out: Vec::new(),
    }
}

fn state(services: Vec<ServicePort>) -> ServiceState {
    ServiceState {
        names: Names::of("evenkeel"),
        cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
        service_cidrs: vec!["10.43.0.0/16".parse().unwrap()],
        bridge: Some("ek0".into()),
        node: "n1".into(),
        zone: Some("a".into()),
        services,
        host_ports: Vec::new(),
    }
}

/// The whole text of `state`, and that nft takes it where there is nft and privilege (`-c` changes nothing).
fn check(name: &str, state: &ServiceState) {
    let text = rules(state);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&file).unwrap(), "{name}: run with BLESS=1 and read the diff");
    let nft = std::process::Command::new("nft").args(["-c", "-f", "-"]).stdin(std::process::Stdio::piped()).spawn();
    let Ok(mut nft) = nft else { return eprintln!("skipped: no nft") };
    std::io::Write::write_all(&mut nft.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let done = nft.wait_with_output().unwrap();
    if !std::fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t0") {
        return eprintln!("skipped: nft -c needs root");
    }
    assert!(done.status.success(), "nft refuses {name}");
}

/// The chain that a front end leads to.
fn front(state: &ServiceState, map: &str, key: &str) -> Option<String> {
    table(state).sets[map].elements.get(key).cloned()
}

#[test]
fn golden_texts() {
    check("empty.nft", &state(Vec::new()));
    let mut everything = service("web", "10.43.0.20");
    everything.cluster_ips.push("fd00:43::20".parse().unwrap());
    everything.endpoints.push(endpoint("fd00:42::5", true));
    everything.node_port = Some(30080);
    everything.external_ips = vec!["192.0.2.7".parse().unwrap()];
    everything.balancer_ips = vec!["192.0.2.8".parse().unwrap()];
    everything.source_ranges = vec!["198.51.100.0/24".parse().unwrap(), "198.51.100.0/25".parse().unwrap()];
    everything.affinity_seconds = Some(600);
    everything.external_local = true;
    let mut all = state(vec![everything]);
    let to = ("10.42.0.5".parse().unwrap(), 8080);
    all.host_ports = vec![
        HostPort { at: None, protocol: Protocol::Tcp, port: 8099, to },
        HostPort { at: Some("192.0.2.1".parse().unwrap()), protocol: Protocol::Udp, port: 53, to },
    ];
    check("everything.nft", &all);
    check("cluster_ip.nft", &state(vec![service("web", "10.43.0.20")]));
}

#[test]
fn ready_endpoints_first_then_those_that_still_serve() {
    let mut one = service("web", "10.43.0.20");
    one.endpoints[0].ready = false;
    let text = rules(&state(vec![one.clone()]));
    assert!(text.contains("numgen random mod 1 map { 0 : 10.42.1.7 . 8080 }"), "{text}");
    one.endpoints[1].ready = false;
    one.endpoints[1].terminating = true;
    let text = rules(&state(vec![one.clone()]));
    assert!(text.contains("numgen random mod 1 map { 0 : 10.42.1.7 . 8080 }"), "{text}");
    one.endpoints[1].serving = false;
    let none = state(vec![one]);
    assert_eq!(front(&none, "services4", "10.43.0.20 . tcp . 80"), None);
    assert!(table(&none).sets["service-ips4"].elements.contains_key("10.43.0.20"), "refused, not lost");
}

#[test]
fn policy_local_drops_where_only_others_serve() {
    let mut one = service("web", "10.43.0.20");
    one.internal_local = true;
    let key = "10.43.0.20 . tcp . 80";
    assert!(front(&state(vec![one.clone()]), "services4", key).unwrap().starts_with("goto svcl-"));
    one.endpoints.remove(0);
    let state = state(vec![one]);
    assert_eq!(front(&state, "services4", key), None);
    assert_eq!(front(&state, "unserved4", key).as_deref(), Some("drop"));
}

#[test]
fn hints_choose_near_endpoints_only_when_all_have_them() {
    let mut one = service("web", "10.43.0.20");
    one.endpoints[1].zones = BTreeSet::from(["a".into()]);
    assert!(rules(&state(vec![one.clone()])).contains("numgen random mod 2"));
    one.endpoints[0].zones = BTreeSet::from(["b".into()]);
    assert!(rules(&state(vec![one.clone()])).contains("mod 1 map { 0 : 10.42.1.7 . 8080 }"));
    one.endpoints[0].nodes = BTreeSet::from(["n1".into()]);
    one.endpoints[1].nodes = BTreeSet::from(["n2".into()]);
    assert!(rules(&state(vec![one])).contains("mod 1 map { 0 : 10.42.0.5 . 8080 }"));
}
