//! One layer at a time: what breaks after two changes has two possible causes.
//!
//! Who changes a layer claims it first. A claim ends with its work; one whose holder says nothing any more ends by itself.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// A claim that was not renewed for so long is nobody's.
pub const CLAIM_LASTS: SignedDuration = SignedDuration::from_mins(30);

/// What a cluster is made of, from below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Layer {
    Hardware,
    Image,
    ControlPlane,
    Network,
    Storage,
    AddOns,
    Platform,
}

/// Work on a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    pub layer: Layer,
    /// `run-7`, `replace node2`.
    pub work: String,
    pub by: String,
    pub since: Timestamp,
    /// It is held until then, unless renewed.
    pub until: Timestamp,
    /// When the work is expected to be over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Timestamp>,
}

/// Somebody is at another layer, or at other work on the same one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} works on the {} ({}) since {}{}: one layer at a time", .held.by, .held.layer, .held.work, minute(.held.since),
        expected(.held))]
pub struct Held {
    pub held: Claim,
}

// === impl Claim ===

impl Claim {
    pub fn new(layer: Layer, work: &str, by: &str, now: Timestamp) -> Claim {
        let until = now + CLAIM_LASTS;
        Claim { layer, work: work.to_owned(), by: by.to_owned(), since: now, until, expected: None }
    }

    /// The claim that is held from now on, where `current` is what was held so far.
    ///
    /// # Errors
    /// Where somebody else holds one.
    pub fn take(self, current: Option<&Claim>, now: Timestamp) -> Result<Claim, Held> {
        match current {
            Some(held) if held.work == self.work && held.layer == self.layer => {
                Ok(Claim { since: held.since, by: held.by.clone(), until: now + CLAIM_LASTS, ..self })
            }
            Some(held) if now < held.until => Err(Held { held: held.clone() }),
            _ => Ok(self),
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layer::Hardware => "hardware",
            Layer::Image => "system image",
            Layer::ControlPlane => "control plane",
            Layer::Network => "network",
            Layer::Storage => "storage",
            Layer::AddOns => "add-ons",
            Layer::Platform => "workload platform",
        })
    }
}

fn minute(at: Timestamp) -> impl fmt::Display {
    at.strftime("%Y-%m-%d %H:%MZ")
}

fn expected(held: &Claim) -> String {
    held.expected.map(|at| format!(", expected to end at {}", at.strftime("%H:%MZ"))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
    }

    #[test]
    fn one_layer_at_a_time() {
        let run = Claim::new(Layer::ControlPlane, "run-7", "anna", at(0));
        let held = Claim { expected: Some(at(12)), ..run.clone() };
        let replace = || Claim::new(Layer::Hardware, "replace node2", "ben", at(3));
        assert_eq!(replace().take(None, at(3)), Ok(replace()));
        let said = replace().take(Some(&held), at(3)).unwrap_err().to_string();
        let wanted = "anna works on the control plane (run-7) since 1970-01-01 00:00Z, expected to end at 00:12Z: one layer \
                      at a time";
        assert_eq!(said, wanted);
        let other = Claim::new(Layer::ControlPlane, "run-8", "ben", at(3));
        assert!(other.take(Some(&run), at(3)).is_err(), "nor two works on one layer");
    }

    #[test]
    fn a_claim_is_renewed_by_its_work_and_ends_without() {
        let run = || Claim::new(Layer::ControlPlane, "run-7", "anna", at(0));
        let renewed = Claim { by: "ben".to_owned(), ..run() }.take(Some(&run()), at(20)).unwrap();
        assert_eq!((renewed.by.as_str(), renewed.since, renewed.until), ("anna", at(0), at(50)));
        let other = || Claim::new(Layer::Network, "apply", "ben", at(31));
        assert!(other().take(Some(&run()), at(31)).is_ok(), "nobody renewed it");
        assert!(other().take(Some(&renewed), at(31)).is_err());
    }
}
