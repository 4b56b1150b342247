//! Pod ranges: a node's part of the cluster's pod network, claimed when the node is created.

use api::Tree;
use ipnet::IpNet;
use serde_json::json;

use super::{is_free, plain_claim, plain_place};
use crate::context::{Cx, Gathered};
use crate::{Place, doc};

const STORAGE: &str = "_podranges";
/// Nodes that one range is searched for; more than anything we serve.
const SEARCH_MAX: usize = 1 << 14;

/// One range per configured network. A node that brings its own, or a full network, gets none.
pub(super) fn claim(cx: &Cx<'_>, node: &mut Tree, gathered: &mut Gathered) {
    let config = cx.ports.config;
    if !doc::text(node, "spec.podCIDR").is_empty() {
        for range in doc::items(node, "spec.podCIDRs").iter().filter_map(Tree::as_str) {
            if is_free(cx, &place(range)) {
                gathered.changes.push(plain_claim(STORAGE, &file_name(range), node));
            }
        }
        return;
    }
    let mut chosen: Vec<String> = Vec::new();
    for network in &config.pod_cidrs {
        let mask = if network.addr().is_ipv4() { config.node_mask_v4 } else { config.node_mask_v6 };
        let Some(range) = choose(cx, network, mask) else { return };
        gathered.changes.push(plain_claim(STORAGE, &file_name(&range), node));
        chosen.push(range);
    }
    if let Some(first) = chosen.first() {
        doc::set(node, "spec.podCIDR", first.as_str());
        doc::set(node, "spec.podCIDRs", json!(chosen));
    }
}

pub(super) fn places(node: &Tree) -> Vec<Place> {
    doc::items(node, "spec.podCIDRs").iter().filter_map(Tree::as_str).map(place).collect()
}

fn choose(cx: &Cx<'_>, network: &IpNet, mask: u8) -> Option<String> {
    let ranges = network.subnets(mask.max(network.prefix_len())).ok()?;
    ranges.take(SEARCH_MAX).map(|range| range.to_string()).find(|range| is_free(cx, &place(range)))
}

fn place(range: &str) -> Place {
    plain_place(STORAGE, &file_name(range))
}

/// A range as a name: names hold no slash.
fn file_name(range: &str) -> String {
    range.replace('/', "-")
}
