//! Everything between a decoded request and a fact: the ordered stages of a write, and the only maker of [`Admitted`].
//!
//! One path for every kind, verb and media type. Each pure stage is a synchronous function over trees and schemas; what
//! needs the world (reads, webhooks, time, randomness) comes in through ports. Knows no HTTP and no engine.

mod admitted;
mod request;

pub use admitted::{Admitted, Batch, Change, Expect, Place, Write};
pub use request::{Body, Identified, Options, Request, User, WriteVerb};
