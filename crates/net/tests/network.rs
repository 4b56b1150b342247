//! A node's network for real: namespaces, links, rules, names. Needs root, `ip` and `nft`; says so when it skips.
//! Every namespace a test makes carries its process id and is removed with it, and all else lives inside them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod lab;
#[path = "lab/names.rs"]
mod names;
#[path = "lab/segments.rs"]
mod segments;
#[path = "lab/silence.rs"]
mod silence;
#[path = "lab/vip.rs"]
mod vip;

use std::io::ErrorKind;
use std::net::SocketAddr;

use lab::{Lab, Node, endpoints, service};
use serde_json::json;

const SERVICE: &str = "10.43.0.20";

#[test]
fn pods_reach_pods_and_services() {
    pods_reach("pods", false);
}

#[test]
fn pods_reach_pods_and_services_where_bridges_call_netfilter() {
    pods_reach("bridged", true);
}

fn pods_reach(name: &str, bridge_netfilter: bool) {
    let Some(lab) = Lab::new(name) else { return };
    lab.bridge_netfilter(bridge_netfilter);
    lab.run(async |lab: &Lab| {
        let node = Node::start(lab, "n1", "10.42.7.0/24").await;
        let web = node.connect_pod(lab, "web", json!([{ "hostPort": 8099, "containerPort": 8080, "protocol": "tcp" }]));
        let client = node.connect_pod(lab, "client", json!([]));
        assert_eq!(web.address.to_string(), "10.42.7.2");
        let _listener = web.listen(8080);

        // Pod to pod, host to pod.
        assert_eq!(client.dial(SocketAddr::new(web.address, 8080)).unwrap(), client.address);
        assert_eq!(lab.host.dial(SocketAddr::new(web.address, 8080)).unwrap().to_string(), "10.42.7.1");

        // A service in front.
        let at: SocketAddr = format!("{SERVICE}:80").parse().unwrap();
        node.create(&service("web", SERVICE, json!({ "type": "NodePort" }), 80, 30080, "TCP")).await;
        node.create(&endpoints("web", &[(&web.address.to_string(), "n1", true)], 8080, "TCP")).await;
        node.synced(1).await;
        assert_eq!(client.dial(at).unwrap(), client.address, "pods keep their address");
        assert_eq!(web.dial(at).unwrap().to_string(), "10.42.7.1", "a pod that calls itself is hidden");
        lab.host.dial(at).unwrap();

        // Names, from a pod and from the node.
        node.serve_names().await;
        for asker in [client.udp_socket(), lab.host.udp_socket()] {
            let name = "web.default.svc.cluster.local.";
            node.until(|| lab::resolve(&asker, name).as_deref() == Some(SERVICE)).await;
        }

        // Ports of the node, from the node, from a pod and from outside.
        let outside = lab.outside();
        for port in [30080, 8099] {
            let host = SocketAddr::new(lab.host_address, port);
            outside.dial(host).unwrap_or_else(|error| panic!("outside {port}: {error}"));
            client.dial(host).unwrap_or_else(|error| panic!("pod {port}: {error}"));
            lab.host.dial(host).unwrap_or_else(|error| panic!("host {port}: {error}"));
        }
        // Leaving the node hides the pod.
        let _far = outside.listen(9000);
        let far = SocketAddr::new(outside.address, 9000);
        assert_eq!(client.dial(far).unwrap(), lab.host_address);

        // Without endpoints a service refuses at once; a port nobody declared, too.
        node.replace_endpoints("web", &[]).await;
        node.until(|| client.dial(at).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)).await;
        assert_eq!(
            outside.dial(SocketAddr::new(lab.host_address, 30080)).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        let other: SocketAddr = format!("{SERVICE}:81").parse().unwrap();
        assert_eq!(client.dial(other).unwrap_err().kind(), ErrorKind::ConnectionRefused);

        // CHECK, DEL twice, and the address is free.
        assert_eq!(web.cni("CHECK").0, 0);
        assert_eq!(web.cni("DEL").0, 0);
        assert_eq!(web.cni("DEL").0, 0);
        assert_ne!(web.cni("CHECK").0, 0);
        node.stop().await;
    });
}

