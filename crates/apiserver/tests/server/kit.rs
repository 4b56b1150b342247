//! A server on SQLite in a temporary folder, behind TLS on a port of its own, and clients with identities.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use apiserver::{Audit, Body, Config, Deps, NoExtension, NoNodes, NoTokens, NodeProxy, Server, TokenKeys};
use base::{Clock, Rng, SmolStr};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

/// A certificate authority and what it signs.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub der: CertificateDer<'static>,
    pub pem: String,
}

pub type Leaf = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Ca {
    pub fn new(name: &str) -> Ca {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Ca { issuer: Issuer::new(params, key), der, pem }
    }

    pub fn leaf(&self, name: &str, group: &str, server: bool) -> Leaf {
        self.sign(name, group, server, CertificateParams::new(Vec::new()).unwrap())
    }

    /// A client's certificate with a URI among its names.
    pub fn leaf_of(&self, name: &str, group: &str, uri: &str) -> Leaf {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        self.sign(name, group, false, params)
    }

    pub fn expired_leaf(&self, name: &str, group: &str) -> Leaf {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        self.sign(name, group, false, params)
    }

    fn sign(&self, name: &str, group: &str, server: bool, mut params: CertificateParams) -> Leaf {
        let key = KeyPair::generate().unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        if !group.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        if server {
            params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        } else {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
    }
}

pub struct Cluster {
    pub server: Server,
    pub address: SocketAddr,
    pub server_ca: Ca,
    pub client_ca: Ca,
    pub folder: tempfile::TempDir,
    /// Signs as the server does.
    pub keys: TokenKeys,
    /// URIs in certificates that hold no longer.
    pub revoking: watch::Sender<BTreeSet<SmolStr>>,
    _drain: tokio::sync::oneshot::Sender<()>,
}

/// A request's answer.
pub struct Answer {
    pub code: StatusCode,
    pub headers: http::HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.bytes)))
    }

    pub fn ok(self) -> Value {
        assert!(self.code.is_success(), "{}: {}", self.code, String::from_utf8_lossy(&self.bytes));
        self.json()
    }
}

impl Cluster {
    pub async fn start() -> Cluster {
        Cluster::with_nodes(Arc::new(NoNodes)).await
    }

