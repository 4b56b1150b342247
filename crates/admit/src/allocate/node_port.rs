//! Node ports: one number of the cluster's range, open on every node.

use std::collections::BTreeSet;

use api::Tree;

use super::{is_free, plain_claim, plain_place};
use crate::context::Cx;
use crate::{Change, Place};

/// Where claims of node ports are kept; no kind serves it.
pub(crate) const STORAGE: &str = "_nodeports";
const TRIES_MAX: usize = 64;

pub(super) fn place(port: u16) -> Place {
    plain_place(STORAGE, &port.to_string())
}

pub(super) fn claim(port: u16, service: &Tree) -> Change {
    plain_claim(STORAGE, &port.to_string(), service)
}

/// Why a port that somebody chose cannot be had.
pub(super) fn refusal(cx: &Cx<'_>, port: u16) -> Option<String> {
    let range = &cx.ports.config.node_ports;
    if !range.contains(&port) {
        let (low, high) = (range.start(), range.end());
        return Some(format!("provided port is not in the valid range. The range of valid ports is {low}-{high}"));
    }
    (!is_free(cx, &place(port))).then(|| "provided port is already allocated".to_owned())
}

pub(super) fn choose(cx: &Cx<'_>, taken: &BTreeSet<u16>) -> Option<u16> {
    let range = &cx.ports.config.node_ports;
    let (low, high) = (*range.start(), *range.end());
    let free = |port: &u16| !taken.contains(port) && is_free(cx, &place(*port));
    let size = u64::from(high.checked_sub(low)?) + 1;
    let random = || low + u16::try_from(cx.ports.rng.next_u64() % size).unwrap_or_default();
    (0..TRIES_MAX).map(|_| random()).find(free).or_else(|| range.clone().find(free))
}
