//! Where a program comes from: a file, or a release of a folder or an address by its version.
//!
//! A source holds, for each version, `VERSION/manifest.json` and `VERSION/evenkeel`. What it says is believed by nobody:
//! the servers check the manifest's signature against the keys that their cluster trusts, and the program against the
//! manifest.

use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};
use keeper::Manifest;
use url::Url;
use view::{Endpoint, Https, Transport};

use crate::pki::client_config;

const MANIFEST: &str = "manifest.json";
const MANIFEST_BYTES_MAX: usize = 64 << 10;
const PROGRAM: &str = "evenkeel";
/// What is fetched is held in memory, where somebody sits.
const FETCHED_BYTES_MAX: usize = 512 << 20;
/// A source that takes longer is none.
const FETCH_TIMEOUT: Duration = Duration::from_secs(900);
/// Trusted to name the source; what it sends is checked by other keys.
const SYSTEM_CAS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A program at hand, with what vouches for it.
pub struct Program {
    pub content: Box<dyn Content>,
    pub manifest: Option<Manifest>,
}

/// What a program is read from.
pub trait Content: Read + Seek {}

impl<T: Read + Seek> Content for T {}

/// Where releases are.
enum Source {
    Folder(PathBuf),
    Address { url: Url, https: Box<Https> },
}

/// `to` is a path, or the version of a release of the source.
pub async fn program(to: &str, manifest: Option<&Path>, source: Option<&str>) -> Result<Program> {
    let path = Path::new(to);
    if to.contains('/') || path.is_file() {
        let manifest = manifest.map(read_manifest).transpose()?;
        return Ok(Program { content: open(path)?, manifest });
    }
    let source = source.with_context(|| {
        format!("{to} is no file here, and no release source is named: --release-source FOLDER or https://ADDRESS")
    })?;
    ensure!(!to.starts_with('.') && manifest.is_none(), "a release is named by its version, and has its own manifest");
    Source::of(source)?.release(to).await.with_context(|| format!("take {to} from {source}"))
}

fn open(path: &Path) -> Result<Box<dyn Content>> {
    Ok(Box::new(File::open(path).with_context(|| format!("open {}", path.display()))?))
}

fn read_manifest(path: &Path) -> Result<Manifest> {
    let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))
}

// === impl Source ===

impl Source {
    fn of(text: &str) -> Result<Source> {
        if !text.contains("://") {
            return Ok(Source::Folder(text.into()));
        }
        let pem = std::fs::read_to_string(SYSTEM_CAS).with_context(|| format!("read the trusted CAs {SYSTEM_CAS}"))?;
        Source::trusting(text, &pem)
    }

    fn trusting(text: &str, ca_pem: &str) -> Result<Source> {
        let url: Url = text.parse().with_context(|| format!("{text:?} is no address"))?;
        ensure!(url.scheme() == "https", "{url}: releases are fetched over https only");
        let host = url.host_str().context("the address names no host")?.to_owned();
        let tls = client_config(ca_pem, None, false).context("the trusted CAs")?;
        let https = Https::new(Endpoint::new(&host, url.port().unwrap_or(443)), Arc::new(move || tls.clone()));
        Ok(Source::Address { url, https: Box::new(https) })
    }

    async fn release(&self, version: &str) -> Result<Program> {
        match self {
            Source::Folder(folder) => {
                let folder = folder.join(version);
                let manifest = Some(read_manifest(&folder.join(MANIFEST))?);
                Ok(Program { content: open(&folder.join(PROGRAM))?, manifest })
            }
            Source::Address { url, https } => {
                let manifest = fetch(https, url, &format!("{version}/{MANIFEST}"), MANIFEST_BYTES_MAX).await?;
                let manifest = Some(serde_json::from_slice(&manifest).context("read its manifest")?);
                let program = fetch(https, url, &format!("{version}/{PROGRAM}"), FETCHED_BYTES_MAX).await?;
                Ok(Program { content: Box::new(Cursor::new(program)), manifest })
            }
        }
    }
}

