//! Two other nodes, of which one falls silent, and then both.

use std::fs;
use std::net::SocketAddr;

use serde_json::json;

use super::lab::{Lab, Netns, Node, endpoints, ip, neighbour, service};

const SERVICE: &str = "10.43.0.40";
/// What the probes of paths send at first to two nodes, and two rounds of the others.
const ECHOES_MIN: u64 = 8;

#[test]
fn services_leave_out_a_silent_node_but_not_all() {
    let Some(lab) = Lab::new("silence") else { return };
    lab.run(async |lab: &Lab| {
        let outside = lab.outside();
        ip(&format!("-n {} addr add 172.31.0.3/24 dev up0", outside.name));
        neighbour(&outside, "10.42.2.7", "10.42.7.0/24");
        ip(&format!("-n {} addr add 10.42.3.7/32 dev lo", outside.name));
        outside.listen(8080);
        outside.listen(10_250);
        let node = Node::start(lab, "n1", "10.42.7.0/24").await;
        node.join("n2", "10.42.2.0/24", "172.31.0.2").await;
        node.join("n3", "10.42.3.0/24", "172.31.0.3").await;
        node.create(&service("web", SERVICE, json!({}), 80, 0, "TCP")).await;
        node.create(&endpoints("web", &[("10.42.2.7", "n2", true), ("10.42.3.7", "n3", true)], 8080, "TCP")).await;
        node.endpoints(2).await;
        node.until(|| ECHOES_MIN <= echoes(&outside)).await;

        let begin = std::time::Instant::now();
        ip(&format!("-n {} addr del 172.31.0.3/24 dev up0", outside.name));
        node.endpoints(1).await;
        println!("left out after {:.1} s", begin.elapsed().as_secs_f64());
        let at: SocketAddr = format!("{SERVICE}:80").parse().unwrap();
        for _ in 0..20 {
            lab.host.dial(at).unwrap();
        }
        // Both: then it may be this node that nobody hears.
        ip(&format!("-n {} addr del 172.31.0.2/24 dev up0", outside.name));
        node.endpoints(2).await;
        for address in ["172.31.0.2", "172.31.0.3"] {
            ip(&format!("-n {} addr add {address}/24 dev up0", outside.name));
        }
        // It went with the address.
        ip(&format!("-n {} route add 10.42.7.0/24 via 172.31.0.1", outside.name));
        // One of the two may be back before the other.
        node.until(|| (0..10).all(|_| lab.host.dial(at).is_ok())).await;
        node.endpoints(2).await;
        node.cleanup().await;
    });
}

/// Echo requests that arrived.
fn echoes(at: &Netns) -> u64 {
    let text = at.inside(|| fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
    let mut lines = text.lines().filter(|line| line.starts_with("Icmp:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut columns = names.split(' ').zip(values.split(' '));
    columns.find(|(name, _)| *name == "InEchos").unwrap().1.parse().unwrap()
}
