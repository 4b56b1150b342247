//! The rules of a node: one table, maps from addresses and ports to a chain per service port. Pure.
//!
//! Order of what a packet meets, which later chains (network policy) fit between:
//! `fit` (forward, -150) tells connections the size that fits; `prerouting`/`output` translate (nat, -100); `forward`/`input` at -110 and `output-after` at -90 refuse what was not
//! translated though it should have been; `postrouting` hides sources (nat, 100). A filter that wants to see pods'
//! real addresses hooks `forward` at priority 0.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::state::{Endpoint, HostPort, ServicePort, ServiceState};
use super::table::{Chain, Set, Table};
use crate::config::fnv;

/// Clients one endpoint remembers for session affinity.
const AFFINITY_CLIENTS_MAX: u32 = 65_536;
/// Longest readable part of a chain's name.
const LABEL_BYTES_MAX: usize = 96;

/// The text that replaces this node's table.
pub fn rules(state: &ServiceState) -> String {
    table(state).render()
}

/// This node's table.
pub fn table(state: &ServiceState) -> Table {
    let mut builder = Builder { state, table: Table { name: state.names.table.clone(), ..Table::default() } };
    builder.declare();
    builder.entries();
    for service in &state.services {
        for family in [Family::V4, Family::V6] {
            builder.service(service, family);
        }
    }
    for port in &state.host_ports {
        builder.host_port(port);
    }
    builder.table
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// Which endpoints a kind of traffic may use, and what becomes of it where there are none.
struct Backends<'a> {
    cluster: Vec<&'a Endpoint>,
    local: Vec<&'a Endpoint>,
}

struct Builder<'a> {
    state: &'a ServiceState,
    table: Table,
}

// === impl Family ===

impl Family {
    fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The word of rules.
    fn ip(self) -> &'static str {
        match self {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        }
    }

    /// The word of types.
    fn address(self) -> &'static str {
        match self {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        }
    }

    /// The ending of set names.
    fn digit(self) -> &'static str {
        match self {
            Family::V4 => "4",
            Family::V6 => "6",
        }
    }

    fn loopback(self) -> &'static str {
        match self {
            Family::V4 => "127.0.0.0/8",
            Family::V6 => "::1",
        }
    }

    fn multicast(self) -> &'static str {
        match self {
            Family::V4 => "224.0.0.0/4",
            Family::V6 => "ff00::/8",
        }
    }
}

// === impl Builder: what is always there ===

