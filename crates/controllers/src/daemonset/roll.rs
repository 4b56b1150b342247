//! The rolling update of a DaemonSet: old pods first go or new ones first come, within the strategy's numbers.

use super::{Set, Work, hash_of};
use crate::kit::pod::PodRef;
use crate::kit::value::{scaled, text};

impl Set<'_> {
    fn strategy(&self, name: &str) -> i64 {
        let value = self.tree.pointer(&format!("/spec/updateStrategy/rollingUpdate/{name}"));
        scaled(value, i64::try_from(self.wanted.len()).unwrap_or(i64::MAX), true)
    }

    pub(super) fn surge(&self) -> i64 {
        if text(&self.tree, "/spec/updateStrategy/type") == "OnDelete" { 0 } else { self.strategy("maxSurge") }
    }

    pub(super) fn roll(&self, work: &mut Work) {
        if text(&self.tree, "/spec/updateStrategy/type") == "OnDelete" {
            return;
        }
        if self.surge() > 0 { self.surge_in(work) } else { self.replace(work) }
    }

    /// The new and the old pod of a node, of those that live.
    fn pair(&self, node: &str) -> (Option<&PodRef>, Option<&PodRef>) {
        let live = || self.pods.get(node).into_iter().flatten().filter(|pod| !pod.finished());
        let new = live().find(|pod| hash_of(pod) == self.history.hash);
        (new, live().find(|pod| hash_of(pod) != self.history.hash))
    }

    /// Old pods go first: those that are unavailable anyway, then as many as may be missing.
    fn replace(&self, work: &mut Work) {
        let allowed = self.strategy("maxUnavailable").max(1);
        let mut missing = 0;
        let mut candidates = vec![];
        for node in &self.wanted {
            let (new, old) = self.pair(node);
            match (new, old) {
                (None, None) => missing += 1,
                (Some(new), _) => missing += i64::from(!self.available(new, work)),
                (None, Some(old)) if old.terminating() => missing += 1,
                (None, Some(old)) if !self.available(old, work) => {
                    missing += 1;
                    self.drop(old, work);
                }
                (None, Some(old)) => candidates.push(old),
            }
        }
        let spare = usize::try_from(allowed - missing).unwrap_or_default();
        candidates.into_iter().take(spare).for_each(|old| self.drop(old, work));
    }

    /// New pods come first; an old one goes once its successor is available.
    fn surge_in(&self, work: &mut Work) {
        let mut surging = 0;
        let mut candidates = vec![];
        for node in &self.wanted {
            match self.pair(node) {
                (Some(new), Some(old)) => {
                    if self.available(new, work) {
                        self.drop(old, work);
                    } else {
                        surging += 1;
                    }
                }
                (None, Some(old)) if self.available(old, work) => candidates.push(node.clone()),
                // An old pod that does not work protects nothing.
                (None, Some(old)) => {
                    self.drop(old, work);
                    candidates.insert(0, node.clone());
                }
                (_, None) => {}
            }
        }
        let room = usize::try_from(self.surge() - surging).unwrap_or_default();
        work.create.extend(candidates.into_iter().take(room));
    }

    fn drop(&self, pod: &PodRef, work: &mut Work) {
        let known = work.delete.iter().any(|other| other.object.header.uid == pod.object.header.uid);
        if !pod.terminating() && !known {
            work.delete.push(pod.clone());
        }
    }
}
