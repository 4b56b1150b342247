//! The one way into the API for every loop and every hand: a client, and the shared cache that it keeps.
//!
//! A [`Client`] speaks through a [`Transport`] (HTTPS, or the server in this very process) and a [`View`] keeps a
//! [`api::Snapshot`] of what its identity may read. The watch state machine ([`watcher`]) is pure; this crate's drivers
//! perform its effects. Nothing here knows what the objects mean.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod backoff;
mod changes;
mod client;
mod error;
pub mod fake;
mod frames;
mod https;
mod page;
mod perform;
mod pump;
mod transport;
mod unverified;
mod view;
pub mod watcher;

pub use backoff::Backoff;
pub use changes::{Change, Changes};
pub use client::{Client, ListOptions, PatchRequest};
pub use error::ClientError;
pub use frames::{Frame, Frames};
pub use https::{Endpoint, Endpoints, Https, TlsConfig};
pub use page::ListPage;
pub use transport::{BoxError, ResponseBody, Transport, full_body, read_body};
pub use unverified::unverified_config;
pub use view::{Fence, FenceError, Form, View, Watched};

/// Cancelled when the process drains: every task of a view ends soon after.
pub type Drain = tokio_util::sync::CancellationToken;
