//! What the cluster's zone says about a name, read from a snapshot. Pure; follows the Kubernetes DNS specification 1.1.0.
//!
//! Names below the domain: `SERVICE.NAMESPACE.svc`, `ENDPOINT.SERVICE.NAMESPACE.svc`, `_PORT._PROTOCOL.` before a service, and
//! `A-B-C-D.NAMESPACE.pod`. Addresses of services and endpoints have pointers.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use api::{Index, Key, Snapshot};
use base::{SmolStr, format_smolstr};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// Seconds an answer may be kept.
pub const TTL_SECONDS: u32 = 5;
/// Records one answer holds at most.
pub const RECORDS_MAX: usize = 1000;
const VERSION: &str = "1.1.0";

/// EndpointSlices by `namespace/name` of their service.
pub const SERVICE: Index = Index {
    name: "service",
    words: |object| {
        let name = object.header.labels.get("kubernetes.io/service-name");
        name.map(|name| format_smolstr!("{}/{name}", object.key.namespace)).into_iter().collect()
    },
};
/// Services and EndpointSlices by address, for pointers.
pub const ADDRESSES: Index = Index {
    name: "addresses",
    words: |object| {
        if let Ok(slice) = object.typed::<EndpointSlice>()
            && !slice.address_type.is_empty()
        {
            let endpoints = slice.endpoints.iter().flatten();
            return endpoints.flat_map(|endpoint| &endpoint.addresses).map(SmolStr::from).collect();
        }
        object.typed::<Service>().map(|service| service_ips(&service)).unwrap_or_default()
    },
};

/// The zone this node answers for.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Labels of the domain, lower case: `["cluster", "local"]`.
    domain: Vec<String>,
    /// Also for addresses nobody has: questions about them must not leave the cluster.
    ranges: Vec<ipnet::IpNet>,
}

/// What becomes of a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Records, and more that help.
    Records { answers: Vec<Record>, additionals: Vec<Record> },
    /// The name exists and has nothing of this type.
    NoData,
    /// There is no such name.
    NoName,
    /// A name outside the cluster that stands behind one inside: to be forwarded and appended.
    Alias { alias: Box<Record>, target: Name },
    /// Not ours to answer.
    Foreign,
    /// Ours, but the view is not complete yet.
    NotReady,
}

struct Question<'a> {
    snapshot: &'a Snapshot,
    name: &'a Name,
    kind: RecordType,
}

/// One address behind a service, with the name it has there.
struct Backend {
    label: String,
    address: IpAddr,
    ports: Vec<(String, String, u16)>,
}

// === impl Zone ===

impl Zone {
    pub fn new(domain: &str, ranges: &[ipnet::IpNet]) -> Zone {
        let labels = domain.trim_matches('.').split('.').map(str::to_ascii_lowercase).collect();
        Zone { domain: labels, ranges: ranges.to_vec() }
    }

    /// Answers a question. Reads only the snapshot.
    pub fn answer(&self, snapshot: &Snapshot, name: &Name, kind: RecordType) -> Answer {
        let labels = labels_of(name);
        let question = Question { snapshot, name, kind };
        if let Some(inner) = labels.strip_suffix(self.domain.as_slice()) {
            if !snapshot.synced() {
                return Answer::NotReady;
            }
            return self.inside(&question, inner);
        }
        self.pointer(&question, &labels)
    }

    /// The record that a negative answer carries.
    pub fn authority(&self) -> Record {
        let name = self.name(&[]);
        let (server, person) = (self.name(&["ns".into(), "dns".into()]), self.name(&["hostmaster".into()]));
        let soa = SOA::new(server, person, 1, 7200, 1800, 86_400, TTL_SECONDS);
        Record::from_rdata(name, TTL_SECONDS, RData::SOA(soa))
    }

    fn name(&self, labels: &[String]) -> Name {
        let all = labels.iter().chain(&self.domain).map(String::as_bytes);
        let mut name = Name::from_labels(all).unwrap_or_else(|_| Name::root());
        name.set_fqdn(true);
        name
    }

