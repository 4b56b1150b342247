//! Events: both groups say the same in other words.

use crate::Tree;

/// Members that the two groups name differently: core, then `events.k8s.io`.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

pub(super) fn to_new(tree: &mut Tree) {
    rename(tree, NAMES.into_iter());
}

pub(super) fn to_core(tree: &mut Tree) {
    rename(tree, NAMES.into_iter().map(|(core, new)| (new, core)));
}

fn rename(tree: &mut Tree, names: impl Iterator<Item = (&'static str, &'static str)>) {
    let Some(map) = tree.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            map.insert(to.into(), value);
        }
    }
}
