//! Streams between clients and containers: exec, attach, port-forward.
//!
//! A client speaks SPDY/3.1, or WebSocket channels (v4, v5), or SPDY inside a WebSocket; the runtime's streaming server
//! speaks SPDY. Everything ends here and is relayed, so that each side gets the dialect it knows.

pub mod bridge;
pub mod frame;
pub mod port_forward;
pub mod runtime;
pub mod spdy;
pub mod websocket;

/// Why a stream ended early. Never fatal to anything else.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("{what}")]
    Io {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("malformed stream frame")]
    Frame(#[source] frame::FrameError),
    #[error("the runtime's streaming server refused: {message}")]
    Runtime { message: String },
    #[error("the client did not open its streams in time")]
    Slow,
    #[error("the peer is gone")]
    Closed,
}
