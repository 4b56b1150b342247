//! Whether an etcd is there and takes us, told apart by what a person would do about it.

use std::error::Error;
use std::io;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

use super::config::{self, Config, ConnectError};
use super::{Keys, wire};

#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    #[error("its address")]
    Config(#[from] ConnectError),
    /// It may come: the only one of these that waiting can cure.
    #[error("no etcd answers")]
    Absent(#[source] Box<dyn Error + Send + Sync>),
    #[error("TLS with it fails; is the CA its own, and does it take the client certificate?")]
    Tls(#[source] Box<dyn Error + Send + Sync>),
    #[error("it refuses us")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
    #[error("what answers there does not speak as etcd does")]
    Foreign(#[source] Box<dyn Error + Send + Sync>),
}

/// What an HTTP/2 client says first: the preface, and settings of which none differ.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
const FRAME_HEAD_BYTES: usize = 9;
const FRAME_SETTINGS: u8 = 4;
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads one key, linearizably: an etcd without a quorum is as good as absent.
///
/// # Errors
/// When it cannot be read, with the reason.
pub async fn reach(config: &Config) -> Result<(), ReachError> {
    greet(config).await?;
    let channel = config::channel(config)?;
    let key = Keys::new(&config.prefix).last().into();
    let request = wire::RangeRequest { key, keys_only: true, ..Default::default() };
    let Err(status) = wire::kv_client::KvClient::new(channel).range(request).await else { return Ok(()) };
    Err(match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => ReachError::Refused(status.into()),
        Code::Unimplemented => ReachError::Foreign(status.into()),
        // Without a leader, or while it starts, a member says so in many ways.
        _ => ReachError::Absent(status.into()),
    })
}

/// Connects as the channel does and exchanges first frames. The channel's own errors do not tell a refused certificate,
/// which TLS 1.3 learns of after the handshake, from a connection that broke.
async fn greet(config: &Config) -> Result<(), ReachError> {
    let peers = config::peers(config)?;
    let mut stream = config::first_that_answers(&peers, &AtomicUsize::new(0)).await.map_err(sort)?;
    let mut head = [0; FRAME_HEAD_BYTES];
    let exchange = async {
        // A peer that has refused us may have closed already; what it said is still to be read.
        let _ = stream.write_all(GREETING).await;
        let _ = stream.flush().await;
        stream.read_exact(&mut head).await
    };
    match tokio::time::timeout(GREETING_TIMEOUT, exchange).await {
        Ok(Ok(_)) if head[3] == FRAME_SETTINGS => Ok(()),
        Ok(Ok(_)) => Err(ReachError::Foreign("it answered with no HTTP/2 frame".into())),
        Ok(Err(error)) if is_tls(&error) => Err(ReachError::Tls(error.into())),
        Ok(Err(error)) => Err(ReachError::Foreign(error.into())),
        Err(late) => Err(ReachError::Foreign(late.into())),
    }
}

fn sort(error: io::Error) -> ReachError {
    if is_tls(&error) { ReachError::Tls(error.into()) } else { ReachError::Absent(error.into()) }
}

/// The TLS library's errors travel inside those of the system.
fn is_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}
