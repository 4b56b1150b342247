//! The copies of the cluster's state, and whether one of them may be away for a while.

use base::SmolStr;

use crate::generation::NodeName;

/// Entries that a copy may be behind the furthest one and still count as one that follows.
const BEHIND_ENTRIES_MAX: u64 = 5000;
/// Hundredths of its quota that a store may use before it is changed.
const USED_PERCENT_MAX: u64 = 50;

/// One server's copy, by its own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Of the server; a copy is named as its node is.
    pub node: NodeName,
    /// It only learns: it does not count for a majority.
    pub learner: bool,
    /// What it says of itself; None where it does not answer.
    pub state: Option<ReplicaState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaState {
    /// It knows a leader, which it then follows or is.
    pub led: bool,
    /// Place in the log that it has applied.
    pub applied: u64,
    pub used_bytes: u64,
}

/// All copies. Empty where the state is one file, or somebody else's etcd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    pub replicas: Vec<Replica>,
    /// The size at which a copy takes no more writes.
    pub quota_bytes: u64,
    /// What the store itself raised, as a sentence.
    pub alarm: Option<SmolStr>,
}

// === impl Replica ===

impl Replica {
    fn is_well(&self) -> bool {
        self.state.is_some_and(|state| state.led)
    }
}

// === impl Copies ===

impl Copies {
    /// All copies are well and equal: the state that a server may be taken away from on purpose.
    ///
    /// # Errors
    /// With what is not so, as a sentence.
    pub fn all_well(&self) -> Result<(), String> {
        if let Some(ill) = self.replicas.iter().find(|replica| !replica.is_well()) {
            let how = if ill.state.is_some() { "knows no leader" } else { "does not answer" };
            return Err(format!("the copy of the state on {} {how}", ill.node.0));
        }
        if let Some(learner) = self.replicas.iter().find(|replica| replica.learner) {
            return Err(format!("the copy of the state on {} is still being made", learner.node.0));
        }
        let applied = |replica: &Replica| replica.state.map(|state| state.applied).unwrap_or_default();
        let furthest = self.replicas.iter().map(applied).max().unwrap_or_default();
        let behind = self.replicas.iter().find(|replica| BEHIND_ENTRIES_MAX < furthest - applied(replica));
        if let Some(behind) = behind {
            let entries = furthest - applied(behind);
            return Err(format!("the copy of the state on {} is {entries} entries behind", behind.node.0));
        }
        self.alarm.as_ref().map_or(Ok(()), |alarm| Err(alarm.to_string()))
    }

    /// The state stays writable without this server's copy.
    ///
    /// # Errors
    /// With the count, as a sentence.
    pub fn spares(&self, node: &NodeName) -> Result<(), String> {
        let voters: Vec<&Replica> = self.replicas.iter().filter(|replica| !replica.learner).collect();
        let needed = voters.len() / 2 + 1;
        let stay = voters.iter().filter(|replica| replica.node != *node && replica.is_well()).count();
        // One copy is never redundant: its restart is what its people chose.
        if voters.len() < 2 || voters.iter().all(|replica| replica.node != *node) || needed <= stay {
            return Ok(());
        }
        let all = voters.len();
        Err(format!("without {} only {stay} of {all} copies of the state would be left, and {needed} must be", node.0))
    }

    /// Says so where the store is too full to be changed.
    pub fn too_full(&self) -> Option<String> {
        let used = |replica: &Replica| replica.state.map(|state| state.used_bytes);
        let fullest = self.replicas.iter().filter_map(used).max()?;
        let percent = fullest.saturating_mul(100).checked_div(self.quota_bytes)?;
        (USED_PERCENT_MAX < percent).then(|| {
            format!("the store is {percent} % full, and a change needs room: at most {USED_PERCENT_MAX} % before one")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a` well, `a-` silent, `a?` without a leader, `a+` learning, `a<` far behind.
    fn copies(text: &str) -> Copies {
        let replica = |word: &str| {
            let (name, sign) = word.split_at(1);
            let applied = if sign == "<" { 10 } else { 90_000 };
            let state = ReplicaState { led: sign != "?", applied, used_bytes: 60 };
            let state = (sign != "-").then_some(state);
            Replica { node: NodeName(name.into()), learner: sign == "+", state }
        };
        Copies { replicas: text.split(' ').map(replica).collect(), quota_bytes: 100, alarm: None }
    }

    fn spares(text: &str, node: &str) -> bool {
        copies(text).spares(&NodeName(node.into())).is_ok()
    }

    #[test]
    fn no_server_goes_where_too_few_copies_would_be_left() {
        assert!(spares("a b c", "a") && spares("a- b c", "a") && spares("a b c", "an agent"));
        assert!(!spares("a b- c", "a") && !spares("a b? c", "c") && !spares("a b c+", "a"));
        assert!(spares("a", "a"), "the only one is never redundant");
        let said = copies("a b- c").spares(&NodeName("a".into())).unwrap_err();
        assert_eq!(said, "without a only 1 of 3 copies of the state would be left, and 2 must be");
    }

    #[test]
    fn what_is_not_well_is_named() {
        let said = |text: &str| copies(text).all_well().unwrap_err();
        assert_eq!(copies("a b c").all_well(), Ok(()));
        assert_eq!(Copies::default().all_well(), Ok(()));
        assert_eq!(said("a b- c"), "the copy of the state on b does not answer");
        assert_eq!(said("a b? c"), "the copy of the state on b knows no leader");
        assert_eq!(said("a b c+"), "the copy of the state on c is still being made");
        assert_eq!(said("a b c<"), "the copy of the state on c is 89990 entries behind");
        let alarm = Copies { alarm: Some("the store raised an alarm".into()), ..copies("a b c") };
        assert_eq!(alarm.all_well().unwrap_err(), "the store raised an alarm");
    }

    #[test]
    fn a_store_that_is_half_full_is_not_changed() {
        assert!(copies("a b c").too_full().unwrap().contains("60 % full"));
        assert_eq!(Copies { quota_bytes: 200, ..copies("a b c") }.too_full(), None);
        assert_eq!(Copies::default().too_full(), None);
    }
}
