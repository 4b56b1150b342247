//! Logs and streams of a pod, at the kubelet of its node.

use std::sync::Arc;

use admit::{Place, Reader, storage_of};
use api::{Key, Reason, Status, Tree};
use form_urlencoded::Serializer;
use http::{Method, Response};
use serde_json::json;

use super::forward::{Forward, status_of};
use super::{ByteStream, NodeAddress, unreachable};
use crate::answer;
use crate::body::{self, Body};
use crate::context::Routed;
use crate::limits::DIAL_TIMEOUT;
use crate::server::Shared;

/// The port kubelets listen on where their node does not say.
const KUBELET_PORT: u16 = 10250;

/// Query parameters of logs that the kubelet understands as they are.
const LOG_PARAMETERS: [&str; 8] =
    ["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream"];

pub(super) async fn log(routed: Routed) -> Result<Response<Body>, Status> {
    let pod = pod_of(&routed)?;
    let container = container_of(&routed, &pod, routed.cx.query.get("container").unwrap_or_default())?;
    let Some(node) = text(&pod, "/spec/nodeName") else {
        return Ok(answer::text(http::StatusCode::OK, ""));
    };
    for number in ["sinceSeconds", "tailLines", "limitBytes"] {
        check_number(&routed, number)?;
    }
    let query = log_query(&routed);
    let path = format!("/containerLogs/{}/{}/{container}?{query}", routed.target.namespace, routed.target.name);
    let address = node_address(&routed.cx.shared, node)?;
    let io = reach(&routed.cx.shared, &address).await?;
    let forward = Forward {
        method: Method::GET,
        path,
        host: address.host.clone(),
        headers: http::HeaderMap::new(),
        body: body::empty(),
        upgrade: None,
        what: format!("node {}", address.name),
    };
    let response = forward.send(io).await?;
    if !response.status().is_success() {
        return Err(status_of(response).await);
    }
    let mut answered = Response::new(response.into_body());
    answered.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain"));
    answered.headers_mut().insert("cache-control", http::HeaderValue::from_static("no-cache, private"));
    Ok(answered)
}

fn log_query(routed: &Routed) -> String {
    let mut query = Serializer::new(String::new());
    for name in LOG_PARAMETERS {
        if let Some(value) = routed.cx.query.filled(name) {
            query.append_pair(name, value);
        }
    }
    query.finish()
}

fn check_number(routed: &Routed, name: &str) -> Result<(), Status> {
    let Some(value) = routed.cx.query.integer(name)? else { return Ok(()) };
    let least = if name == "tailLines" { 0 } else { 1 };
    if value >= least {
        return Ok(());
    }
    let why = format!("{value}: must be greater than or equal to {least}");
    let message = format!("Invalid value: {why}");
    let cause = api::Cause { reason: "FieldValueInvalid".into(), message, field: name.into() };
    Err(Status::invalid("", "PodLogOptions", &routed.target.name, vec![cause]))
}