    fn inside(&self, question: &Question<'_>, labels: &[String]) -> Answer {
        match labels {
            [] if question.kind == RecordType::SOA => records(vec![self.authority()]),
            [] => Answer::NoData,
            [only] if only == "dns-version" => match question.kind {
                RecordType::TXT => question.of(vec![RData::TXT(TXT::new(vec![VERSION.to_owned()]))]),
                _ => Answer::NoData,
            },
            [only] if only == "svc" || only == "pod" => Answer::NoData,
            [rest @ .., kind] if kind == "svc" => self.service(question, rest),
            [rest @ .., kind] if kind == "pod" => pod(question, rest),
            _ => Answer::NoName,
        }
    }

    fn service(&self, question: &Question<'_>, labels: &[String]) -> Answer {
        let [rest @ .., namespace] = labels else { return Answer::NoData };
        let [rest @ .., service_name] = rest else {
            return if question.has_services(namespace) { Answer::NoData } else { Answer::NoName };
        };
        let key = Key::new(namespace, service_name);
        let Some(service) = question.snapshot.of::<Service>().typed::<Service>(&key) else { return Answer::NoName };
        match rest {
            [] => self.whole(question, &key, &service),
            [protocol] if protocol.starts_with('_') => {
                let any = question.ports(&key, &service).iter().any(|(_, p, _)| format!("_{p}") == *protocol);
                if any { Answer::NoData } else { Answer::NoName }
            }
            [label] => self.endpoint(question, &key, label),
            [port, protocol] if port.starts_with('_') && protocol.starts_with('_') => {
                self.port(question, &key, &service, Some((&port[1..], &protocol[1..])))
            }
            _ => Answer::NoName,
        }
    }

    fn whole(&self, question: &Question<'_>, key: &Key, service: &Service) -> Answer {
        if let Some(target) = external_name(service) {
            let alias = Record::from_rdata(question.name.clone(), TTL_SECONDS, RData::CNAME(CNAME(target.clone())));
            return match question.kind {
                RecordType::CNAME => records(vec![alias]),
                RecordType::A | RecordType::AAAA => Answer::Alias { alias: Box::new(alias), target },
                _ => Answer::NoData,
            };
        }
        if question.kind == RecordType::SRV {
            return self.port(question, key, service, None);
        }
        let ips: Vec<IpAddr> = service_ips(service).iter().filter_map(|text| text.parse().ok()).collect();
        if !ips.is_empty() {
            return question.addresses(ips);
        }
        let backends = question.backends(key);
        // A headless service without endpoints has no name: clients must not take that for an address to come.
        if backends.is_empty() {
            return Answer::NoName;
        }
        question.addresses(backends.into_iter().map(|backend| backend.address))
    }

    fn endpoint(&self, question: &Question<'_>, key: &Key, label: &str) -> Answer {
        let backends = question.backends(key);
        let found: Vec<IpAddr> =
            backends.into_iter().filter(|backend| backend.label == label).map(|backend| backend.address).collect();
        if found.is_empty() { Answer::NoName } else { question.addresses(found) }
    }

