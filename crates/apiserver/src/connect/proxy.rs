//! The proxy subresource: HTTP to a pod, a service's endpoint, or a kubelet.

use admit::{Place, Reader, storage_of};
use api::{Key, Reason, Status, Tree};
use http::{HeaderValue, Response};

use super::forward::Forward;
use super::pod::{node_address, reach};
use super::{ByteStream, unreachable};
use crate::body::Body;
use crate::context::Routed;
use crate::limits::DIAL_TIMEOUT;

/// `[https:]name[:port]`, as the proxy subresource spells its targets.
struct Named<'a> {
    tls: bool,
    name: &'a str,
    port: &'a str,
}

fn named(text: &str) -> Result<Named<'_>, Status> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [name] => Ok(Named { tls: false, name, port: "" }),
        [name, port] => Ok(Named { tls: false, name, port }),
        [scheme @ ("http" | "https" | ""), name, port] => Ok(Named { tls: *scheme == "https", name, port }),
        _ => Err(Status::bad_request(format!("invalid service request {text:?}"))),
    }
}

pub(super) async fn pod(routed: Routed, body: Body) -> Result<Response<Body>, Status> {
    let target = named(&routed.target.name)?;
    let pod = read(&routed, "pods", target.name)?;
    let host = pod.pointer("/status/podIP").and_then(Tree::as_str).filter(|ip| !ip.is_empty());
    let host = host.ok_or_else(|| Status::bad_request("address not allowed"))?.to_owned();
    let declared = pod.pointer("/spec/containers/0/ports/0/containerPort").and_then(Tree::as_u64).unwrap_or(80);
    let port = if target.port.is_empty() { declared } else { pod_port(&pod, target.port)? };
    let tls = target.tls;
    to_address(routed, body, &host, port, tls).await
}

/// A pod's port by number or by name.
fn pod_port(pod: &Tree, text: &str) -> Result<u64, Status> {
    if let Ok(port) = text.parse() {
        return Ok(port);
    }
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let found = ports.find(|port| port["name"] == text).and_then(|port| port["containerPort"].as_u64());
    found.ok_or_else(|| Status::bad_request(format!("no port {text:?}")))
}

pub(super) async fn service(routed: Routed, body: Body) -> Result<Response<Body>, Status> {
    let (host, port, tls) = service_address(&routed)?;
    to_address(routed, body, &host, port, tls).await
}

fn service_address(routed: &Routed) -> Result<(String, u64, bool), Status> {
    let target = named(&routed.target.name)?;
    let service = read(routed, "services", target.name)?;
    let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let wanted = |port: &&Tree| match target.port {
        "" => ports.len() == 1,
        text => port["name"] == text || text.parse::<u64>().is_ok_and(|number| port["port"] == number),
    };
    let none = || {
        let message = format!("no service port {:?} found for service {:?}", target.port, target.name);
        Status::new(Reason::ServiceUnavailable, message)
    };
    let port = ports.iter().find(wanted).ok_or_else(none)?;
    let name = port["name"].as_str().unwrap_or_default();
    let (host, port) = endpoint(routed, target.name, name).ok_or_else(|| {
        let message = format!("no endpoints available for service {:?}", routed.target.name.as_str());
        Status::new(Reason::ServiceUnavailable, message)
    })?;
    Ok((host, port, target.tls))
}

/// A ready endpoint of a service's named port, chosen at random.
fn endpoint(routed: &Routed, service: &str, port: &str) -> Option<(String, u64)> {
    let shared = &routed.cx.shared;
    let slices = shared.reader.list(&storage_of("discovery.k8s.io", "endpointslices"), Some(&routed.target.namespace));
    let mut found = Vec::new();
    for slice in slices {
        if slice.header.labels.get("kubernetes.io/service-name").is_none_or(|name| name != service) {
            continue;
        }
        let slice = slice.tree();
        let ports = slice["ports"].as_array().into_iter().flatten();
        let number = ports
            .filter(|known| known["name"].as_str().unwrap_or_default() == port)
            .find_map(|known| known["port"].as_u64());
        let Some(number) = number else { continue };
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            if endpoint["conditions"]["ready"].as_bool().unwrap_or(true)
                && let Some(address) = endpoint["addresses"][0].as_str()
            {
                found.push((address.to_owned(), number));
            }
        }
    }
    if found.is_empty() {
        return None;
    }
    let at = shared.deps.rng.next_u64() % found.len() as u64;
    found.into_iter().nth(usize::try_from(at).unwrap_or_default())
}

pub(super) async fn node(routed: Routed, body: Body) -> Result<Response<Body>, Status> {
    let name = routed.target.name.clone();
    let target = named(&name)?;
    let mut address = node_address(&routed.cx.shared, target.name)?;
    if !target.port.is_empty() {
        let port: u16 =
            target.port.parse().map_err(|_| Status::bad_request(format!("invalid port {:?}", target.port)))?;
        if port != address.port {
            let (host, tls) = (address.host, target.tls);
            return to_address(routed, body, &host, u64::from(port), tls).await;
        }
        address.port = port;
    }
    let io = reach(&routed.cx.shared, &address).await?;
    forward(routed, body, io, address.host.clone(), format!("node {}", address.name)).await
}

fn read(routed: &Routed, resource: &str, name: &str) -> Result<Tree, Status> {
    let place = Place { storage: storage_of("", resource), key: Key::new(&routed.target.namespace, name) };
    let object = routed.cx.shared.reader.get(&place).ok_or_else(|| Status::not_found("", resource, name))?;
    Ok(object.tree())
}

async fn to_address(routed: Routed, body: Body, host: &str, port: u64, tls: bool) -> Result<Response<Body>, Status> {
    let port = u16::try_from(port).ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| Status::bad_request("invalid port"))?;
    let dialing = tokio::time::timeout(DIAL_TIMEOUT, routed.cx.shared.deps.nodes.dial(host, port, tls)).await;
    let dialed = dialing.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    let io = dialed.map_err(|error| unreachable("service", &error))?;
    let host = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    forward(routed, body, io, host, "service".to_owned()).await
}

async fn forward(
    mut routed: Routed,
    body: Body,
    io: Box<dyn ByteStream>,
    host: String,
    what: String,
) -> Result<Response<Body>, Status> {
    let rest = if routed.target.rest.is_empty() { "/" } else { routed.target.rest.as_str() };
    let path = match routed.cx.uri.query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    };
    let mut headers = routed.cx.headers.clone();
    if let Ok(uri) = HeaderValue::from_str(routed.cx.uri.path()) {
        headers.insert("x-forwarded-uri", uri);
    }
    let upgrade = routed.cx.upgrade.take();
    let method = routed.cx.method.clone();
    Forward { method, path, host, headers, body, upgrade, what }.send(io).await
}