impl Builder<'_> {
    fn declare(&mut self) {
        for family in [Family::V4, Family::V6] {
            let (address, digit) = (family.address(), family.digit());
            let ranges = format!("type {address}; flags interval;");
            for (name, nets) in [("cluster", &self.state.cluster_cidrs), ("service-range", &self.state.service_cidrs)] {
                let mut set = Set::plain(&ranges);
                let nets = nets.iter().filter(|net| Family::of(net.addr()) == family);
                set.elements = nets.map(|net| (net.to_string(), String::new())).collect();
                self.table.sets.insert(format!("{name}{digit}"), set);
            }
            let place = format!("{address} . inet_proto . inet_service");
            let sets = [
                (format!("service-ips{digit}"), Set::plain(&format!("type {address};"))),
                (format!("hairpin{digit}"), Set::plain(&format!("type {address} . {address};"))),
                (format!("services{digit}"), Set::map(&format!("type {place} : verdict;"))),
                (format!("unserved{digit}"), Set::map(&format!("type {place} : verdict;"))),
                (format!("nodeports{digit}"), Set::map("type inet_proto . inet_service : verdict;")),
                (format!("unserved-nodeports{digit}"), Set::map("type inet_proto . inet_service : verdict;")),
                (
                    format!("hostports{digit}"),
                    Set::map(&format!("type inet_proto . inet_service : {address} . inet_service;")),
                ),
                (format!("hostports-at{digit}"), Set::map(&format!("type {place} : {address} . inet_service;"))),
            ];
            self.table.sets.extend(sets);
        }
    }

    fn entries(&mut self) {
        let nat = |hook: &str, priority: i32| format!("type nat hook {hook} priority {priority}; policy accept;");
        let filter = |hook: &str, priority: i32| format!("type filter hook {hook} priority {priority}; policy accept;");
        let translate = vec!["jump translate".to_owned()];
        let refuse = vec!["ct state new jump refuse".to_owned()];
        self.entry("prerouting", nat("prerouting", -100), translate.clone());
        self.entry("output", nat("output", -100), translate);
        self.entry("forward", filter("forward", -110), refuse.clone());
        self.entry("input", filter("input", -110), refuse.clone());
        self.entry("output-after", filter("output", -90), refuse);
        if self.state.bridge.is_some() {
            self.entry("fit", filter("forward", -150), fit());
        }
        let hide = self.hide();
        self.entry("postrouting", nat("postrouting", 100), hide);
        let mut translate = Vec::new();
        for family in [Family::V4, Family::V6] {
            let (ip, digit, loopback) = (family.ip(), family.digit(), family.loopback());
            let own = format!("fib daddr type local {ip} daddr != {loopback}");
            translate.push(format!("{ip} daddr . meta l4proto . th dport vmap @services{digit}"));
            translate.push(format!("{own} meta l4proto . th dport vmap @nodeports{digit}"));
            translate.push(format!("dnat {ip} to {ip} daddr . meta l4proto . th dport map @hostports-at{digit}"));
            translate.push(format!("{own} dnat {ip} to meta l4proto . th dport map @hostports{digit}"));
        }
        self.chain("translate", translate);
        let mut refuse = Vec::new();
        for family in [Family::V4, Family::V6] {
            let (ip, digit) = (family.ip(), family.digit());
            refuse.push(format!("{ip} daddr . meta l4proto . th dport vmap @unserved{digit}"));
            refuse.push(format!(
                "meta nfproto ipv{digit} fib daddr type local meta l4proto . th dport vmap @unserved-nodeports{digit}"
            ));
        }
        // The addresses of names are this node's own; what else lies in the range belongs to a service or to nobody.
        refuse.push("fib daddr type local return".to_owned());
        for family in [Family::V4, Family::V6] {
            let (ip, digit) = (family.ip(), family.digit());
            refuse.push(format!("{ip} daddr @service-ips{digit} goto denied"));
            refuse.push(format!("{ip} daddr @service-range{digit} drop"));
        }
        self.chain("refuse", refuse);
        let denied = ["meta l4proto tcp reject with tcp reset", "reject with icmpx type port-unreachable"];
        self.chain("denied", denied.map(String::from).to_vec());
    }

    /// Whose source address becomes this node's.
    fn hide(&self) -> Vec<String> {
        let mark = self.state.names.mark;
        let mut rules = vec![format!(
            "meta mark & {mark:#x} == {mark:#x} meta mark set meta mark xor {mark:#x} masquerade fully-random"
        )];
        for family in [Family::V4, Family::V6] {
            let (ip, digit, multicast) = (family.ip(), family.digit(), family.multicast());
            rules.push(format!("ct status dnat {ip} saddr . {ip} daddr @hairpin{digit} masquerade fully-random"));
            if let Some(bridge) = &self.state.bridge {
                rules.push(format!(
                    "oifname != \"{bridge}\" {ip} saddr @cluster{digit} {ip} daddr != @cluster{digit} \
                     {ip} daddr != {multicast} masquerade fully-random"
                ));
            }
        }
        rules
    }

    fn entry(&mut self, name: &str, hook: String, rules: Vec<String>) {
        self.table.chains.insert(name.to_owned(), Chain { hook: Some(hook), rules });
    }

    fn chain(&mut self, name: &str, rules: Vec<String>) {
        self.table.chains.insert(name.to_owned(), Chain { hook: None, rules });
    }

    fn put(&mut self, set: &str, family: Family, key: String, value: String) {
        let name = format!("{set}{}", family.digit());
        let set = self.table.sets.get_mut(&name).expect("every set is declared first");
        // The first of two that claim one address and port keeps it; services come in name order.
        set.elements.entry(key).or_insert(value);
    }
}

// === impl Builder: services ===