async fn fetch(https: &Https, url: &Url, name: &str, bytes_max: usize) -> Result<Bytes> {
    let path = format!("{}/{name}", url.path().trim_end_matches('/'));
    let request = Request::get(path.as_str()).header("host", url.authority()).body(Bytes::new())?;
    let answer = async {
        let response = https.call(request).await?;
        let status = response.status();
        Ok::<_, view::ClientError>((status, view::read_body(response.into_body(), bytes_max).await?))
    };
    let answered = tokio::time::timeout(FETCH_TIMEOUT, answer).await;
    let (status, body) = answered.with_context(|| format!("no answer within {} s", FETCH_TIMEOUT.as_secs()))??;
    ensure!(status == StatusCode::OK, "{path}: the source answered {status}");
    Ok(body)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    use base::Clock;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::{Content, Source, program};
    use crate::layout::Layout;
    use crate::pki::{self, ServerNames, ServerPki};
    use crate::wire::SystemClock;

    fn text(mut content: Box<dyn Content>) -> String {
        let mut text = String::new();
        content.read_to_string(&mut text).unwrap();
        text
    }

    /// Answers each connection with one of these files.
    async fn serve(listener: TcpListener, tls: TlsAcceptor, files: Vec<(String, Vec<u8>)>) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = tls.accept(stream).await.unwrap();
            let mut head = vec![0; 4096];
            let count = stream.read(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..count]).into_owned();
            let found = files.iter().find(|(path, _)| head.starts_with(&format!("GET {path} ")));
            let (code, body) = found.map_or(("404 Not Found", &[][..]), |(_, body)| ("200 OK", body));
            let answer = format!("HTTP/1.1 {code}\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(&[answer.as_bytes(), body].concat()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_release_is_fetched_by_its_address() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemClock.now();
        let authorities = ServerPki::load_or_make(&Layout::new(folder.path()), pki::leaf::LEAF_LIFE, now).unwrap();
        let names = ServerNames { addresses: BTreeSet::from([IpAddr::from([127, 0, 0, 1])]), ..ServerNames::default() };
        let (leaf, _) = authorities.serving(&names, now).unwrap();
        let clients = pki::certificates(&authorities.current().client.pem).unwrap();
        let tls = TlsAcceptor::from(apiserver::tls::server_config(leaf.chain.clone(), leaf.key(), &clients).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://{}/evenkeel/", listener.local_addr().unwrap());
        let manifest = json!({"version": "0.2.0", "program": keeper::Digest::of_bytes(b"program"), "signature": ""});
        let files = vec![
            ("/evenkeel/0.2.0/manifest.json".to_owned(), manifest.to_string().into_bytes()),
            ("/evenkeel/0.2.0/evenkeel".to_owned(), b"program".to_vec()),
        ];
        tokio::spawn(serve(listener, tls, files));
        let source = Source::trusting(&address, &authorities.current().server.pem).unwrap();
        let found = source.release("0.2.0").await.unwrap();
        assert_eq!((text(found.content), found.manifest.unwrap().version.as_str()), ("program".to_owned(), "0.2.0"));
        let Err(error) = source.release("0.3.0").await else { panic!("there is no such release") };
        assert!(error.to_string().contains("answered 404"), "{error}");
    }

    #[tokio::test]
    async fn a_version_is_found_in_its_folder_and_a_path_is_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let release = folder.path().join("0.2.0");
        std::fs::create_dir_all(&release).unwrap();
        std::fs::write(release.join("evenkeel"), "program").unwrap();
        let manifest = json!({"version": "0.2.0", "program": keeper::Digest::of_bytes(b"program"), "signature": ""});
        std::fs::write(release.join("manifest.json"), manifest.to_string()).unwrap();
        let source = folder.path().to_str().unwrap();
        let found = program("0.2.0", None, Some(source)).await.unwrap();
        assert_eq!((text(found.content), found.manifest.unwrap().version.as_str()), ("program".to_owned(), "0.2.0"));
        let path = release.join("evenkeel");
        let plain = program(path.to_str().unwrap(), None, None).await.unwrap();
        assert_eq!((text(plain.content), plain.manifest), ("program".to_owned(), None));
        for (to, source) in
            [("0.3.0", Some(source)), ("0.2.0", None), ("..", Some(source)), ("0.2.0", Some("http://x/"))]
        {
            assert!(program(to, None, source).await.is_err(), "{to} from {source:?}");
        }
    }
}
