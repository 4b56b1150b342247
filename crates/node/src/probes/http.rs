//! HTTP(S) requests of probes and hooks: certificates are not checked, redirects are followed on the same host only.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1 as core;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::limits;

/// What to ask, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub https: bool,
    pub host: String,
    pub port: u16,
    pub path: String,
    pub headers: Vec<(String, String)>,
}

#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub body: Vec<u8>,
}

impl Answer {
    /// 200 to 399 is health.
    pub fn judge(&self) -> Result<(), String> {
        if (200..400).contains(&self.code) {
            return Ok(());
        }
        Err(format!("HTTP probe failed with statuscode: {}", self.code))
    }
}

impl Target {
    pub fn of(get: &core::HTTPGetAction, container: &core::Container, pod_ip: &str) -> Result<Target, String> {
        let path = get.path.clone().unwrap_or_default();
        let headers = get.http_headers.iter().flatten();
        Ok(Target {
            https: get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
            host: get.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| pod_ip.to_owned()),
            port: super::port_of(&get.port, container)?,
            path: if path.starts_with('/') { path } else { format!("/{path}") },
            headers: headers.map(|header| (header.name.clone(), header.value.clone())).collect(),
        })
    }

    fn authority(&self) -> String {
        let host = self.host.trim_matches(['[', ']']);
        if host.contains(':') { format!("[{host}]:{}", self.port) } else { format!("{host}:{}", self.port) }
    }

    fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }
}

/// One GET, redirects included, within `limit`.
pub async fn get(target: &Target, limit: Duration) -> Result<Answer, String> {
    let url = target.url();
    match tokio::time::timeout(limit, follow(target.clone())).await {
        Ok(answer) => answer.map_err(|message| format!("Get {url:?}: {message}")),
        Err(_) => {
            Err(format!("Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"))
        }
    }
}

async fn follow(mut target: Target) -> Result<Answer, String> {
    for _ in 0..=limits::PROBE_REDIRECTS_MAX {
        let (answer, location) = once(&target).await?;
        let next = location.filter(|_| (300..400).contains(&answer.code)).and_then(|text| redirect(&target, &text));
        match next {
            None => return Ok(answer),
            Some(next) if next.host != target.host => return Ok(answer),
            Some(next) => target = next,
        }
    }
    Err(format!("stopped after {} redirects", limits::PROBE_REDIRECTS_MAX))
}

fn redirect(from: &Target, location: &str) -> Option<Target> {
    let uri: Uri = location.parse().ok()?;
    let path = uri.path_and_query().map_or_else(|| "/".to_owned(), |path| path.as_str().to_owned());
    let Some(host) = uri.host() else { return Some(Target { path, ..from.clone() }) };
    let https = uri.scheme_str().map_or(from.https, |scheme| scheme == "https");
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    Some(Target { https, host: host.to_owned(), port, path, headers: from.headers.clone() })
}

async fn once(target: &Target) -> Result<(Answer, Option<String>), String> {
    let host = target.host.trim_matches(['[', ']']).to_owned();
    let stream = TcpStream::connect((host.as_str(), target.port))
        .await
        .map_err(|error| format!("dial tcp {}: {error}", target.authority()))?;
    if !target.https {
        return exchange(target, stream).await;
    }
    let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(any_certificate());
    let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
    exchange(target, stream).await
}

async fn exchange<S>(target: &Target, stream: S) -> Result<(Answer, Option<String>), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let mut request = Request::get(&target.path);
    for (name, value) in &target.headers {
        request = request.header(name, value);
    }
    let given = |name: &str| target.headers.iter().any(|(have, _)| have.eq_ignore_ascii_case(name));
    for (name, value) in
        [(HOST, target.authority()), (USER_AGENT, "kube-probe/1.36".to_owned()), (ACCEPT, "*/*".to_owned())]
    {
        if !given(name.as_str()) {
            request = request.header(name, value);
        }
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let talk = async {
        let reply = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let code = reply.status().as_u16();
        let location = reply.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        // A longer body says nothing more about health.
        let body = Limited::new(reply.into_body(), limits::PROBE_BODY_BYTES_MAX).collect().await;
        let body = body.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
        Ok((Answer { code, body }, location))
    };
    let driving = async {
        let _ = connection.await;
        std::future::pending::<()>().await
    };
    tokio::select! { biased; answer = talk => answer, () = driving => Err("connection closed".to_owned()) }
}

/// A probe asks whether something answers, not who.
fn any_certificate() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let make = || Arc::new(view::unverified_config().expect("the provider supports the default versions"));
    CONFIG.get_or_init(make).clone()
}
