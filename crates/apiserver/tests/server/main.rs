//! The server as clients see it: over TLS, with identities, on a real store.
#![allow(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]

mod behind;
mod discovery;
mod identity;
mod inputs;
mod kinds;
mod kit;
mod leaving;
mod objects;
mod refusals;
mod watches;
