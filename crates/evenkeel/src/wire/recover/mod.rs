//! A cluster whose servers are lost for good: one survivor goes on alone with what it has, or an empty machine with what a
//! bundle has.
//!
//! What was decided is noted on the disk before anything changes, and taken back when all of it is done: whatever
//! interrupts it, the next start goes on from there.

mod assess;
pub mod consent;
mod copy;
mod finish;
mod forced;
mod note;
mod perform;

pub use assess::{Assessment, Found, assess};
pub use finish::finish;
pub use note::{Note, asked, note_restored};
pub use perform::take_up;

use anyhow::{Context, Result};
use base::Clock;
use std::sync::Arc;

use super::SystemClock;
use super::etcd::{self, Managed};
use crate::layout::Layout;
use crate::pki::{ServerPki, leaf};

/// What this machine's member is made of, as its own files say: the server's flags are not at hand.
pub fn settings(layout: &Layout) -> Result<etcd::Settings> {
    let (name, address) = Managed::identity(layout)?.context(
        "this server has no etcd of its own: there is no quorum to recover. A state in a file needs none; a lost one comes \
         back from a bundle (`evenkeel restore`)",
    )?;
    let pki = ServerPki::load_or_make(layout, leaf::LEAF_LIFE, SystemClock.now()).context("read the authorities")?;
    Ok(etcd::Settings {
        layout: layout.clone(),
        name,
        addresses: vec![address],
        pki: Arc::new(pki),
        arguments: Vec::new(),
    })
}