    /// Where the ports of a service are; of one port, or of all.
    fn port(&self, question: &Question<'_>, key: &Key, service: &Service, wanted: Option<(&str, &str)>) -> Answer {
        let own = [key.name.to_string(), key.namespace.to_string(), "svc".to_owned()];
        let fits = |port: &str, protocol: &str| wanted.is_none_or(|wanted| wanted == (port, protocol));
        let mut answers = Vec::new();
        let mut additionals = Vec::new();
        let mut add = |target: Name, port: u16, addresses: &[IpAddr]| {
            let srv = RData::SRV(SRV::new(0, 100, port, target.clone()));
            answers.push(Record::from_rdata(question.name.clone(), TTL_SECONDS, srv));
            for address in addresses {
                let record = Record::from_rdata(target.clone(), TTL_SECONDS, address_data(*address));
                if !additionals.contains(&record) && additionals.len() < RECORDS_MAX {
                    additionals.push(record);
                }
            }
        };
        let ips: Vec<IpAddr> = service_ips(service).iter().filter_map(|text| text.parse().ok()).collect();
        if !ips.is_empty() {
            for (_, _, number) in question.ports(key, service).iter().filter(|(port, protocol, _)| fits(port, protocol))
            {
                add(self.name(&own), *number, &ips);
            }
        } else {
            for backend in question.backends(key) {
                let target = self.name(&[&[backend.label.clone()][..], &own].concat());
                for (_, _, number) in backend.ports.iter().filter(|(port, protocol, _)| fits(port, protocol)) {
                    add(target.clone(), *number, &[backend.address]);
                }
            }
        }
        if answers.is_empty() {
            return Answer::NoName;
        }
        if question.kind != RecordType::SRV {
            return Answer::NoData;
        }
        answers.truncate(RECORDS_MAX);
        Answer::Records { answers, additionals }
    }

    fn pointer(&self, question: &Question<'_>, labels: &[String]) -> Answer {
        let arpa = matches!(labels, [.., zone, arpa] if arpa == "arpa" && (zone == "in-addr" || zone == "ip6"));
        let Some(net) = question.name.parse_arpa_name().ok().filter(|_| arpa) else { return Answer::Foreign };
        let address = net.addr();
        if net.prefix_len() != net.max_prefix_len() {
            return Answer::Foreign;
        }
        if !question.snapshot.synced() {
            return if self.covers(address) { Answer::NotReady } else { Answer::Foreign };
        }
        let names = self.names_of(question.snapshot, address);
        match names.is_empty() {
            true if self.covers(address) => Answer::NoName,
            true => Answer::Foreign,
            false if question.kind == RecordType::PTR => {
                question.of(names.into_iter().map(|name| RData::PTR(PTR(name))).collect())
            }
            false => Answer::NoData,
        }
    }

    fn covers(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(&address))
    }

    fn names_of(&self, snapshot: &Snapshot, address: IpAddr) -> Vec<Name> {
        let word = address.to_string();
        let below = |key: &Key| vec![key.name.to_string(), key.namespace.to_string(), "svc".to_owned()];
        let services = snapshot.of::<Service>();
        if let Some(service) = services.by(ADDRESSES.name, &word).next() {
            return vec![self.name(&below(&service.key))];
        }
        let mut names = BTreeSet::new();
        for object in snapshot.of::<EndpointSlice>().by(ADDRESSES.name, &word).take(RECORDS_MAX) {
            let Some(service) = object.header.labels.get("kubernetes.io/service-name") else { continue };
            let Ok(slice) = object.typed::<EndpointSlice>() else { continue };
            let found = slice.endpoints.iter().flatten().find(|endpoint| endpoint.addresses.contains(&word));
            if let Some(endpoint) = found {
                let service = Key::new(&object.key.namespace, service);
                names.insert(self.name(&[vec![label_of(endpoint, address)], below(&service)].concat()));
            }
        }
        names.into_iter().collect()
    }
}

// === impl Question ===

