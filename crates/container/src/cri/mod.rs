//! The CRI client: every verb a node agent uses, each with its own time limit.
//!
//! Requests and answers are the generated messages of [`v1`]; verbs unwrap the outer envelope so that callers see what
//! they asked for. The connection is lazy and heals itself: after a restart of the runtime the next verb reconnects.

mod error;
mod events;
mod images;
mod runtime;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

pub use error::CriError;
pub use events::Events;
pub use runtime::{Output, Stdio};
use v1::image_service_client::ImageServiceClient;
use v1::runtime_service_client::RuntimeServiceClient;

/// The messages and stubs of CRI v1, compiled from its description by `build.rs`.
#[allow(
    clippy::all,
    clippy::unwrap_used,
    clippy::allow_attributes_without_reason,
    rustdoc::all,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

/// Longest wait for a verb that changes something (upstream: `runtimeRequestTimeout`, 2 min).
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest wait for a verb that only reads.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest pull of one image. Slow links exist; a pull without end does not help them.
pub const PULL_TIMEOUT: Duration = Duration::from_secs(3600);
/// Time over a verb's own deadline (grace period, exec timeout) that the runtime may take to report.
pub const REPORT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for the socket to accept.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest message either way (upstream: 16 MiB).
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

const _: () = assert!(QUERY_TIMEOUT.as_secs() < REQUEST_TIMEOUT.as_secs());

/// A connection to a container runtime. Cheap to clone; all clones share one HTTP/2 connection.
#[derive(Clone, Debug)]
pub struct Cri {
    socket: PathBuf,
    channel: Channel,
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

// === impl Cri ===

impl Cri {
    /// Prepares the connection; nothing is opened before the first verb. Must be called inside a tokio runtime.
    ///
    /// `socket` is a path, with or without `unix://` in front.
    pub fn connect(socket: impl AsRef<Path>) -> Cri {
        let text = socket.as_ref().to_string_lossy();
        let path = PathBuf::from(text.strip_prefix("unix://").unwrap_or(&text));
        let dial = path.clone();
        let connector = service_fn(move |_: Uri| {
            let path = dial.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://localhost")
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .connect_with_connector_lazy(connector);
        let runtime = RuntimeServiceClient::new(channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let images = ImageServiceClient::new(channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Cri { socket: path, channel, runtime, images }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// Runs one call under its time limit and names the verb in what goes wrong.
async fn call<T>(
    verb: &'static str,
    limit: Duration,
    reply: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, CriError> {
    match tokio::time::timeout(limit, reply).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(CriError::new(verb, status)),
        Err(_) => Err(CriError::Timeout { verb, limit }),
    }
}