#[test]
fn rules_outlive_the_agent_and_addresses_are_reconciled() {
    let Some(lab) = Lab::new("again") else { return };
    lab.run(async |lab: &Lab| {
        let node = Node::start(lab, "n1", "10.42.8.0/24").await;
        let web = node.connect_pod(lab, "web", json!([]));
        let gone = node.connect_pod(lab, "gone", json!([]));
        let _listener = web.listen(8080);
        let at: SocketAddr = format!("{SERVICE}:80").parse().unwrap();
        let spec =
            json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 30 } } });
        node.create(&service("web", SERVICE, spec, 80, 0, "TCP")).await;
        node.create(&endpoints("web", &[(&web.address.to_string(), "n1", true)], 8080, "TCP")).await;
        node.synced(1).await;
        let api = node.api.clone();
        node.stop().await;
        lab.host.dial(at).unwrap();
        // With the agent down a sandbox can be removed; its address comes back when the agent does.
        assert_eq!(gone.cni("DEL").0, 0);
        gone.remove();
        let node = Node::start_with(lab, "n1", api, &["web"]).await;
        node.synced(1).await;
        lab.host.dial(at).unwrap();
        assert_eq!(node.records(), ["web"]);
        // The same sandbox asks again: same address.
        let (code, reply) = web.cni("ADD");
        assert_eq!((code, reply["ips"][0]["address"].as_str()), (0, Some("10.42.8.2/32")));
        node.cleanup().await;
        assert!(!lab.links().contains("ek0"), "{}", lab.links());
        assert!(!lab.tables().contains("evenkeel"));
    });
}

#[test]
fn policies_local_and_source_ranges() {
    let Some(lab) = Lab::new("local") else { return };
    lab.run(async |lab: &Lab| {
        let node = Node::start(lab, "n1", "10.42.9.0/24").await;
        let web = node.connect_pod(lab, "web", json!([]));
        let _listener = web.listen(8080);
        let outside = lab.outside();
        let spec = json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local",
            "loadBalancerSourceRanges": ["203.0.113.0/24"] });
        let mut object = service("web", SERVICE, spec, 80, 30081, "TCP");
        object["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": lab.host_address.to_string() }] } });
        node.create(&object).await;
        node.create(&endpoints("web", &[(&web.address.to_string(), "n1", true)], 8080, "TCP")).await;
        node.synced(1).await;
        // Local keeps the client's address.
        assert_eq!(outside.dial(SocketAddr::new(lab.host_address, 30081)).unwrap(), outside.address);
        // The balancer's address is closed to whom the ranges do not name.
        let balanced = SocketAddr::new(lab.host_address, 80);
        assert_eq!(outside.dial(balanced).unwrap_err().kind(), ErrorKind::TimedOut);
        // Only a remote endpoint: outside is dropped, so that a balancer looks elsewhere.
        node.replace_endpoints("web", &[("10.42.99.5", "n2", true)]).await;
        node.until(|| {
            outside
                .dial(SocketAddr::new(lab.host_address, 30081))
                .is_err_and(|error| error.kind() == ErrorKind::TimedOut)
        })
        .await;
        node.stop().await;
    });
}

#[test]
fn udp_clients_leave_a_dead_endpoint() {
    let Some(lab) = Lab::new("udp") else { return };
    lab.run(async |lab: &Lab| {
        let node = Node::start(lab, "n1", "10.42.10.0/24").await;
        let (one, two) = (node.connect_pod(lab, "one", json!([])), node.connect_pod(lab, "two", json!([])));
        let client = node.connect_pod(lab, "client", json!([]));
        one.answer_udp(5353, "one");
        two.answer_udp(5353, "two");
        let at: SocketAddr = format!("{SERVICE}:53").parse().unwrap();
        node.create(&service("dns", SERVICE, json!({}), 53, 0, "UDP")).await;
        node.create(&endpoints("dns", &[(&one.address.to_string(), "n1", true)], 5353, "UDP")).await;
        node.synced(1).await;
        // One socket, one flow: without forgetting it would ask "one" for ever.
        let socket = client.udp_socket();
        let ask = || lab::ask(&socket, at);
        node.until(|| ask().as_deref() == Some("one")).await;
        node.replace_endpoints("dns", &[(&two.address.to_string(), "n1", true)]).await;
        node.until(|| ask().as_deref() == Some("two")).await;
        node.stop().await;
    });
}

