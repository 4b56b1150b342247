//! Whether a machine is off: `/v1-evenkeel/fence?address=IP` (authorised by path) says what of it answers this server. One
//! server alone may be the one that is cut off, so that two are asked.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use admit::User;
use anyhow::Result;
use apiserver::{Body, Extension, full};
use async_trait::async_trait;
use futures::future::join_all;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use crate::pki::Kubeconfig;
use crate::wire::admin;

pub const FENCE_PATH: &str = "/v1-evenkeel/fence";
/// A machine that is on accepts or refuses a connection far sooner.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// What a node or server of ours listens on, and the port that nearly every machine has.
const PORTS: [(&str, u16); 5] =
    [("kubelet", 10250), ("etcd", 2379), ("etcd's peers", 2380), ("API", 6443), ("ssh", 22)];

/// What one server sees of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    pub by: String,
    /// What answered; a refused connection is an answer as well.
    pub answers: Vec<String>,
}

/// The server's side.
pub struct FencePath {
    pub own: String,
}

/// Asks these servers; one that does not answer saw nothing.
pub async fn sightings(config: &Kubeconfig, servers: &[SocketAddr], address: IpAddr) -> Vec<Sighting> {
    let asked = servers.iter().map(|server| async move {
        let config = Kubeconfig { server: format!("https://{server}"), ..config.clone() };
        let bytes = admin::client(&config)?.raw(&format!("{FENCE_PATH}?address={address}")).await?;
        Ok::<Sighting, anyhow::Error>(serde_json::from_slice(&bytes)?)
    });
    join_all(asked).await.into_iter().filter_map(Result::ok).collect()
}

async fn answers(address: IpAddr) -> Vec<String> {
    let probes = PORTS.map(|(what, port)| async move {
        let tried = tokio::time::timeout(ANSWER_TIMEOUT, TcpStream::connect(SocketAddr::new(address, port))).await;
        let heard = match tried {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => error.kind() == std::io::ErrorKind::ConnectionRefused,
            Err(_) => false,
        };
        heard.then(|| what.to_owned())
    });
    join_all(probes).await.into_iter().flatten().collect()
}

#[async_trait]
impl Extension for FencePath {
    fn is_open(&self, _: &str) -> bool {
        false
    }

    fn serves(&self, path: &str) -> bool {
        path == FENCE_PATH
    }

    async fn answer(&self, user: Option<User>, request: Request<Body>) -> Response<Body> {
        let address = request.uri().query().and_then(|query| query.strip_prefix("address=")?.parse().ok());
        match (user, request.method().as_str(), address) {
            (Some(_), "GET", Some(address)) => {
                let sighting = Sighting { by: self.own.clone(), answers: answers(address).await };
                response(StatusCode::OK, serde_json::to_string(&sighting).expect("it is plain data"))
            }
            (Some(_), "GET", None) => response(StatusCode::BAD_REQUEST, "whom: ?address=IP".to_owned()),
            _ => response(StatusCode::METHOD_NOT_ALLOWED, "method not allowed".to_owned()),
        }
    }
}

fn response(code: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::answers;

    #[tokio::test]
    async fn a_machine_that_is_on_answers_if_only_by_refusing() {
        assert!(!answers([127, 0, 0, 1].into()).await.is_empty());
    }
}
