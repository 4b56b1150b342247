//! The rolling update: from the highest ordinal down to the partition, as many at once as may be unavailable.

use super::{Set, Work, revision_of};
use crate::kit::value::{scaled, text};

impl Set<'_> {
    /// Deletes pods of an old revision; `fill` makes them anew.
    pub(super) fn roll(&self, work: &mut Work) {
        if text(&self.tree, "/spec/updateStrategy/type") == "OnDelete" {
            return;
        }
        let limit = self.tree.pointer("/spec/updateStrategy/rollingUpdate/maxUnavailable");
        let allowed = if limit.is_some() { scaled(limit, self.replicas, true).max(1) } else { 1 };
        let floor = self.start + self.partition();
        let mut unavailable: i64 = 0;
        for ordinal in self.range() {
            let there = self.pods.get(&ordinal).is_some_and(|pod| self.available(pod, work));
            unavailable += i64::from(!there);
        }
        for ordinal in self.range().rev().filter(|ordinal| *ordinal >= floor) {
            let Some(pod) = self.pods.get(&ordinal) else { continue };
            if pod.terminating() {
                continue;
            }
            let outdated = revision_of(pod) != self.history.update;
            let there = self.available(pod, work);
            if outdated && (unavailable < allowed || !there) {
                self.delete(pod, work);
                unavailable += i64::from(there);
                if unavailable >= allowed {
                    return;
                }
            } else if unavailable >= allowed {
                return;
            }
        }
    }
}