/// exec, attach, portforward.
pub(super) async fn stream(mut routed: Routed, body: Body) -> Result<Response<Body>, Status> {
    let pod = pod_of(&routed)?;
    let query = &routed.cx.query;
    let (namespace, name) = (&routed.target.namespace, &routed.target.name);
    let path = match routed.target.subresource.as_str() {
        "portforward" => format!("/portForward/{namespace}/{name}?{}", ports_query(&routed)),
        sub => {
            let container = container_of(&routed, &pod, query.get("container").unwrap_or_default())?;
            if sub == "exec" && query.all("command").next().is_none() {
                return Err(Status::bad_request("you must specify at least 1 command for the container"));
            }
            format!("/{sub}/{namespace}/{name}/{container}?{}", stream_query(&routed))
        }
    };
    let Some(node) = text(&pod, "/spec/nodeName") else {
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    };
    if routed.cx.upgrade.is_none() || !routed.cx.headers.contains_key("upgrade") {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let address = node_address(&routed.cx.shared, node)?;
    let io = reach(&routed.cx.shared, &address).await?;
    let forward = Forward {
        method: routed.cx.method.clone(),
        path,
        host: address.host.clone(),
        headers: routed.cx.headers.clone(),
        body,
        upgrade: routed.cx.upgrade.take(),
        what: format!("node {}", address.name),
    };
    forward.send(io).await
}

/// WebSocket clients name the ports in the query, SPDY clients in each stream.
fn ports_query(routed: &Routed) -> String {
    let mut out = Serializer::new(String::new());
    for port in routed.cx.query.all("ports") {
        out.append_pair("port", port);
    }
    out.finish()
}

/// The kubelet has its own names for the options of exec and attach.
fn stream_query(routed: &Routed) -> String {
    let query = &routed.cx.query;
    let mut out = Serializer::new(String::new());
    for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        // With a terminal there is one output stream.
        let merged = ours == "stderr" && query.flag("tty");
        if query.flag(ours) && !merged {
            out.append_pair(theirs, "1");
        }
    }
    for word in query.all("command") {
        out.append_pair("command", word);
    }
    out.finish()
}

fn pod_of(routed: &Routed) -> Result<Tree, Status> {
    let pod = routed.cx.shared.reader.get(&routed.place()).ok_or_else(|| routed.not_found())?;
    Ok(pod.tree())
}

fn text<'a>(tree: &'a Tree, pointer: &str) -> Option<&'a str> {
    tree.pointer(pointer).and_then(Tree::as_str).filter(|text| !text.is_empty())
}

/// The container meant: the one named, the annotated default, or the only one.
fn container_of(routed: &Routed, pod: &Tree, named: &str) -> Result<String, Status> {
    let names = |field: &str| -> Vec<&str> {
        let list = pod["spec"][field].as_array().into_iter().flatten();
        list.filter_map(|container| container["name"].as_str()).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let name = &routed.target.name;
    if !named.is_empty() {
        let known = main.iter().chain(&init).chain(&ephemeral).any(|container| *container == named);
        let why = format!("container {named} is not valid for pod {name}");
        return if known { Ok(named.to_owned()) } else { Err(Status::bad_request(why)) };
    }
    match main.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        many => {
            let mut why =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", many.join(" "));
            if !init.is_empty() {
                why.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            if !ephemeral.is_empty() {
                why.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" ")));
            }
            Err(Status::bad_request(why))
        }
    }
}

/// Where the kubelet of a node listens, out of the node's status.
pub(super) fn node_address(shared: &Arc<Shared>, name: &str) -> Result<NodeAddress, Status> {
    let place = Place { storage: storage_of("", "nodes"), key: Key::cluster(name) };
    let node = shared.reader.get(&place).ok_or_else(|| Status::not_found("", "nodes", name))?.tree();
    let addresses = node["status"]["addresses"].as_array().cloned().unwrap_or_default();
    let of_type = |wanted: &str| {
        let found = addresses.iter().find(|address| address["type"] == json!(wanted));
        found.and_then(|address| address["address"].as_str()).map(str::to_owned)
    };
    let host = ["InternalIP", "ExternalIP", "Hostname", "InternalDNS"].into_iter().find_map(of_type);
    let host = host.ok_or_else(|| {
        Status::new(Reason::ServiceUnavailable, format!("no preferred addresses found for node {name:?}"))
    })?;
    let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Tree::as_u64);
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0).unwrap_or(KUBELET_PORT);
    Ok(NodeAddress { name: name.to_owned(), host, port })
}

pub(super) async fn reach(shared: &Arc<Shared>, node: &NodeAddress) -> Result<Box<dyn ByteStream>, Status> {
    let connecting = tokio::time::timeout(DIAL_TIMEOUT, shared.deps.nodes.connect(node)).await;
    let connected = connecting.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    connected.map_err(|error| unreachable(&format!("node {}", node.name), &error))
}
