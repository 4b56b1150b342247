//! Two hosts with a router between their segments.

use std::net::SocketAddr;

use api::Gvr;
use serde_json::{Value, json};
use view::fake::FakeApi;

use super::lab::{Lab, Netns, Node, endpoints, ip, service};

const SERVICE: &str = "10.43.0.30";

struct Two {
    one: Lab,
    two: Lab,
    router: Netns,
    api: FakeApi,
}

impl Two {
    fn new(name: &str) -> Option<Two> {
        let (one, two) = (Lab::new(&format!("{name}1"))?, Lab::new(&format!("{name}2"))?);
        let router = one.router();
        one.uplink(&router, 1);
        two.uplink(&router, 2);
        Some(Two { one, two, router, api: FakeApi::new() })
    }

    /// Runs the body with an agent on either host, as long as it takes.
    fn run(&self, family: &str, body: impl AsyncFnOnce(&Two, Node, Node) + Send) {
        self.one.run(async |one: &Lab| {
            for number in [1, 2] {
                self.api.client().create(&Gvr::new("", "v1", "nodes"), "", &node(number, family)).await.unwrap();
            }
            let first = Node::start_with(one, "n1", self.api.clone(), &[]).await;
            self.two.run(async |two: &Lab| {
                let second = Node::start_with(two, "n2", self.api.clone(), &[]).await;
                body(self, first, second).await;
            });
        });
    }
}

fn node(number: u8, family: &str) -> Value {
    let (four, six) = (format!("10.42.{number}.0/24"), format!("fd00:42:{number}::/64"));
    let address = if family == "v4" { format!("172.31.{number}.1") } else { format!("fd31:{number}::1") };
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": format!("n{number}") },
        "spec": { "podCIDR": four, "podCIDRs": [four, six] },
        "status": { "addresses": [{ "type": "InternalIP", "address": address }] } })
}

#[test]
fn pods_of_other_segments_are_reached_through_a_tunnel() {
    tunnelled("t4", "v4");
}

#[test]
fn a_tunnel_over_ipv6_carries_both_families() {
    tunnelled("t6", "v6");
}

fn tunnelled(name: &str, family: &str) {
    let Some(lab) = Two::new(name) else { return };
    lab.run(family, async |lab: &Two, first: Node, second: Node| {
        let (here, there) = (first.connect_pod(&lab.one, "a", json!([])), second.connect_pod(&lab.two, "b", json!([])));
        let link = if family == "v4" { "ekx4" } else { "ekx6" };
        for lab in [&lab.one, &lab.two] {
            first.until(|| lab.routes().contains(&format!("dev {link}"))).await;
        }
        for pod in [&here, &there] {
            pod.listen(8080);
            pod.pour(8081);
            pod.answer_udp(5353, "udp");
        }
        for (from, to) in [(&here, &there), (&there, &here)] {
            // Pods see each other as they are. With IPv6 the kernel looks for duplicates of its addresses first.
            let (four, six) = (SocketAddr::new(to.address, 8080), SocketAddr::new(to.second.unwrap(), 8080));
            first.until(|| from.dial(four).is_ok_and(|seen| seen == from.address)).await;
            first.until(|| from.dial(six).is_ok_and(|seen| Some(seen) == from.second)).await;
            from.drink(SocketAddr::new(to.address, 8081)).unwrap();
            from.drink(SocketAddr::new(to.second.unwrap(), 8081)).unwrap();
            let socket = from.udp_socket();
            assert_eq!(super::lab::ask(&socket, SocketAddr::new(to.address, 5353)).as_deref(), Some("udp"));
        }
        // A host is seen by its address inside the tunnel, so that answers come back through it.
        let seen = lab.one.host.dial(SocketAddr::new(there.address, 8080)).unwrap();
        assert_eq!(seen.to_string(), "10.42.1.1");
        services(lab, &first, &second, &here, &there).await;
        first.leave("n2").await;
        first.until(|| !lab.one.links().contains("ekx")).await;
        second.cleanup().await;
        assert!(!lab.two.links().contains("ekx"), "{}", lab.two.links());
        first.stop().await;
    });
}

/// A Service whose endpoint is beyond the tunnel, from a pod, a host and outside.
async fn services(lab: &Two, first: &Node, second: &Node, here: &Netns, there: &super::lab::Pod) {
    first.create(&service("far", SERVICE, json!({ "type": "NodePort" }), 80, 30090, "TCP")).await;
    first.create(&endpoints("far", &[(&there.address.to_string(), "n2", true)], 8080, "TCP")).await;
    first.synced(1).await;
    second.synced(1).await;
    let at: SocketAddr = format!("{SERVICE}:80").parse().unwrap();
    assert_eq!(here.dial(at).unwrap().to_string(), "10.42.1.2", "pods keep their address through a Service");
    lab.one.host.dial(at).unwrap();
    for (number, seen) in [(1, "10.42.1.1"), (2, "10.42.2.1")] {
        let node: SocketAddr = format!("172.31.{number}.1:30090").parse().unwrap();
        assert_eq!(lab.router.dial(node).unwrap().to_string(), seen, "node {number}");
    }
}

#[test]
fn a_path_that_swallows_large_packets_is_found_and_suited() {
    let Some(lab) = Two::new("mtu") else { return };
    lab.run("v4", async |lab: &Two, first: Node, second: Node| {
        let (here, there) = (first.connect_pod(&lab.one, "a", json!([])), second.connect_pod(&lab.two, "b", json!([])));
        here.pour(8081);
        there.pour(8081);
        let (to_here, to_there) = (SocketAddr::new(here.address, 8081), SocketAddr::new(there.address, 8081));
        first.until(|| here.drink(to_there).is_ok() && there.drink(to_here).is_ok()).await;
        // Unequal ends: the router's takes less than the host's sends, and says nothing. Links of the kernel's own kind
        // pass on many packets as a large one, unless told not to.
        let router = &lab.router.name;
        ip(&format!("-n {} link set up0 gso_max_segs 1", lab.two.host.name));
        ip(&format!("-n {router} link set up2 mtu 1400"));
        assert!(here.drink(to_there).is_err(), "large packets vanish");
        first.narrow(&[("n2", 1400)]).await;
        second.narrow(&[("n1", 1400)]).await;
        first.until(|| here.drink(to_there).is_ok() && there.drink(to_here).is_ok()).await;
        ip(&format!("-n {router} link set up2 mtu 1500"));
        first.narrow(&[]).await;
        second.narrow(&[]).await;
        first.until(|| !lab.one.routes().contains("mtu")).await;
        assert!(here.drink(to_there).is_ok());
        first.cleanup().await;
        second.cleanup().await;
    });
}
