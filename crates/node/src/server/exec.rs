//! `/exec`, `/attach`, `/portForward`: the upgrade, and which dialect the client speaks.

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::reply::{Body, full, status};
use super::route::Of;
use super::{Found, Server};
use crate::runtime::{ExecRequest, RuntimeError};
use crate::stream::{StreamError, bridge, port_forward, runtime, spdy, websocket};

const SPDY: &str = "SPDY/3.1";
const SPDY_PROTOCOL: &str = "X-Stream-Protocol-Version";
const SPDY_EXEC_PROTOCOLS: [&str; 3] = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io"];

/// How the client wants to talk.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Dialect {
    Spdy(String),
    WebSocket(String),
}

impl Server {
    pub(super) async fn exec(&self, of: &Of, query: &str, request: Request<Incoming>) -> Response<Body> {
        let wanted = exec_request(query);
        if wanted.command.is_empty() {
            return status(StatusCode::BAD_REQUEST, "BadRequest", "you must specify at least 1 command");
        }
        let id = match self.find(of).and_then(running) {
            Ok(id) => id,
            Err(answer) => return *answer,
        };
        let url = self.context.runtime.exec(&id, &wanted).await;
        self.join(url, wanted, request).await
    }

    pub(super) async fn attach(&self, of: &Of, query: &str, request: Request<Incoming>) -> Response<Body> {
        let found = match self.find(of) {
            Ok(found) => found,
            Err(answer) => return *answer,
        };
        let mut wanted = ExecRequest { command: Vec::new(), ..exec_request(query) };
        // The terminal is the container's own.
        wanted.tty = has_terminal(&found);
        let id = match running(found) {
            Ok(id) => id,
            Err(answer) => return *answer,
        };
        let url = self.context.runtime.attach(&id, &wanted).await;
        self.join(url, wanted, request).await
    }

    async fn join(
        &self,
        url: Result<String, RuntimeError>,
        wanted: ExecRequest,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let Some(dialect) = dialect(request.headers(), &SPDY_EXEC_PROTOCOLS, &[websocket::V5, websocket::V4]) else {
            return status(StatusCode::BAD_REQUEST, "BadRequest", "unable to upgrade: no stream protocol in common");
        };
        let far = match url {
            Ok(url) => runtime::connect(&url, SPDY_EXEC_PROTOCOLS[0]).await,
            Err(error) => return status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &error.to_string()),
        };
        let far = match far {
            Ok(far) => far,
            Err(error) => return refused(&error),
        };
        upgrade(dialect, request, move |dialect, io| async move {
            match dialect {
                Dialect::Spdy(_) => bridge::serve_spdy(io, &wanted, far).await,
                Dialect::WebSocket(_) => bridge::serve_websocket(io, &wanted, far).await,
            }
        })
    }

    pub(super) async fn port_forward(&self, of: &Of, query: &str, request: Request<Incoming>) -> Response<Body> {
        let found = match self.find(of) {
            Ok(found) => found,
            Err(answer) => return *answer,
        };
        let offered = [websocket::TUNNEL, websocket::V4];
        let Some(dialect) = dialect(request.headers(), &[port_forward::PROTOCOL], &offered) else {
            return status(StatusCode::BAD_REQUEST, "BadRequest", "unable to upgrade: no stream protocol in common");
        };
        let Some(sandbox) = &found.view.sandbox else {
            return status(StatusCode::BAD_REQUEST, "BadRequest", "pod has no sandbox");
        };
        let far: Result<spdy::Connection, StreamError> = match self.context.runtime.port_forward(sandbox).await {
            Ok(url) => runtime::connect(&url, port_forward::PROTOCOL).await,
            Err(error) => return status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &error.to_string()),
        };
        let far = match far {
            Ok(far) => far,
            Err(error) => return refused(&error),
        };
        let ports = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "port" || name == "ports");
        let ports: Vec<u16> =
            ports.flat_map(|(_, value)| value.split(',').map(str::parse).collect::<Vec<_>>()).flatten().collect();
        upgrade(dialect, request, move |dialect, io| async move {
            match dialect {
                Dialect::Spdy(_) => port_forward::serve_spdy(io, far).await,
                Dialect::WebSocket(protocol) if protocol == websocket::TUNNEL => {
                    port_forward::serve_spdy(websocket::tunnel(io).await, far).await
                }
                Dialect::WebSocket(_) => port_forward::serve_websocket(io, &ports, far).await,
            }
        })
    }
}

/// kubelet's own names (`input`, `output`, `error`) and the API's (`stdin`, `stdout`, `stderr`).
fn exec_request(query: &str) -> ExecRequest {
    let mut wanted = ExecRequest::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let on = value == "1" || value == "true";
        match name.as_ref() {
            "command" => wanted.command.push(value.into_owned()),
            "input" | "stdin" => wanted.stdin = on,
            "output" | "stdout" => wanted.stdout = on,
            "error" | "stderr" => wanted.stderr = on,
            "tty" => wanted.tty = on,
            _ => {}
        }
    }
    // A terminal has one output.
    wanted.stderr &= !wanted.tty;
    wanted
}

