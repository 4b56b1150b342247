//! Streams to nodes and workloads: log, exec, attach, portforward, proxy.
//!
//! The API server terminates none of their protocols. It decides who may, finds where the pod runs, repeats the request
//! to the kubelet (or to the workload) and copies bytes: SPDY and WebSocket alike.

mod forward;
mod pod;
mod proxy;

use std::io;

use async_trait::async_trait;
use http::Response;
use tokio::io::{AsyncRead, AsyncWrite};

use api::{Reason, Status};

use crate::authz;
use crate::body::Body;
use crate::context::{Routed, method_not_allowed, no_such_resource};

/// A connection, whatever it runs over.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// Where a kubelet listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// The node's name: what its serving certificate must be for.
    pub name: String,
    /// Address or host name out of the node's status.
    pub host: String,
    pub port: u16,
}

/// How to reach kubelets and workloads; the adapter brings the client identity and the trust.
#[async_trait]
pub trait NodeProxy: Send + Sync {
    /// A TLS connection to a kubelet, with the API server's client certificate.
    async fn connect(&self, node: &NodeAddress) -> io::Result<Box<dyn ByteStream>>;

    /// A connection to a pod or service endpoint, for the proxy subresource. TLS without verification where asked for,
    /// as upstream does it.
    async fn dial(&self, host: &str, port: u16, tls: bool) -> io::Result<Box<dyn ByteStream>>;
}

/// No node can be reached.
pub struct NoNodes;

#[async_trait]
impl NodeProxy for NoNodes {
    async fn connect(&self, node: &NodeAddress) -> io::Result<Box<dyn ByteStream>> {
        Err(io::Error::new(io::ErrorKind::NotConnected, format!("node {} cannot be reached", node.name)))
    }

    async fn dial(&self, host: &str, _port: u16, _tls: bool) -> io::Result<Box<dyn ByteStream>> {
        Err(io::Error::new(io::ErrorKind::NotConnected, format!("{host} cannot be reached")))
    }
}

pub(crate) fn is_stream(subresource: &str) -> bool {
    matches!(subresource, "log" | "exec" | "attach" | "portforward" | "proxy")
}

pub(crate) async fn serve(routed: Routed, body: Body) -> Result<Response<Body>, Status> {
    let group = routed.kind.gvk.group.as_str();
    let resource = routed.kind.resource.as_str();
    match (group, resource, routed.target.subresource.as_str()) {
        ("", "pods", "log") if routed.cx.method == "GET" => pod::log(routed).await,
        ("", "pods", "exec" | "attach" | "portforward") => {
            if routed.cx.method != "GET" && routed.cx.method != "POST" {
                return Err(method_not_allowed());
            }
            may_create(&routed)?;
            pod::stream(routed, body).await
        }
        ("", "pods", "proxy") => proxy::pod(routed, body).await,
        ("", "services", "proxy") => proxy::service(routed, body).await,
        ("", "nodes", "proxy") => proxy::node(routed, body).await,
        ("", "pods", "log") => Err(method_not_allowed()),
        _ => Err(no_such_resource()),
    }
}

/// WebSocket clients open these with GET; running a command takes the right to create all the same.
fn may_create(routed: &Routed) -> Result<(), Status> {
    if routed.cx.method != "GET" {
        return Ok(());
    }
    let attributes = authz::attributes(&routed.cx.user, "create", &routed.cx.target);
    authz::authorize(&attributes, &routed.cx.shared.reader).map(drop)
}

fn unreachable(what: &str, error: &dyn std::error::Error) -> Status {
    let mut status =
        Status::new(Reason::ServiceUnavailable, format!("error trying to reach {what}: {}", base::Chain(error)));
    status.details = Some(Box::default());
    status
}
