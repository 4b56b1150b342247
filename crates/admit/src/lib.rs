//! Everything between a decoded request and a fact: the ordered stages of a write, and the only maker of [`Admitted`].
//!
//! One path for every kind, verb and media type. Each pure stage is a synchronous function over trees and schemas; what
//! needs the world (reads, webhooks, time, randomness) comes in through ports. Knows no HTTP and no engine.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it"))]

mod admitted;
pub mod authorize;
pub mod bootstrap;
mod ports;
mod request;

mod causes;
mod context;
mod doc;

mod names;
mod vocabulary;

// The stages, in the order a write meets them.
mod pipeline;

mod patch;

mod apply;

mod decode;
mod defaults;
mod meta;
mod strategy;
mod subresource;

mod admission;
mod allocate;
mod validate;

mod delete;

mod term;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use admission::{awaited_account, node_may_set_label};
pub use admitted::{Admitted, Batch, Change, Expect, Place, Write};
pub use pipeline::{Outcome, admit};
pub use ports::{Config, NoWebhooks, Operation, Ports, Reader, Review, Webhooks, storage_of};
pub use request::{Body, FieldValidation, Identified, Options, Request, User, WriteVerb};
pub use subresource::scale::scale_of;
