//! What somebody changed by hand: one finding for a node and a kind of thing.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Detector;
use crate::drift::Kind;
use crate::wrong::code::Code;
use crate::wrong::fact::{Fact, Facts, What};
use crate::wrong::finding::Finding;
use crate::wrong::table::drift::{
    DRIFT_CERTIFICATE, DRIFT_FILE, DRIFT_FIREWALL, DRIFT_MANIFEST, DRIFT_SYSCTL, DRIFT_UNIT,
};
use crate::wrong::words::ago;

pub const ALL: [Detector; 1] = [drift];

/// A difference as a node tells it: since when, what, who was there.
type Told<'a> = (Timestamp, &'a str, &'a str);

fn drift(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    // A node's own word and its record's are the same word.
    let mut found: BTreeMap<(&str, Kind), BTreeMap<Told<'_>, &Fact>> = BTreeMap::new();
    for fact in &facts.facts {
        if let What::Drift { of, what, first, who } = &fact.what {
            found.entry((&fact.about, *of)).or_default().insert((*first, what, who), fact);
        }
    }
    found.into_iter().filter_map(|((node, kind), told)| finding(node, kind, &told, now)).collect()
}

fn finding(node: &str, kind: Kind, told: &BTreeMap<Told<'_>, &Fact>, now: Timestamp) -> Option<Finding> {
    let ((first, what, who), fact) = told.first_key_value()?;
    let more = match told.len() - 1 {
        0 => String::new(),
        more => format!("; {more} more"),
    };
    let finding = Finding::of_node(code(kind), node).with("what", what).with("who", who).with("more", more);
    let finding = finding.with("ago", ago(*first, now)).since(Some(*first)).act();
    Some(finding.seen(fact, format!("{node}: {what}")))
}

fn code(kind: Kind) -> &'static Code {
    match kind {
        Kind::Certificate => &DRIFT_CERTIFICATE,
        Kind::File => &DRIFT_FILE,
        Kind::Firewall => &DRIFT_FIREWALL,
        Kind::Manifest => &DRIFT_MANIFEST,
        Kind::Sysctl => &DRIFT_SYSCTL,
        Kind::Unit => &DRIFT_UNIT,
    }
}
