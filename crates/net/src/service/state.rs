//! What the rules of this node must do, read from Services, EndpointSlices and the records of local pods. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::{Key, Snapshot, Stream};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Service, ServicePort as ApiPort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice};

use crate::address::Record;
use crate::config::Names;
use crate::detector::Silent;

const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Set by those who bring a service proxy of their own for a Service.
const FOREIGN_PROXY_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// `sessionAffinityConfig.clientIP.timeoutSeconds` where it is absent (core/v1 default).
const AFFINITY_SECONDS: u32 = 10_800;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// One backend of a service port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub address: IpAddr,
    pub port: u16,
    /// Where it runs, if that is said.
    pub node: Option<String>,
    /// On this node.
    pub local: bool,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    /// Where the endpoint is meant to be used; empty for everywhere.
    pub zones: BTreeSet<String>,
    pub nodes: BTreeSet<String>,
}

/// One port of one service with everything that decides about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// `namespace/name`.
    pub service: String,
    /// The port's name; empty where the only port has none.
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
    pub cluster_ips: Vec<IpAddr>,
    pub external_ips: Vec<IpAddr>,
    /// Addresses of the load balancer that arrive here as they are (`ipMode: VIP`).
    pub balancer_ips: Vec<IpAddr>,
    /// Who may use the load balancer's addresses; empty for everybody.
    pub source_ranges: Vec<IpNet>,
    pub affinity_seconds: Option<u32>,
    pub internal_local: bool,
    pub external_local: bool,
    pub endpoints: Vec<Endpoint>,
    /// Endpoints that are avoided because their nodes answer nothing.
    pub left_out: Vec<Endpoint>,
}

/// A port of this node that leads to one of its pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// None for every address of the node.
    pub at: Option<IpAddr>,
    pub protocol: Protocol,
    pub port: u16,
    pub to: (IpAddr, u16),
}

/// All that the rules depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceState {
    pub names: Names,
    /// Ranges of the cluster's pods: traffic from elsewhere is hidden behind this node.
    pub cluster_cidrs: Vec<IpNet>,
    pub service_cidrs: Vec<IpNet>,
    /// Our bridge; None where somebody else's network hides pods that leave.
    pub bridge: Option<String>,
    pub node: String,
    pub zone: Option<String>,
    pub services: Vec<ServicePort>,
    pub host_ports: Vec<HostPort>,
}

// === impl Protocol ===

