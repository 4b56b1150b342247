//! A load generator: plain HTTP/1.1 over TLS on blocking sockets, so that the client costs little and shares nothing
//! with the server.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use crate::tool::Tool;

/// Where the server is and who asks, out of a kubeconfig.
#[derive(Clone)]
pub struct Endpoint {
    authority: String,
    config: Arc<ClientConfig>,
}

/// One keep-alive connection, until either side says otherwise.
pub struct Connection {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
    authority: String,
}

/// A request in any media type.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    pub method: &'a str,
    pub path: &'a str,
    /// Media type of the body; unused without one.
    pub content: &'a str,
    pub accept: &'a str,
    pub body: &'a [u8],
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    /// Media type.
    pub content: String,
    pub body: Vec<u8>,
    /// The server closes the connection behind it.
    pub last: bool,
}

/// For an answer that is part of a load.
const PATIENCE: Duration = Duration::from_secs(120);
const JSON: &str = "application/json";

struct Head {
    code: u16,
    /// None for a chunked body.
    length: Option<usize>,
    content: String,
    last: bool,
}

// === impl Endpoint ===

impl Endpoint {
    /// Reads server, CA and client certificate through `kubectl config view`.
    pub fn of(kubectl: &Tool) -> anyhow::Result<Endpoint> {
        Endpoint::told(&serde_json::from_str(&kubectl.ok("config view --raw --minify -o json")?)?)
    }

    /// Reads the same out of the file of a cluster's administrator, which knows one cluster and one user.
    pub fn read(kubeconfig: &Path) -> anyhow::Result<Endpoint> {
        let text = fs::read_to_string(kubeconfig).with_context(|| format!("read {}", kubeconfig.display()))?;
        Endpoint::told(&serde_saphyr::from_str(&text).with_context(|| format!("read {}", kubeconfig.display()))?)
    }

    fn told(view: &Value) -> anyhow::Result<Endpoint> {
        let cluster = &view["clusters"][0]["cluster"];
        let user = &view["users"][0]["user"];
        let server = cluster["server"].as_str().context("the kubeconfig names no server")?;
        let authority = server.strip_prefix("https://").context("the server is not https")?.to_owned();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&decode(&cluster["certificate-authority-data"])?) {
            roots.add(certificate.context("read the CA")?)?;
        }
        let chain = CertificateDer::pem_slice_iter(&decode(&user["client-certificate-data"])?)
            .collect::<Result<Vec<_>, _>>()
            .context("read the client certificate")?;
        let key = PrivateKeyDer::from_pem_slice(&decode(&user["client-key-data"])?).context("read the client key")?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(Endpoint { authority, config: Arc::new(config) })
    }

    /// The same server, or another one of its cluster, at another address.
    pub fn at(&self, address: &str) -> Endpoint {
        let port = self.authority.rsplit_once(':').map_or("443", |(_, port)| port);
        Endpoint { authority: format!("{address}:{port}"), config: self.config.clone() }
    }

    pub fn connect(&self) -> anyhow::Result<Connection> {
        self.connect_within(PATIENCE)
    }

    /// A connection that is there, certificates shown on both sides, and that gives up what takes longer.
    pub fn connect_within(&self, patience: Duration) -> anyhow::Result<Connection> {
        let host = self.authority.rsplit_once(':').map_or(self.authority.as_str(), |(host, _)| host);
        let name = ServerName::try_from(host.to_owned())?;
        let address = self.authority.parse().with_context(|| format!("{} is no address", self.authority))?;
        let socket = TcpStream::connect_timeout(&address, patience);
        let mut socket = socket.with_context(|| format!("connect {}", self.authority))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        let mut tls = ClientConnection::new(self.config.clone(), name)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).with_context(|| format!("meet {}", self.authority))?;
        }
        Ok(Connection {
            stream: BufReader::with_capacity(1 << 18, StreamOwned::new(tls, socket)),
            authority: self.authority.clone(),
        })
    }
}

fn decode(field: &Value) -> anyhow::Result<Vec<u8>> {
    use base64::Engine;
    let text = field.as_str().context("the kubeconfig holds no inline credentials")?;
    base64::engine::general_purpose::STANDARD.decode(text).context("base64 of the kubeconfig")
}

// === impl Connection ===

impl Connection {
    /// One request in JSON.
    pub fn call(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<Answer> {
        self.perform(&Call { method, path, content: JSON, accept: JSON, body: body.as_bytes() })
    }

    pub fn perform(&mut self, call: &Call) -> anyhow::Result<Answer> {
        self.send(call)?;
        let Head { code, length, content, last } = self.head()?;
        let body = match length {
            Some(length) => {
                let mut body = vec![0; length];
                self.stream.read_exact(&mut body)?;
                body
            }
            None => {
                let mut body = Vec::new();
                while let Some(chunk) = self.chunk()? {
                    body.extend(chunk);
                }
                body
            }
        };
        Ok(Answer { code, content, body, last })
    }

    /// Whether the other side is still there, as any client notices that reads while it waits.
    pub fn is_open(&mut self) -> bool {
        let _ = self.stream.get_ref().sock.set_nonblocking(true);
        let quiet = self.stream.fill_buf().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        let _ = self.stream.get_ref().sock.set_nonblocking(false);
        quiet
    }

    /// Starts a watch; events are then read by [`Connection::chunk`].
    pub fn watch(&mut self, path: &str) -> anyhow::Result<()> {
        self.watch_as(path, JSON)
    }

    /// As [`Connection::watch`], in another media type.
    pub fn watch_as(&mut self, path: &str, accept: &str) -> anyhow::Result<()> {
        self.send(&Call { method: "GET", path, content: JSON, accept, body: b"" })?;
        let Head { code, length, .. } = self.head()?;
        if code != 200 || length.is_some() {
            bail!("watch {path} answered {code}");
        }
        Ok(())
    }

    fn send(&mut self, call: &Call) -> anyhow::Result<()> {
        let Call { method, path, content, accept, body } = call;
        let authority = &self.authority;
        let described = match body.len() {
            0 => String::new(),
            length => format!("Content-Type: {content}\r\nContent-Length: {length}\r\n"),
        };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {authority}\r\nAccept: {accept}\r\n{described}\r\n");
        let stream = self.stream.get_mut();
        stream.write_all(&[head.as_bytes(), body].concat())?;
        stream.flush().context("send the request")
    }

    /// Reads status line and headers.
    fn head(&mut self) -> anyhow::Result<Head> {
        let status = self.line()?;
        let code = status.split(' ').nth(1).context("no status code")?.parse().context("the status code")?;
        let mut head = Head { code, length: Some(0), content: String::new(), last: false };
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(": ") {
                None => return Ok(head),
                Some(("content-length", text)) => head.length = Some(text.parse().context("the content length")?),
                Some(("transfer-encoding", _)) => head.length = None,
                Some(("content-type", text)) => head.content = text.to_owned(),
                Some(("connection", "close")) => head.last = true,
                Some(_) => {}
            }
        }
    }

    /// The next chunk of a chunked body; None at its end.
    pub fn chunk(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let size = self.line()?;
        let size = usize::from_str_radix(&size, 16).with_context(|| format!("chunk size {size:?}"))?;
        let mut chunk = vec![0; size + 2];
        self.stream.read_exact(&mut chunk)?;
        chunk.truncate(size);
        Ok((size > 0).then_some(chunk))
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("the server closed the connection");
        }
        Ok(line.trim_end().to_owned())
    }
}
