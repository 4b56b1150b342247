//! How a machine asks a cluster for something before, or without, a certificate: it knows the cluster by its authority,
//! and signs what it asks with its own key.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use api::Tree;
use base::Clock;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use view::{Endpoints, Https, Transport};

use super::SystemClock;
use super::join::messages::{MachineRequest, Signed};
use super::join::{CA_PATH, MACHINE_PATH};
use crate::pki::{MachineKey, TokenText, client_config, hash_of_ca};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// A server that is asked too often may ask for no more patience than this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// What a server joins with is a few keys and certificates.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A try that failed.
pub enum Attempt {
    /// The same again may work later.
    Again(anyhow::Error),
    /// What a server refuses it says in a sentence for people.
    Final(anyhow::Error),
}

/// A cluster as a machine at its door knows it.
pub struct Door {
    pub endpoints: Endpoints,
    pub ca_pem: String,
}

// === impl Attempt ===

impl Attempt {
    pub fn fatal(error: impl Into<anyhow::Error>) -> Attempt {
        Attempt::Final(error.into())
    }
}

impl From<Attempt> for anyhow::Error {
    fn from(attempt: Attempt) -> anyhow::Error {
        match attempt {
            Attempt::Again(failure) | Attempt::Final(failure) => failure,
        }
    }
}

// === impl Door ===

impl Door {
    /// Finds the cluster whose authority a token names.
    pub async fn find(endpoints: Endpoints, token: &TokenText) -> Result<Door, Attempt> {
        let request = Request::get(CA_PATH).body(Bytes::new()).map_err(Attempt::fatal)?;
        let asked = (endpoints)().first().map(view::Endpoint::url).unwrap_or_default();
        let transport = Https::among(endpoints.clone(), unverified().map_err(Attempt::Final)?);
        let Answer { code, body, .. } = call(&transport, request).await?;
        let ca_pem = String::from_utf8_lossy(&body).into_owned();
        if code != 200 {
            return Err(Attempt::Again(anyhow::anyhow!("the server answered {code}")));
        }
        // Others in the answer are nobody's to trust until this one has spoken for them.
        match token.authority(&ca_pem) {
            Some(meant) => Ok(Door { endpoints, ca_pem: meant.to_owned() }),
            None => Err(Attempt::Final(anyhow::anyhow!("{asked} is not the server that the token is for"))),
        }
    }

    /// Asks for something under this machine's key, with a join token where there is one.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
        key: &MachineKey,
        secret: Option<&str>,
    ) -> Result<T, Attempt> {
        let cluster = hash_of_ca(&self.ca_pem);
        let signed = Signed::new(request, (&cluster, path), key, SystemClock.now()).map_err(Attempt::fatal)?;
        let mut head = Request::builder().method(Method::POST).uri(path).header(CONTENT_TYPE, "application/json");
        if let Some(secret) = secret {
            head = head.header(AUTHORIZATION, format!("Bearer {secret}"));
        }
        let body = serde_json::to_string(&signed).map_err(Attempt::fatal)?;
        let request = head.body(Bytes::from(body)).map_err(Attempt::fatal)?;
        let tls = client_config(&self.ca_pem, None, false).map_err(Attempt::fatal)?;
        let transport = Https::among(self.endpoints.clone(), Arc::new(move || tls.clone()));
        let Answer { code, body, retry_after } = call(&transport, request).await?;
        if code == StatusCode::TOO_MANY_REQUESTS.as_u16() {
            // All machines of a rack may come at once after a power cut.
            tokio::time::sleep(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX)).await;
            let status: Tree = serde_json::from_slice(&body).unwrap_or_default();
            return Err(Attempt::Again(anyhow::anyhow!(
                "{}",
                status["message"].as_str().unwrap_or("too many requests")
            )));
        }
        if code != 200 {
            let failure = anyhow::anyhow!("{}", String::from_utf8_lossy(&body));
            // Another server can.
            let again = code >= 500 || code == StatusCode::MISDIRECTED_REQUEST.as_u16();
            return Err(if again { Attempt::Again(failure) } else { Attempt::Final(failure) });
        }
        serde_json::from_slice(&body).map_err(Attempt::fatal)
    }

    /// Why this machine does not belong to the cluster any more. None where it does, or where nobody answers.
    pub async fn check_in(&self, node: &str, key: &MachineKey) -> Option<anyhow::Error> {
        let request = MachineRequest { node_name: node.to_owned() };
        match self.ask::<serde_json::Value>(MACHINE_PATH, &request, key, None).await {
            Err(Attempt::Final(refusal)) => Some(refusal),
            Ok(_) | Err(Attempt::Again(_)) => None,
        }
    }
}

struct Answer {
    code: u16,
    body: Bytes,
    retry_after: Option<Duration>,
}

async fn call(transport: &Https, request: Request<Bytes>) -> Result<Answer, Attempt> {
    let exchange = async {
        let response = transport.call(request).await?;
        let code = response.status().as_u16();
        let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = view::read_body(response.into_body(), ANSWER_BYTES_MAX).await?;
        Ok::<_, anyhow::Error>(Answer { code, body, retry_after: seconds.map(Duration::from_secs) })
    };
    match tokio::time::timeout(REQUEST_TIMEOUT, exchange).await {
        Ok(outcome) => outcome.map_err(Attempt::Again),
        Err(_) => Err(Attempt::Again(anyhow::anyhow!("no answer within {} s", REQUEST_TIMEOUT.as_secs()))),
    }
}

/// For the one request whose answer is checked by its hash.
fn unverified() -> Result<view::TlsConfig> {
    let mut config = view::unverified_config()?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    Ok(Arc::new(move || config.clone()))
}
