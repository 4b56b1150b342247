//! A script in a container, through the API server as kubectl's `exec` does it: authorised and audited like everybody's.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::Request;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use view::Endpoint;

use crate::layout::Layout;
use crate::pki::{Kubeconfig, Leaf, client_config};

/// With it, the end of the input can be told.
const PROTOCOL: &str = "v5.channel.k8s.io";
const INPUT: u8 = 0;
const OUTPUT: u8 = 1;
const ERRORS: u8 = 2;
const STATUS: u8 = 3;
const CLOSE: u8 = 255;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of what a script says on its standard error, the end is told.
const SAID_BYTES_MAX: usize = 2000;
/// A database of a terabyte over a network of one gigabit.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(3 * 3600);

/// Where a script runs.
pub struct Place<'a> {
    pub namespace: &'a str,
    pub pod: &'a str,
    pub container: &'a str,
}

/// The way in, with the administrator's certificate of this machine.
pub struct Exec {
    layout: Layout,
}

// === impl Exec ===

impl Exec {
    pub fn new(layout: &Layout) -> Exec {
        Exec { layout: layout.clone() }
    }

    /// Runs a script to its end: `input` is what it reads, and what it writes goes to `output`.
    pub async fn run(
        &self,
        place: &Place<'_>,
        script: &str,
        input: Option<mpsc::Receiver<Bytes>>,
        output: mpsc::Sender<Bytes>,
    ) -> Result<()> {
        let run = async {
            let socket = self.connect(place, script, input.is_some()).await?;
            relay(socket, input, output).await
        };
        let outcome = tokio::time::timeout(SCRIPT_TIMEOUT, run).await;
        outcome.unwrap_or_else(|_| bail!("it did not end within {} h", SCRIPT_TIMEOUT.as_secs() / 3600))
    }

    async fn connect(
        &self,
        place: &Place<'_>,
        script: &str,
        input: bool,
    ) -> Result<WebSocketStream<TlsStream<TcpStream>>> {
        let config = Kubeconfig::load(&self.layout.kubeconfig())?;
        let leaf = Leaf::of_pem(&config.user.certificate_pem, &config.user.key_pem)?;
        let tls = client_config(&config.ca_pem, Some(&leaf), false)?;
        let server = Endpoint::parse(&config.server)?;
        let dial = async {
            let stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
            TlsConnector::from(tls)
                .connect(ServerName::try_from(server.host.clone())?, stream)
                .await
                .map_err(anyhow::Error::from)
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, dial).await.context("the API server does not answer")??;
        let request = request(&server, place, script, input)?;
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.map_err(refusal)?;
        Ok(socket)
    }
}

fn request(server: &Endpoint, place: &Place<'_>, script: &str, input: bool) -> Result<Request<()>> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("container", place.container).append_pair("stdin", &input.to_string());
    query.append_pair("stdout", "true").append_pair("stderr", "true");
    for word in ["/bin/sh", "-c", script] {
        query.append_pair("command", word);
    }
    let (namespace, pod, query) = (place.namespace, place.pod, query.finish());
    let authority = server.url().replacen("https://", "wss://", 1);
    let url = format!("{authority}/api/v1/namespaces/{namespace}/pods/{pod}/exec?{query}");
    let mut request = url.into_client_request()?;
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, PROTOCOL.parse()?);
    Ok(request)
}

/// Why there is no connection, with the server's own words.
fn refusal(error: tokio_tungstenite::tungstenite::Error) -> anyhow::Error {
    match error {
        tokio_tungstenite::tungstenite::Error::Http(response) => {
            let said = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            anyhow!("the API server answered {}: {said}", response.status())
        }
        other => anyhow!(other).context("open a stream to the container"),
    }
}

async fn relay(
    socket: WebSocketStream<TlsStream<TcpStream>>,
    mut input: Option<mpsc::Receiver<Bytes>>,
    output: mpsc::Sender<Bytes>,
) -> Result<()> {
    let (mut sink, mut stream) = socket.split();
    let feed = async move {
        let Some(input) = &mut input else { return Ok(()) };
        while let Some(bytes) = input.recv().await {
            sink.send(Message::Binary([&[INPUT], bytes.as_ref()].concat().into())).await?;
        }
        sink.send(Message::Binary(vec![CLOSE, INPUT].into())).await
    };
    let take = async {
        let mut said = Vec::new();
        while let Some(message) = stream.next().await {
            let Message::Binary(frame) = message.context("the stream broke")? else { continue };
            match frame.first() {
                Some(&OUTPUT) => output.send(frame.slice(1..)).await.context("nobody takes what it writes")?,
                Some(&ERRORS) => keep_end(&mut said, &frame[1..]),
                Some(&STATUS) => return ended(&frame[1..], &said),
                _ => {}
            }
        }
        bail!("the stream ended before the script told how it went")
    };
    // A script may end without reading all; what it said of itself counts.
    tokio::pin!(feed);
    tokio::select! {
        outcome = take => outcome,
        Err(error) = &mut feed => Err(error).context("write to the script"),
    }
}

fn keep_end(said: &mut Vec<u8>, more: &[u8]) {
    said.extend_from_slice(more);
    let beyond = said.len().saturating_sub(SAID_BYTES_MAX);
    said.drain(..beyond);
}

/// The outcome out of the status that ends a stream.
fn ended(status: &[u8], said: &[u8]) -> Result<()> {
    let status: serde_json::Value = serde_json::from_slice(status).context("read how it ended")?;
    let (why, said) = (status["message"].as_str().unwrap_or("it failed"), String::from_utf8_lossy(said));
    ensure!(status["status"] == "Success", "{why}: {}", said.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Place, SAID_BYTES_MAX, ended, keep_end, request};
    use view::Endpoint;

    #[test]
    fn the_script_is_one_word_of_the_command() {
        let place = Place { namespace: "shop", pod: "sql-0", container: "sql" };
        let request = request(&Endpoint::new("127.0.0.1", 6443), &place, "a | b & c", true).unwrap();
        let wanted = "wss://127.0.0.1:6443/api/v1/namespaces/shop/pods/sql-0/exec?container=sql&stdin=true&stdout=true\
                      &stderr=true&command=%2Fbin%2Fsh&command=-c&command=a+%7C+b+%26+c";
        assert_eq!(request.uri().to_string(), wanted);
    }

    #[test]
    fn a_failure_has_the_scripts_last_words() {
        assert!(ended(br#"{"status": "Success"}"#, b"noise").is_ok());
        let failed = ended(br#"{"status": "Failure", "message": "exit code 1"}"#, b"no such table\n").unwrap_err();
        assert_eq!(failed.to_string(), "exit code 1: no such table");
        let mut said = vec![b'a'; SAID_BYTES_MAX];
        keep_end(&mut said, b"end");
        assert!(said.len() == SAID_BYTES_MAX && said.ends_with(b"aend"));
    }
}
