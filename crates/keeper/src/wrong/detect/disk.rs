//! Disks, as the machine that has them sees them.

use jiff::Timestamp;

use super::Detector;
use crate::wrong::fact::{Facts, What, Write};
use crate::wrong::finding::Finding;
use crate::wrong::table::disk::{DISK_FAILING, DISK_FULL, DISK_HANG, DISK_READONLY, INODES_FULL, STORE_SLOW_DISK};
use crate::wrong::words::bytes;

pub const ALL: [Detector; 3] = [space, inodes, write];

/// Below this share of a disk, or of its inodes, a person is called: in percent.
const FREE_PERCENT_MIN: u64 = 5;
/// However small the share, this much room is no trouble.
const FREE_BYTES_ENOUGH: u64 = 4 << 30;
/// A flushed write that takes longer makes every change slow.
const WRITE_MILLIS_MAX: u64 = 150;

fn space(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact| match what(fact) {
        (What::Disk { path, total, free, .. }, node)
            if short(*free, *total) && *free < FREE_BYTES_ENOUGH && !is_full(facts, node, path) =>
        {
            let left = format!("{} ({} %)", bytes(*free), percent(*free, *total));
            let words = format!("{node}: {} of {} free on {path}", bytes(*free), bytes(*total));
            Some(Finding::of_node(&DISK_FULL, node).with("free", left).with("path", path).seen(fact, words))
        }
        _ => None,
    };
    facts.own().filter_map(find).collect()
}

fn inodes(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact| match what(fact) {
        (What::Disk { path, inodes, inodes_free, .. }, node) if short(*inodes_free, *inodes) => {
            let words = format!("{node}: {inodes_free} of {inodes} inodes free on {path}");
            let finding = Finding::of_node(&INODES_FULL, node).with("free", inodes_free).with("path", path);
            Some(finding.seen(fact, words))
        }
        _ => None,
    };
    facts.own().filter_map(find).collect()
}

fn write(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact| {
        let (What::DiskWrite { path, write }, node) = what(fact) else { return None };
        let found = |code, words: String| Some(Finding::of_node(code, node).with("path", path).seen(fact, words));
        match write {
            Write::Took { millis } if WRITE_MILLIS_MAX <= *millis => {
                let finding = found(&STORE_SLOW_DISK, format!("{node}: a flushed write to {path} took {millis} ms"));
                finding.map(|finding| finding.with("millis", millis))
            }
            Write::Took { .. } => None,
            Write::Hangs => found(&DISK_HANG, format!("{node}: a write to {path} does not come back")),
            Write::Full => {
                let finding = found(&DISK_FULL, format!("{node}: a write to {path} was refused: no space"));
                finding.map(|finding| finding.with("free", "nothing"))
            }
            Write::ReadOnly => found(&DISK_READONLY, format!("{node}: a write to {path} was refused: read-only")),
            Write::Failed { why } => {
                let finding = found(&DISK_FAILING, format!("{node}: a write to {path} failed: {why}"));
                finding.map(|finding| finding.with("why", why))
            }
        }
    };
    facts.own().filter_map(find).collect()
}

fn what(fact: &crate::wrong::fact::Fact) -> (&What, &str) {
    (&fact.what, &fact.about)
}

fn short(free: u64, total: u64) -> bool {
    // A file system without a number of its own, as overlays are, says 0.
    0 < total && free.saturating_mul(100) < total.saturating_mul(FREE_PERCENT_MIN)
}

fn percent(part: u64, whole: u64) -> u64 {
    part.saturating_mul(100).checked_div(whole).unwrap_or_default()
}

/// A write to the same disk was refused: that says more than its fill.
fn is_full(facts: &Facts, node: &str, of: &str) -> bool {
    facts.own().any(|fact| {
        fact.about == node && matches!(&fact.what, What::DiskWrite { path, write: Write::Full } if path == of)
    })
}