    pub async fn with_nodes(nodes: Arc<dyn NodeProxy>) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let engine = store::sqlite::open(&folder.path().join("state.db")).unwrap();
        Cluster::on(engine, folder, nodes).await
    }

    /// A server on an engine that another one may be on as well.
    pub async fn on(engine: Arc<dyn store::Engine>, folder: tempfile::TempDir, nodes: Arc<dyn NodeProxy>) -> Cluster {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let keys = store::Keyring::generate().unwrap().sealing(["/secrets".into()]);
        let store = store::Store::open(engine, keys, clock.clone()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (server_ca, client_ca) = (Ca::new("server-ca"), Ca::new("client-ca"));
        let pem = KeyPair::generate().unwrap().serialize_pem();
        let audit =
            apiserver::AuditConfig { path: folder.path().join("audit.log"), file_bytes_max: 64 << 20, files_max: 1 };
        let revoking = watch::Sender::default();
        let server = Server::new(Deps {
            store,
            clock,
            rng: Arc::new(base::SeededRng::new(7)) as Arc<dyn Rng>,
            hooks: Arc::new(admit::NoWebhooks),
            keys: TokenKeys::from_pems(&[&pem]).unwrap(),
            tokens: Arc::new(NoTokens),
            nodes,
            extension: Arc::new(NoExtension),
            checks: Vec::new(),
            audit: Audit::start(audit).unwrap(),
            revoked: revoking.subscribe(),
            config: Config {
                admit: admit::Config::default(),
                issuers: vec!["https://kubernetes.default.svc.cluster.local".into()],
                audiences: vec!["https://kubernetes.default.svc.cluster.local".into()],
                advertise: address,
                server_ca_pem: server_ca.pem.clone(),
                client_ca_pem: client_ca.pem.clone(),
                front_proxy_ca_pem: String::new(),
                version: "v1.36.2+evenkeel".into(),
            },
        });
        server.bootstrap().await.unwrap();
        let (chain, key) = server_ca.leaf("kube-apiserver", "", true);
        let tls = apiserver::tls::serving(vec![chain], key, std::slice::from_ref(&client_ca.der)).unwrap();
        let (drain, drained) = tokio::sync::oneshot::channel::<()>();
        let serving = server.clone();
        tokio::spawn(async move {
            let drained = async {
                let _ = drained.await;
            };
            serving.serve(listener, Arc::new(move || tls.clone()), drained).await;
        });
        let running = server.clone();
        tokio::spawn(async move { running.run(std::future::pending()).await });
        Cluster {
            server,
            address,
            server_ca,
            client_ca,
            folder,
            keys: TokenKeys::from_pems(&[&pem]).unwrap(),
            revoking,
            _drain: drain,
        }
    }

    pub async fn tls(&self, identity: Option<Leaf>, alpn: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.server_ca.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match identity {
            // Not checked to belong together: some tests bring a key that does not.
            Some((certificate, key)) => {
                let key = provider.key_provider.load_private_key(key).unwrap();
                let identity = rustls::sign::CertifiedKey::new(vec![certificate], key);
                builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(identity)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = rustls_pki_types::ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into());
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    pub async fn client(&self, identity: Option<Leaf>) -> Client {
        let stream = self.tls(identity, b"h2").await;
        let handshake = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(32 << 20)
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, connection) = handshake.unwrap();
        tokio::spawn(connection);
        Client { sender, token: None }
    }

    pub async fn admin(&self) -> Client {
        self.client(Some(self.client_ca.leaf("system:admin", "system:masters", false))).await
    }

    pub async fn user(&self, name: &str, group: &str) -> Client {
        self.client(Some(self.client_ca.leaf(name, group, false))).await
    }

    pub async fn with_token(&self, token: &str) -> Client {
        Client { token: Some(token.to_owned()), ..self.client(None).await }
    }
}

/// One HTTP/2 connection of one identity.
#[derive(Clone)]
pub struct Client {
    sender: hyper::client::conn::http2::SendRequest<Full<Bytes>>,
    token: Option<String>,
}

impl Client {
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> http::Response<hyper::body::Incoming> {
        let mut request = Request::builder().method(method).uri(format!("https://127.0.0.1{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut sender = self.sender.clone();
        sender.ready().await.unwrap();
        sender.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap()
    }

    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let response = self.open(method, path, headers, body).await;
        let (head, body) = response.into_parts();
        Answer { code: head.status, headers: head.headers, bytes: body.collect().await.unwrap().to_bytes() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    pub async fn post(&self, path: &str, tree: &Value) -> Answer {
        self.send(Method::POST, path, &[("content-type", "application/json")], tree.to_string()).await
    }

    pub async fn put(&self, path: &str, tree: &Value) -> Answer {
        self.send(Method::PUT, path, &[("content-type", "application/json")], tree.to_string()).await
    }

    pub async fn merge(&self, path: &str, tree: &Value) -> Answer {
        self.send(Method::PATCH, path, &[("content-type", "application/merge-patch+json")], tree.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], "").await
    }

    pub async fn watch(&self, path: &str) -> Events {
        let response = self.open(Method::GET, path, &[], "").await;
        assert_eq!(response.status(), 200, "{path}");
        Events { body: response.into_body(), buffer: Vec::new() }
    }
}

/// The events of an open watch.
pub struct Events {
    body: hyper::body::Incoming,
    buffer: Vec<u8>,
}

impl Events {
    /// The next event; `None` when the stream ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let next = tokio::time::timeout(std::time::Duration::from_secs(20), self.body.frame()).await;
            let frame = next.expect("an event within 20 s")?;
            if let Ok(data) = frame.unwrap().into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    /// Reads on until the stream breaks off or ends; false when it still gives events after 20 s.
    pub async fn ended(&mut self) -> bool {
        let end = async { while let Some(Ok(_)) = self.body.frame().await {} };
        tokio::time::timeout(std::time::Duration::from_secs(20), end).await.is_ok()
    }

    /// `TYPE name` of the next event.
    pub async fn line(&mut self) -> String {
        let event = self.next().await.expect("the watch is open");
        format!("{} {}", event["type"].as_str().unwrap(), event["object"]["metadata"]["name"].as_str().unwrap_or("-"))
    }
}

pub async fn call(server: &Server, method: Method, path: &str, body: Body) -> Answer {
    let user = admit::User { name: "loop".into(), groups: vec!["system:masters".into()], ..Default::default() };
    let request =
        Request::builder().method(method).uri(path).header("content-type", "application/json").body(body).unwrap();
    let (head, body) = server.call(user, request).await.into_parts();
    Answer { code: head.status, headers: head.headers, bytes: body.collect().await.unwrap().to_bytes() }
}
