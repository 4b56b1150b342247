//! The API server: HTTP, authentication, authorisation, negotiation, and one generic path from a request to a fact.
//!
//! Every kind takes the same road: `serve` (connections) -> `call` (who, may they, audit) -> `rest` (one generic
//! handler) -> `admit` -> `store`. The in-process transport ([`Server::call`]) enters at `call`, so a role of this
//! binary is authorised and audited like everybody else.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it"))]

mod body;
pub mod limits;

mod serve;
mod server;
pub mod tls;
mod unread;

mod authn;
mod authz;
mod call;
mod context;
mod inflight;
mod media;
mod query;
mod target;

mod answer;
mod codec;
mod connect;
mod discovery;
mod rest;
mod reviews;

mod audit;
mod bootstrap;
mod crds;
mod health;
mod metrics;
mod paths;
mod reader;

pub use audit::{Audit, AuditConfig};
pub use authn::{KeyError, NoTokens, TokenAuthenticator, TokenKeys};
pub use body::{Body, BoxError, empty, full, stream};
pub use bootstrap::BootstrapError;
pub use connect::{ByteStream, NoNodes, NodeAddress, NodeProxy};
pub use health::HealthCheck;
pub use paths::{Extension, NoExtension, RemoteAddress};
pub use serve::TlsSource;
pub use server::{Config, Deps, Server};
