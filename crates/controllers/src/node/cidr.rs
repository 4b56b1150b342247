//! Each node's range of pod addresses, one per family, out of the cluster's.

use std::collections::BTreeSet;

use api::snapshot::gvr_of;
use api::{Gvr, Key, Object, Plan, Snapshot};
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use crate::kit::value::{list, text, words};
use crate::kit::{keys, op};
use crate::{Config, Controller, Ctx, Watch};

pub fn controller() -> Controller {
    Controller {
        name: "node-ipam",
        component: "cidrAllocator",
        watches: vec![Watch { gvr: gvr_of::<Node>(), indexes: vec![] }],
        every_kind: false,
        enqueue,
        plan,
        // Ranges must not be given twice: one key, one plan at a time.
        workers: 1,
    }
}

fn enqueue(_: &Gvr, old: Option<&Object>, new: Option<&Object>, _: &Snapshot) -> Vec<Key> {
    let lacks = new.is_some_and(|node| old.is_none() && text(&node.tree(), "/spec/podCIDR").is_empty());
    if lacks || new.is_none() { keys::single() } else { vec![] }
}

fn plan(ctx: &Ctx, snapshot: &Snapshot, _: &Key, _: Timestamp) -> Plan {
    let nodes = snapshot.of::<Node>();
    let mut used: BTreeSet<IpNet> = BTreeSet::new();
    let mut lacking = vec![];
    for node in nodes.iter() {
        let tree = node.tree();
        let mut given = words(list(&tree, "/spec/podCIDRs"));
        given.extend(Some(text(&tree, "/spec/podCIDR").into()).filter(|text: &base::SmolStr| !text.is_empty()));
        if given.is_empty() && node.header.deletion.is_none() {
            lacking.push(node.clone());
        }
        used.extend(given.iter().filter_map(|range| range.parse::<IpNet>().ok()));
    }
    let mut ops = vec![];
    for node in lacking {
        match allocate(&ctx.config, &used) {
            Some(ranges) if !ranges.is_empty() => {
                let body = json!({"spec": {"podCIDR": ranges[0], "podCIDRs": ranges}});
                used.extend(ranges);
                ops.push(op::merge_if_unchanged(&gvr_of::<Node>(), &node, body));
            }
            Some(_) => {}
            None => {
                let message = format!("Node {} status is now: CIDRNotAvailable", node.key.name);
                ops.push(op::event::<Node>(&node, "CIDRNotAvailable", message));
            }
        }
    }
    Plan::step(ops)
}

/// The lowest free range of each of the cluster's; None where one is used up.
fn allocate(config: &Config, used: &BTreeSet<IpNet>) -> Option<Vec<IpNet>> {
    let mut ranges = vec![];
    for cluster in config.cluster_cidrs.iter().filter_map(|range| range.parse::<IpNet>().ok()) {
        let mask = match cluster {
            IpNet::V4(_) => config.node_mask_v4,
            IpNet::V6(_) => config.node_mask_v6,
        };
        let mask = mask.max(cluster.prefix_len());
        let overlaps = |range: &IpNet| used.iter().any(|taken| taken.contains(range) || range.contains(taken));
        ranges.push(cluster.subnets(mask).ok()?.find(|range| !overlaps(range))?);
    }
    Some(ranges)
}
