//! How a coordinator reaches the nodes: straight to each one's own port, which must prove its name; never through a
//! Service, the cluster's names or the API.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request};
use keeper::{Digest, Order};
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use view::{ClientError, Endpoint, Https, Transport};

use super::ports::{Address, AgentError, Agents, Piece};
use super::{Lines, ORDER, PATH, PIECE_BYTES, Received, RehearseRequest, Report, SwapRequest};

/// A small verb answers within this time.
const VERB_TIMEOUT: Duration = Duration::from_secs(5);
/// Taking the last piece of a program in includes reading and running it.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_BYTES_MAX: usize = 2 * PIECE_BYTES;

/// The way to all of them.
pub struct NodePorts {
    /// What the API server shows to kubelets; replaced when it is renewed.
    pub tls: Arc<ArcSwap<ClientConfig>>,
}

struct Call<'a> {
    method: Method,
    verb: &'a str,
    query: String,
    body: Bytes,
    timeout: Duration,
}

// === impl NodePorts ===

#[async_trait]
impl Agents for NodePorts {
    async fn report(&self, at: &Address, order: Option<Order>) -> Result<Report, AgentError> {
        let method = if order.is_some() { Method::POST } else { Method::GET };
        self.small(at, order, method, "report", &()).await
    }

    async fn swap(&self, at: &Address, order: Order, request: &SwapRequest) -> Result<(), AgentError> {
        // The node runs the program once more before it says yes.
        let call = Call {
            method: Method::POST,
            verb: "swap",
            query: String::new(),
            body: body(request),
            timeout: PIECE_TIMEOUT,
        };
        self.call(at, Some(order), call).await.map(drop)
    }

    async fn rehearse(&self, at: &Address, request: &RehearseRequest) -> Result<(), AgentError> {
        let (query, timeout) = (String::new(), PIECE_TIMEOUT);
        let call = Call { method: Method::POST, verb: "rehearse", query, body: body(request), timeout };
        self.call(at, None, call).await.map(drop)
    }

    async fn journal(&self, at: &Address, order: Order, lines: &Lines) -> Result<usize, AgentError> {
        self.small(at, Some(order), Method::POST, "journal", lines).await
    }

    async fn put_piece(&self, at: &Address, order: Order, piece: Piece) -> Result<Received, AgentError> {
        let Piece { program, size, offset, bytes } = piece;
        let query = format!("?program={program}&offset={offset}&size={size}");
        let call = Call { method: Method::PUT, verb: "release", query, body: bytes, timeout: PIECE_TIMEOUT };
        parse(at, &self.call(at, Some(order), call).await?)
    }

    async fn piece(&self, at: &Address, program: &Digest, offset: u64) -> Result<Bytes, AgentError> {
        let query = format!("?program={program}&offset={offset}");
        let call = Call { method: Method::GET, verb: "release", query, body: Bytes::new(), timeout: PIECE_TIMEOUT };
        self.call(at, None, call).await
    }
}

impl NodePorts {
    async fn small<T: DeserializeOwned>(
        &self,
        at: &Address,
        order: Option<Order>,
        method: Method,
        verb: &str,
        value: &impl Serialize,
    ) -> Result<T, AgentError> {
        let call = Call { method, verb, query: String::new(), body: body(value), timeout: VERB_TIMEOUT };
        parse(at, &self.call(at, order, call).await?)
    }

    async fn call(&self, at: &Address, order: Option<Order>, call: Call<'_>) -> Result<Bytes, AgentError> {
        let silent = |source| AgentError::Silent { node: at.node.clone(), source };
        let tls = self.tls.load_full();
        let endpoint = Endpoint { host: at.host.clone(), port: at.port, server_name: at.node.clone() };
        let https = Https::new(endpoint, Arc::new(move || tls.clone()));
        let mut request = Request::builder().method(call.method).uri(format!("{PATH}{}{}", call.verb, call.query));
        if let Some(order) = order {
            request = request.header(ORDER, serde_json::to_string(&order).expect("an order is plain data"));
        }
        let request = request.body(call.body).expect("verbs and digests are valid in a request's head");
        let exchange = async {
            let response = https.call(request).await?;
            let code = response.status().as_u16();
            Ok((code, view::read_body(response.into_body(), ANSWER_BYTES_MAX).await?))
        };
        let answered = tokio::time::timeout(call.timeout, exchange).await;
        let (code, bytes) = answered.unwrap_or(Err(ClientError::Timeout(call.timeout))).map_err(silent)?;
        match code {
            200 => Ok(bytes),
            412 => Err(AgentError::Stale(String::from_utf8_lossy(&bytes).into_owned())),
            _ => Err(refused(at, String::from_utf8_lossy(&bytes).into_owned())),
        }
    }
}

fn refused(at: &Address, why: String) -> AgentError {
    AgentError::Refused { node: at.node.clone(), why }
}

fn body(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("requests are plain data").into()
}

fn parse<T: DeserializeOwned>(at: &Address, bytes: &[u8]) -> Result<T, AgentError> {
    serde_json::from_slice(bytes).map_err(|error| refused(at, format!("its answer cannot be read: {error}")))
}