fn running(found: Found) -> Result<String, Box<Response<Body>>> {
    let id = found.view.containers.get(&found.container).map(|container| container.id.clone()).unwrap_or_default();
    if id.is_empty() {
        let message = format!("container not found ({:?})", found.container);
        return Err(Box::new(status(StatusCode::NOT_FOUND, "NotFound", &message)));
    }
    Ok(id)
}

fn has_terminal(found: &Found) -> bool {
    let spec = found.view.pod.spec.as_ref();
    let plain = crate::pod::order::container(&found.view.pod, &found.container).and_then(|container| container.tty);
    let extra = spec.and_then(|spec| spec.ephemeral_containers.iter().flatten().find(|c| c.name == found.container));
    plain.or(extra.and_then(|extra| extra.tty)).unwrap_or(false)
}

fn refused(error: &StreamError) -> Response<Body> {
    let text = base::Chain(error).to_string();
    status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &text)
}

/// The first protocol of the client's that we offer too. A client that names none gets the first.
fn dialect(headers: &HeaderMap, spdy: &[&str], websocket: &[&str]) -> Option<Dialect> {
    let words = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).map(|word| word.trim().to_owned()).collect()
    };
    let upgrade = words("upgrade");
    let choose = |asked: Vec<String>, offered: &[&str]| {
        if asked.is_empty() {
            return offered.first().map(|first| (*first).to_owned());
        }
        asked.into_iter().find(|word| offered.contains(&word.as_str()))
    };
    if upgrade.iter().any(|word| word.eq_ignore_ascii_case("websocket")) {
        return choose(words("sec-websocket-protocol"), websocket).map(Dialect::WebSocket);
    }
    if upgrade.iter().any(|word| word.eq_ignore_ascii_case(SPDY)) {
        return choose(words(SPDY_PROTOCOL), spdy).map(Dialect::Spdy);
    }
    None
}

/// Answers 101 and serves the upgraded connection in a task of its own.
fn upgrade<F, W>(dialect: Dialect, mut request: Request<Incoming>, serve: F) -> Response<Body>
where
    F: FnOnce(Dialect, TokioIo<hyper::upgrade::Upgraded>) -> W + Send + 'static,
    W: Future<Output = Result<(), StreamError>> + Send,
{
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let value = |text: &str| HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""));
    match &dialect {
        Dialect::Spdy(protocol) => {
            headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
            headers.insert(SPDY_PROTOCOL, value(protocol));
        }
        Dialect::WebSocket(protocol) => {
            let Some(key) = request.headers().get("sec-websocket-key") else {
                return status(StatusCode::BAD_REQUEST, "BadRequest", "Sec-WebSocket-Key is missing");
            };
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert("sec-websocket-accept", value(&derive_accept_key(key.as_bytes())));
            headers.insert("sec-websocket-protocol", value(protocol));
        }
    }
    let upgrading = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrading.await {
            Ok(upgraded) => {
                if let Err(error) = serve(dialect, TokioIo::new(upgraded)).await {
                    tracing::debug!(error = %base::Chain(&error), "stream ended early");
                }
            }
            Err(error) => tracing::debug!(%error, "connection was not upgraded"),
        }
    });
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_first_choice_that_we_offer() {
        let mut headers = HeaderMap::new();
        headers.insert("upgrade", HeaderValue::from_static("websocket"));
        headers.insert("sec-websocket-protocol", HeaderValue::from_static("v5.channel.k8s.io, v4.channel.k8s.io"));
        let found = dialect(&headers, &[], &[websocket::V5, websocket::V4]);
        assert_eq!(found, Some(Dialect::WebSocket(websocket::V5.into())));
        headers.insert("upgrade", HeaderValue::from_static("SPDY/3.1"));
        headers.append("x-stream-protocol-version", HeaderValue::from_static("v9.channel.k8s.io"));
        assert_eq!(dialect(&headers, &SPDY_EXEC_PROTOCOLS, &[]), None);
        headers.append("x-stream-protocol-version", HeaderValue::from_static("v4.channel.k8s.io"));
        assert_eq!(dialect(&headers, &SPDY_EXEC_PROTOCOLS, &[]), Some(Dialect::Spdy("v4.channel.k8s.io".into())));
    }

    #[test]
    fn a_terminal_has_no_stderr() {
        let wanted = exec_request("command=sh&command=-c&input=1&output=1&error=1&tty=1");
        assert_eq!(wanted.command, ["sh", "-c"]);
        assert!(wanted.stdin && wanted.stdout && wanted.tty && !wanted.stderr);
    }
}