impl Question<'_> {
    /// A node may not read namespaces: those that hold a service are known. "No such name" for the others is what search
    /// paths need, which some resolvers leave on an empty answer.
    fn has_services(&self, namespace: &str) -> bool {
        self.snapshot.of::<Service>().in_namespace(namespace).next().is_some()
    }

    fn of(&self, data: Vec<RData>) -> Answer {
        records(data.into_iter().map(|data| Record::from_rdata(self.name.clone(), TTL_SECONDS, data)).collect())
    }

    fn addresses(&self, addresses: impl IntoIterator<Item = IpAddr>) -> Answer {
        let unique: BTreeSet<IpAddr> = addresses.into_iter().collect();
        let fits = |address: &IpAddr| match self.kind {
            RecordType::A => address.is_ipv4(),
            RecordType::AAAA => address.is_ipv6(),
            _ => false,
        };
        let data: Vec<RData> = unique.into_iter().filter(fits).take(RECORDS_MAX).map(address_data).collect();
        if data.is_empty() { Answer::NoData } else { self.of(data) }
    }

    /// Name, protocol and number of a service's ports; of a headless one, those its endpoints have.
    fn ports(&self, key: &Key, service: &Service) -> Vec<(String, String, u16)> {
        let spec = service.spec.as_ref();
        if !service_ips(service).is_empty() {
            let ports = spec.and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
            return ports
                .filter_map(|port| triple(port.name.as_ref(), port.protocol.as_ref(), Some(port.port)))
                .collect();
        }
        self.backends(key).into_iter().flat_map(|backend| backend.ports).collect()
    }

    fn slices(&self, key: &Key) -> Vec<Arc<EndpointSlice>> {
        let stream = self.snapshot.of::<EndpointSlice>();
        let objects = stream.by(SERVICE.name, &key.to_string()).take(RECORDS_MAX).cloned().collect::<Vec<_>>();
        objects.iter().filter_map(|object| object.typed().ok()).collect()
    }

    /// Endpoints that are ready; of slices of names (`addressType: FQDN`) none.
    fn backends(&self, key: &Key) -> Vec<Backend> {
        let mut backends = Vec::new();
        for slice in self.slices(key) {
            let ports: Vec<_> = slice
                .ports
                .iter()
                .flatten()
                .filter_map(|port| triple(port.name.as_ref(), port.protocol.as_ref(), port.port))
                .collect();
            for endpoint in slice.endpoints.iter().flatten() {
                let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
                for address in endpoint.addresses.iter().filter(|_| ready).filter_map(|text| text.parse().ok()) {
                    backends.push(Backend { label: label_of(endpoint, address), address, ports: ports.clone() });
                }
            }
        }
        backends
    }
}

/// `10-42-0-5.default.pod`: the address is in the name itself.
fn pod(question: &Question<'_>, labels: &[String]) -> Answer {
    match labels {
        [namespace] if question.has_services(namespace) => Answer::NoData,
        [dashed, _namespace] => {
            let parsed = dashed.replace('-', ".").parse().or_else(|_| dashed.replace('-', ":").parse::<IpAddr>());
            parsed.map_or(Answer::NoName, |address| question.addresses([address]))
        }
        _ => Answer::NoName,
    }
}

fn records(answers: Vec<Record>) -> Answer {
    Answer::Records { answers, additionals: Vec::new() }
}

fn labels_of(name: &Name) -> Vec<String> {
    name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect()
}

fn label_of(endpoint: &Endpoint, address: IpAddr) -> String {
    let dashed = || address.to_string().replace(['.', ':'], "-");
    endpoint.hostname.clone().filter(|name| !name.is_empty()).unwrap_or_else(dashed)
}

fn service_ips(service: &Service) -> Vec<SmolStr> {
    let Some(spec) = service.spec.as_ref().filter(|spec| spec.type_.as_deref() != Some("ExternalName")) else {
        return Vec::new();
    };
    let many = spec.cluster_ips.iter().flatten();
    let one = spec.cluster_ip.iter().filter(|_| spec.cluster_ips.as_ref().is_none_or(Vec::is_empty));
    many.chain(one).filter(|text| !text.is_empty() && *text != "None").map(SmolStr::from).collect()
}

fn external_name(service: &Service) -> Option<Name> {
    let spec = service.spec.as_ref().filter(|spec| spec.type_.as_deref() == Some("ExternalName"))?;
    let mut name = Name::from_utf8(spec.external_name.as_ref()?.trim_end_matches('.')).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn triple(name: Option<&String>, protocol: Option<&String>, number: Option<i32>) -> Option<(String, String, u16)> {
    let protocol = protocol.map_or("tcp".to_owned(), |text| text.to_ascii_lowercase());
    Some((name.cloned().unwrap_or_default(), protocol, u16::try_from(number?).ok()?))
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}

#[cfg(test)]
#[path = "zone_tests.rs"]
mod tests;