impl Builder<'_> {
    fn service(&mut self, service: &ServicePort, family: Family) {
        let of_family = |addresses: &[IpAddr]| -> Vec<IpAddr> {
            addresses.iter().copied().filter(|address| Family::of(*address) == family).collect()
        };
        let inside = of_family(&service.cluster_ips);
        if inside.is_empty() {
            return;
        }
        for address in &inside {
            self.put("service-ips", family, address.to_string(), String::new());
        }
        let backends = backends(service, family, &self.state.node, self.state.zone.as_deref());
        let chains = self.chains(service, family, &backends);
        let proto = service.protocol.text();
        let at = |address: &IpAddr| format!("{address} . {proto} . {}", service.port);

        let served = if service.internal_local { &chains.local } else { &chains.cluster };
        for address in &inside {
            match served {
                Some(chain) => self.put("services", family, at(address), format!("goto {chain}")),
                // Served, but not on this node (policy Local). Where nobody serves at all, being a service's address
                // is enough to be refused.
                None if !backends.cluster.is_empty() => self.put("unserved", family, at(address), "drop".to_owned()),
                None => {}
            }
        }
        self.outside(service, family, &chains, &backends);
    }

    /// Node port, external addresses, load balancer.
    fn outside(&mut self, service: &ServicePort, family: Family, chains: &Chains, backends: &Backends<'_>) {
        // Nobody to serve: refused. Somebody elsewhere (policy Local): dropped, so that a balancer finds the right node.
        let unserved = if backends.cluster.is_empty() { "goto denied" } else { "drop" };
        let leaves_some = chains.external.is_none() || service.external_local;
        let external = service.external_ips.iter().map(|address| (address, &chains.external));
        let guarded = if chains.guarded.is_some() { &chains.guarded } else { &chains.external };
        let balanced = service.balancer_ips.iter().map(|address| (address, guarded));
        let proto = service.protocol.text();
        for (address, chain) in external.chain(balanced).filter(|(address, _)| Family::of(**address) == family) {
            let key = format!("{address} . {proto} . {}", service.port);
            if let Some(chain) = chain {
                self.put("services", family, key.clone(), format!("goto {chain}"));
            }
            if leaves_some {
                self.put("unserved", family, key, unserved.to_owned());
            }
        }
        if let Some(port) = service.node_port {
            let key = format!("{proto} . {port}");
            if let Some(chain) = &chains.external {
                self.put("nodeports", family, key.clone(), format!("goto {chain}"));
            }
            if leaves_some {
                self.put("unserved-nodeports", family, key, unserved.to_owned());
            }
        }
    }

    fn chains(&mut self, service: &ServicePort, family: Family, backends: &Backends<'_>) -> Chains {
        let label = label(service, family);
        let (ip, digit, mark) = (family.ip(), family.digit(), self.state.names.mark);
        let hide = format!("meta mark set meta mark or {mark:#x}");
        let mut chains = Chains::default();
        if !backends.cluster.is_empty() {
            let name = format!("svc-{label}");
            let mut rules = Vec::new();
            if self.state.cluster_cidrs.iter().any(|net| Family::of(net.addr()) == family) {
                rules.push(format!("{ip} saddr != @cluster{digit} {hide}"));
            }
            rules.extend(self.balance(service, family, &label, &backends.cluster));
            self.chain(&name, rules);
            chains.cluster = Some(name);
        }
        let local_wanted = service.internal_local || (service.external_local && has_outside(service));
        if local_wanted && !backends.local.is_empty() {
            let name = format!("svcl-{label}");
            let rules = self.balance(service, family, &label, &backends.local);
            self.chain(&name, rules);
            chains.local = Some(name);
        }
        if has_outside(service) && chains.cluster.is_some() {
            let name = format!("ext-{label}");
            let cluster = chains.cluster.clone().unwrap_or_default();
            let rules = if service.external_local {
                let mut rules = vec![
                    format!("{ip} saddr @cluster{digit} goto {cluster}"),
                    format!("fib saddr type local {hide} goto {cluster}"),
                ];
                rules.extend(chains.local.iter().map(|local| format!("goto {local}")));
                rules
            } else {
                vec![format!("{hide} goto {cluster}")]
            };
            self.chain(&name, rules);
            chains.guarded = self.guard(service, family, &label, &name);
            chains.external = Some(name);
        }
        chains
    }

    /// `loadBalancerSourceRanges`: a chain before the external one.
    fn guard(&mut self, service: &ServicePort, family: Family, label: &str, external: &str) -> Option<String> {
        if service.source_ranges.is_empty() {
            return None;
        }
        let mut nets: Vec<IpNet> =
            service.source_ranges.iter().copied().filter(|net| Family::of(net.addr()) == family).collect();
        nets = IpNet::aggregate(&nets);
        let mut rules = Vec::new();
        if !nets.is_empty() {
            let list: Vec<String> = nets.iter().map(ToString::to_string).collect();
            rules.push(format!("{} saddr {{ {} }} goto {external}", family.ip(), list.join(", ")));
        }
        rules.push("drop".to_owned());
        let name = format!("fw-{label}");
        self.chain(&name, rules);
        Some(name)
    }

    /// Rules that pick one endpoint.
    fn balance(&mut self, service: &ServicePort, family: Family, label: &str, chosen: &[&Endpoint]) -> Vec<String> {
        let (ip, proto) = (family.ip(), service.protocol.text());
        for endpoint in chosen.iter().filter(|endpoint| endpoint.local) {
            self.put("hairpin", family, format!("{0} . {0}", endpoint.address), String::new());
        }
        let Some(seconds) = service.affinity_seconds else {
            let targets = chosen.iter().map(|endpoint| format!("{} . {}", endpoint.address, endpoint.port));
            return vec![format!("meta l4proto {proto} dnat {ip} addr . port to {}", pick("map", targets))];
        };
        let mut rules = Vec::new();
        let mut names = Vec::new();
        for endpoint in chosen {
            let id = hash(&format!("{label} {} {}", endpoint.address, endpoint.port));
            let (chain, clients) = (format!("ep-{id}"), format!("clients-{id}-{seconds}"));
            let mut set = Set::plain(&format!("type {}; flags dynamic, timeout;", family.address()));
            set.spec += &format!(" timeout {seconds}s; size {AFFINITY_CLIENTS_MAX};");
            self.table.sets.insert(clients.clone(), set);
            let target = match family {
                Family::V4 => format!("{}:{}", endpoint.address, endpoint.port),
                Family::V6 => format!("[{}]:{}", endpoint.address, endpoint.port),
            };
            let remember = format!("update @{clients} {{ {ip} saddr }}");
            self.chain(&chain, vec![remember, format!("meta l4proto {proto} dnat {ip} to {target}")]);
            rules.push(format!("{ip} saddr @{clients} goto {chain}"));
            names.push(format!("goto {chain}"));
        }
        rules.push(pick("vmap", names.into_iter()));
        rules
    }

    fn host_port(&mut self, port: &HostPort) {
        let (to, target) = port.to;
        let family = Family::of(to);
        let value = format!("{to} . {target}");
        let proto = port.protocol.text();
        match port.at {
            Some(at) => self.put("hostports-at", family, format!("{at} . {proto} . {}", port.port), value),
            None => self.put("hostports", family, format!("{proto} . {}", port.port), value),
        }
        self.put("hairpin", family, format!("{to} . {to}"), String::new());
    }
}

