//! Detectors: each looks for one kind of trouble among the facts. Small, pure, and without an order between them.

mod disk;
mod drift;
mod network;
mod node;
mod people;
mod reach;
mod store;
mod time;
mod workload;

pub use store::Voters;

use jiff::Timestamp;

use super::fact::Facts;
use super::finding::Finding;

type Detector = fn(&Facts, Timestamp) -> Vec<Finding>;

const ALL: [&[Detector]; 9] = [
    &disk::ALL,
    &network::ALL,
    &reach::ALL,
    &node::ALL,
    &store::ALL,
    &time::ALL,
    &workload::ALL,
    &people::ALL,
    &drift::ALL,
];

/// Everything that is found, explained or not.
pub fn all(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    ALL.iter().flat_map(|area| area.iter()).flat_map(|detect| detect(facts, now)).collect()
}