impl Protocol {
    pub fn parse(text: &str) -> Option<Protocol> {
        match text.to_ascii_uppercase().as_str() {
            "TCP" | "" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    pub fn text(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// Whether connections may go there, at least where no better one is.
    fn usable(&self) -> bool {
        self.ready || (self.serving && self.terminating)
    }

    /// On a node that answers nothing; endpoints that name no node may have a node's own address.
    fn is_silent(&self, silent: &Silent) -> bool {
        let node = self.node.as_ref().is_some_and(|node| silent.nodes.contains(node));
        !self.local && (node || silent.addresses.contains(&self.address))
    }
}

// === impl ServicePort ===

impl ServicePort {
    /// Takes out the endpoints of silent nodes, of each family only while a usable one is left.
    pub fn leave_out(&mut self, silent: &Silent) {
        for v4 in [true, false] {
            let of_family = |one: &Endpoint| one.address.is_ipv4() == v4;
            let left = |one: &Endpoint| of_family(one) && one.usable() && !one.is_silent(silent);
            if self.endpoints.iter().any(left) {
                let out = self.endpoints.extract_if(.., |one| of_family(one) && one.is_silent(silent));
                self.left_out.extend(out);
            }
        }
    }
}

/// The zone of a node.
pub fn zone(snapshot: &Snapshot, node: &str) -> Option<String> {
    let node = snapshot.of::<Node>().get(&Key::cluster(node)).cloned()?;
    node.header.labels.get(ZONE_LABEL).map(|zone| zone.to_string())
}

/// Every port of every service that has an address. `own` are addresses this node serves itself (names): no rules.
pub fn services(snapshot: &Snapshot, node: &str, own: &[IpAddr]) -> Vec<ServicePort> {
    let services = snapshot.of::<Service>();
    let mut slices = slices_by_service(&snapshot.of::<EndpointSlice>());
    let mut ports = Vec::new();
    for object in services.iter() {
        if object.header.labels.contains_key(FOREIGN_PROXY_LABEL) {
            continue;
        }
        let Ok(service) = object.typed::<Service>() else { continue };
        let Some(spec) = service.spec.as_ref().filter(|spec| spec.type_.as_deref() != Some("ExternalName")) else {
            continue;
        };
        let cluster_ips = cluster_ips(spec);
        if cluster_ips.is_empty() || cluster_ips.iter().any(|address| own.contains(address)) {
            continue;
        }
        let slices = slices.remove(&object.key).unwrap_or_default();
        let balancer_ips = balancer_ips(&service);
        for port in spec.ports.iter().flatten() {
            ports.extend(service_port(&object.key, spec, port, &cluster_ips, &balancer_ips, &slices, node));
        }
    }
    ports
}

fn slices_by_service(stream: &Stream) -> BTreeMap<Key, Vec<std::sync::Arc<EndpointSlice>>> {
    let mut found: BTreeMap<Key, Vec<_>> = BTreeMap::new();
    for object in stream.iter() {
        let Some(name) = object.header.labels.get(SERVICE_LABEL) else { continue };
        if let Ok(slice) = object.typed::<EndpointSlice>() {
            found.entry(Key::new(&object.key.namespace, name)).or_default().push(slice);
        }
    }
    found
}

fn cluster_ips(spec: &ServiceSpec) -> Vec<IpAddr> {
    let many = spec.cluster_ips.iter().flatten();
    let one = spec.cluster_ip.iter().filter(|_| spec.cluster_ips.as_ref().is_none_or(Vec::is_empty));
    many.chain(one).filter_map(|text| text.parse().ok()).collect()
}

fn balancer_ips(service: &Service) -> Vec<IpAddr> {
    let spec_type = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = ingress.and_then(|balancer| balancer.ingress.as_ref()).filter(|_| spec_type == Some("LoadBalancer"));
    let direct = ingress.into_iter().flatten().filter(|one| one.ip_mode.as_deref() != Some("Proxy"));
    direct.filter_map(|one| one.ip.as_ref()?.parse().ok()).collect()
}

fn service_port(
    key: &Key,
    spec: &ServiceSpec,
    port: &ApiPort,
    cluster_ips: &[IpAddr],
    balancer_ips: &[IpAddr],
    slices: &[std::sync::Arc<EndpointSlice>],
    node: &str,
) -> Option<ServicePort> {
    let protocol = Protocol::parse(port.protocol.as_deref().unwrap_or_default())?;
    let name = port.name.clone().unwrap_or_default();
    let affinity = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let affinity = affinity.and_then(|client| client.timeout_seconds).and_then(|seconds| u32::try_from(seconds).ok());
    let mut endpoints: Vec<Endpoint> =
        slices.iter().flat_map(|slice| endpoints_of(slice, &name, protocol, node)).collect();
    endpoints.sort();
    endpoints.dedup_by(|a, b| (a.address, a.port) == (b.address, b.port));
    Some(ServicePort {
        service: key.to_string(),
        name,
        protocol,
        port: number(port.port)?,
        node_port: port.node_port.and_then(number),
        cluster_ips: cluster_ips.to_vec(),
        external_ips: spec.external_ips.iter().flatten().filter_map(|text| text.parse().ok()).collect(),
        balancer_ips: balancer_ips.to_vec(),
        source_ranges: ranges(spec),
        affinity_seconds: (spec.session_affinity.as_deref() == Some("ClientIP"))
            .then_some(affinity.unwrap_or(AFFINITY_SECONDS)),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        endpoints,
        left_out: Vec::new(),
    })
}

fn ranges(spec: &ServiceSpec) -> Vec<IpNet> {
    let texts = spec.load_balancer_source_ranges.iter().flatten();
    texts.filter_map(|text| text.trim().parse::<IpNet>().ok()).map(|net| net.trunc()).collect()
}

fn endpoints_of(slice: &EndpointSlice, port: &str, protocol: Protocol, node: &str) -> Vec<Endpoint> {
    let found = slice.ports.iter().flatten().find(|one| {
        one.name.as_deref().unwrap_or_default() == port
            && Protocol::parse(one.protocol.as_deref().unwrap_or_default()) == Some(protocol)
    });
    let Some(port) = found.and_then(|one| one.port).and_then(number) else { return Vec::new() };
    slice.endpoints.iter().flatten().filter_map(|endpoint| addresses_of(endpoint, port, node)).collect()
}

/// Consumers use the first address only (discovery/v1: all of them are fungible).
fn addresses_of(endpoint: &ApiEndpoint, port: u16, node: &str) -> Option<Endpoint> {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let hints = endpoint.hints.clone().unwrap_or_default();
    Some(Endpoint {
        address: endpoint.addresses.first()?.parse().ok()?,
        port,
        node: endpoint.node_name.clone(),
        local: endpoint.node_name.as_deref() == Some(node),
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        zones: hints.for_zones.into_iter().flatten().map(|zone| zone.name).collect(),
        nodes: hints.for_nodes.into_iter().flatten().map(|node| node.name).collect(),
    })
}

/// Host ports of the pods on this node. The first of two that ask for one port keeps it.
pub fn host_ports(records: &[Record]) -> Vec<HostPort> {
    let mut taken: BTreeMap<(Option<IpAddr>, Protocol, u16, bool), HostPort> = BTreeMap::new();
    for record in records {
        for mapping in &record.ports {
            let Some(protocol) = Protocol::parse(&mapping.protocol) else { continue };
            let at = mapping.host_ip.parse::<IpAddr>().ok().filter(|address| !address.is_unspecified());
            let families = record.addresses.iter().filter(|to| at.is_none_or(|at| at.is_ipv4() == to.is_ipv4()));
            for to in families {
                let port = HostPort { at, protocol, port: mapping.host_port, to: (*to, mapping.container_port) };
                taken.entry((at, protocol, mapping.host_port, to.is_ipv4())).or_insert(port);
            }
        }
    }
    taken.into_values().collect()
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, ServicePort};
    use crate::detector::Silent;
    use serde_json::json;

    /// Endpoints as `ADDRESS@NODE`, with `!` for one that is not ready; then those that stay.
    fn check(endpoints: &str, silent: &str, stay: &str) {
        let object = |kind: &str, name: &str, more: serde_json::Value| {
            let mut object = json!({"metadata": {"name": name, "namespace": "d"}, "kind": kind});
            object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            object
        };
        let spec = serde_json::from_value(json!({"clusterIP": "10.43.0.9"})).unwrap();
        let port = serde_json::from_value(json!({"port": 80, "name": "main"})).unwrap();
        let list: Vec<_> = endpoints
            .split_whitespace()
            .map(|one| {
                let ready = !one.starts_with('!');
                let (address, node) = one.trim_start_matches('!').split_once('@').unwrap();
                let node = (!node.is_empty()).then_some(node);
                json!({"addresses": [address], "nodeName": node, "conditions": {"ready": ready}})
            })
            .collect();
        let slice = object(
            "EndpointSlice",
            "s",
            json!({"addressType": "IPv4", "ports": [{"port": 8080, "name": "main"}], "endpoints": list}),
        );
        let slice = std::sync::Arc::new(serde_json::from_value(slice).unwrap());
        let key = api::Key::new("d", "s");
        let mut service: ServicePort =
            super::service_port(&key, &spec, &port, &["10.43.0.9".parse().unwrap()], &[], &[slice], "here").unwrap();
        let (addresses, nodes): (Vec<_>, Vec<_>) = silent.split_whitespace().partition(|word| word.contains('.'));
        service.leave_out(&Silent {
            nodes: nodes.into_iter().map(str::to_owned).collect(),
            addresses: addresses.into_iter().map(|address| address.parse().unwrap()).collect(),
        });
        let left = service.endpoints.iter().map(|one: &Endpoint| one.address.to_string());
        assert_eq!(left.collect::<Vec<_>>().join(" "), stay, "{endpoints} without {silent}");
    }

    #[test]
    fn endpoints_of_silent_nodes_are_left_out_while_one_is_left() {
        let three = "10.0.0.1@here 10.0.0.2@b 10.0.0.3@c";
        check(three, "", "10.0.0.1 10.0.0.2 10.0.0.3");
        check(three, "b", "10.0.0.1 10.0.0.3");
        check("10.0.0.2@b 10.0.0.4@b", "b", "10.0.0.2 10.0.0.4");
        check("!10.0.0.1@here 10.0.0.2@b", "b", "10.0.0.1 10.0.0.2");
        check("10.0.0.1@here fd00::1@b", "b", "10.0.0.1 fd00::1");
        check(three, "here", "10.0.0.1 10.0.0.2 10.0.0.3");
    }

    #[test]
    fn endpoints_without_a_node_are_known_by_their_address() {
        check("10.0.0.1@ 10.0.0.2@ 10.0.0.3@", "10.0.0.2", "10.0.0.1 10.0.0.3");
    }
}