#[test]
fn session_affinity_survives_changes() {
    let Some(lab) = Lab::new("affinity") else { return };
    lab.run(async |lab: &Lab| {
        let node = Node::start(lab, "n1", "10.42.11.0/24").await;
        let client = node.connect_pod(lab, "client", json!([]));
        let mut addresses = Vec::new();
        let mut pods = Vec::new();
        for name in ["one", "two", "three"] {
            let pod = node.connect_pod(lab, name, json!([]));
            pod.answer_udp(5353, name);
            addresses.push(pod.address.to_string());
            pods.push(pod);
        }
        let at: SocketAddr = format!("{SERVICE}:53").parse().unwrap();
        node.create(&service("dns", SERVICE, json!({ "sessionAffinity": "ClientIP" }), 53, 0, "UDP")).await;
        let list = |count: usize| addresses[..count].iter().map(|a| (a.as_str(), "n1", true)).collect::<Vec<_>>();
        node.create(&endpoints("dns", &list(2), 5353, "UDP")).await;
        node.synced(1).await;
        // Every socket is a new flow, which would be dealt anew without memory.
        let first = lab::ask(&client.udp_socket(), at).unwrap();
        for _ in 0..12 {
            assert_eq!(lab::ask(&client.udp_socket(), at).unwrap(), first);
        }
        node.replace_endpoints("dns", &list(3)).await;
        node.endpoints(3).await;
        for _ in 0..12 {
            assert_eq!(lab::ask(&client.udp_socket(), at).unwrap(), first, "a difference keeps what clients have");
        }
        node.stop().await;
    });
}

#[test]
fn pods_of_neighbours_are_reached_by_routes() {
    let Some(lab) = Lab::new("routes") else { return };
    lab.run(async |lab: &Lab| {
        let outside = lab.outside();
        lab::neighbour(&outside, "10.42.20.9", "10.42.12.0/24");
        let _far = outside.listen(9000);
        let node = Node::start(lab, "n1", "10.42.12.0/24").await;
        let client = node.connect_pod(lab, "client", json!([]));
        let far: SocketAddr = "10.42.20.9:9000".parse().unwrap();
        node.join("n2", "10.42.20.0/24", "172.31.0.2").await;
        node.until(|| lab.routes().contains("10.42.20.0/24 via 172.31.0.2")).await;
        assert_eq!(client.dial(far).unwrap(), client.address, "pods see each other as they are");
        lab::ip(&format!("-n {} route add unreachable 192.0.2.33", lab.host.name));
        node.join("n3", "10.42.30.0/24", "192.0.2.33").await;
        node.unreachable("n3").await;
        node.leave("n2").await;
        node.until(|| !lab.routes().contains("10.42.20.0/24")).await;
        node.cleanup().await;
    });
}

/// What somebody does to the table by hand is named, and gone once the table is put again; tables of others are listed.
#[test]
fn rules_of_others_are_told_from_ours() {
    let Some(lab) = Lab::new("rules") else { return };
    lab.run(async |lab| {
        let rules = net::service::rules(&net::service::ServiceState {
            names: net::config::Names::of("evenkeel"),
            cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.43.0.0/16".parse().unwrap()],
            bridge: Some("ek0".to_owned()),
            node: "n1".to_owned(),
            zone: None,
            services: Vec::new(),
            host_ports: Vec::new(),
        });
        let wanted = net::service::nft::reworded(rules.clone()).await.unwrap();
        net::service::nft::apply(&rules).await.unwrap();
        let table = |text: &str| net::service::Listing::parse(text).tables["inet evenkeel"].clone();
        let list = async || net::service::nft::list().await.unwrap();
        assert!(net::service::changes(&table(&wanted), &table(&list().await)).is_empty());
        net::service::nft::apply("add rule inet evenkeel forward tcp dport 9 drop\nadd table ip mine\n").await.unwrap();
        let found = net::service::changes(&table(&wanted), &table(&list().await));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (found[0].place.as_str(), found[0].rule.as_str(), found[0].added),
            ("chain forward", "tcp dport 9 drop", true)
        );
        assert!(net::service::Listing::parse(&list().await).tables.contains_key("ip mine"));
        let _ = lab;
    });
}