/// Pods' links take more than some paths to other nodes: connections are told from the start what fits their route.
fn fit() -> Vec<String> {
    let of = |family: Family| format!("{} saddr @cluster{}", family.ip(), family.digit());
    let fit = "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu";
    [Family::V4, Family::V6].map(|family| format!("{} {fit}", of(family))).to_vec()
}

#[derive(Default)]
struct Chains {
    cluster: Option<String>,
    local: Option<String>,
    external: Option<String>,
    /// Before the external chain, for the load balancer's addresses.
    guarded: Option<String>,
}

/// Sorts endpoints as upstream does: ready ones; where none is, those that still serve while they end.
fn backends<'a>(service: &'a ServicePort, family: Family, node: &str, zone: Option<&str>) -> Backends<'a> {
    let all: Vec<&Endpoint> = service.endpoints.iter().filter(|one| Family::of(one.address) == family).collect();
    let usable = |candidates: &[&'a Endpoint]| -> Vec<&'a Endpoint> {
        let ready: Vec<_> = candidates.iter().copied().filter(|one| one.ready).collect();
        if !ready.is_empty() {
            return ready;
        }
        candidates.iter().copied().filter(|one| one.serving && one.terminating).collect()
    };
    let local: Vec<&Endpoint> = all.iter().copied().filter(|one| one.local).collect();
    let cluster = hinted(usable(&all), node, zone);
    Backends { cluster, local: usable(&local) }
}

/// Topology: only endpoints meant for this node, else for this zone, where every endpoint says and one is.
fn hinted<'a>(endpoints: Vec<&'a Endpoint>, node: &str, zone: Option<&str>) -> Vec<&'a Endpoint> {
    let here = |one: &Endpoint| (!one.nodes.is_empty()).then(|| one.nodes.contains(node));
    let near = |one: &Endpoint| (!one.zones.is_empty()).then(|| zone.is_some_and(|zone| one.zones.contains(zone)));
    meant(&endpoints, here).or_else(|| meant(&endpoints, near)).unwrap_or(endpoints)
}

fn meant<'a>(endpoints: &[&'a Endpoint], says: impl Fn(&Endpoint) -> Option<bool>) -> Option<Vec<&'a Endpoint>> {
    let all = endpoints.iter().all(|one| says(one).is_some());
    let found: Vec<_> = endpoints.iter().copied().filter(|one| says(one) == Some(true)).collect();
    (all && !found.is_empty()).then_some(found)
}

fn has_outside(service: &ServicePort) -> bool {
    service.node_port.is_some() || !service.external_ips.is_empty() || !service.balancer_ips.is_empty()
}

/// An even choice among targets.
fn pick(map: &str, targets: impl Iterator<Item = String>) -> String {
    let targets: BTreeMap<usize, String> = targets.enumerate().collect();
    let list: Vec<String> = targets.iter().map(|(number, target)| format!("{number} : {target}")).collect();
    format!("numgen random mod {} {map} {{ {} }}", targets.len(), list.join(", "))
}

/// A name that is unique by its hash and readable by its rest.
fn label(service: &ServicePort, family: Family) -> String {
    let text = format!("{}/{}/{}", service.service, service.protocol.text(), service.name);
    let id = hash(&format!("{text} {} {}", service.port, family.digit()));
    let text: String = text.trim_end_matches('/').chars().take(LABEL_BYTES_MAX).collect();
    format!("{id}-{text}{}", if family == Family::V6 { "-v6" } else { "" })
}

fn hash(text: &str) -> String {
    format!("{:010x}", fnv(text.as_bytes()) & 0xff_ffff_ffff)
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
