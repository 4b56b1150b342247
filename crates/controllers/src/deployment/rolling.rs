//! The rolling update: grow the new set within the surge, shrink the old ones within what may be unavailable.

use super::Rollout;

impl Rollout<'_> {
    /// Pods that the new set may have while the old ones still have theirs.
    pub fn new_set_replicas(&self) -> i64 {
        let now = self.current.map_or(0, |at| self.sets[at].replicas);
        let total: i64 = self.sets.iter().map(|set| set.replicas).sum();
        let room = self.replicas + self.surge - total;
        if room <= 0 { now } else { now + room.min(self.replicas - now) }
    }

    /// True where the new set changes its size in this plan: the old ones then wait for its pods.
    pub fn grow_new(&mut self) -> bool {
        let Some(at) = self.current else { return false };
        let before = self.sets[at].replicas;
        let wanted = if before > self.replicas { self.replicas } else { self.new_set_replicas() };
        if wanted != before || self.sets[at].number(super::set::DESIRED) != Some(self.replicas) {
            self.sets[at].replicas = wanted;
            self.annotate_size(at);
        }
        wanted != before
    }

    /// Takes pods from the old sets: first those that are not available anyway, then as many as may be missing.
    pub fn shrink_old(&mut self) {
        let Some(new) = self.current else { return };
        let old_total: i64 = self.old().map(|at| self.sets[at].replicas).sum();
        if old_total == 0 {
            return;
        }
        let total = old_total + self.sets[new].replicas;
        let new_unavailable = self.sets[new].replicas - self.sets[new].count("availableReplicas");
        let available_min = self.replicas - self.unavailable;
        let mut budget = total - available_min - new_unavailable;
        if budget <= 0 {
            return;
        }
        for at in self.old() {
            let set = &mut self.sets[at];
            let unhealthy = (set.replicas - set.count("availableReplicas")).clamp(0, budget);
            set.replicas -= unhealthy;
            budget -= unhealthy;
        }
        let available: i64 = self.sets.iter().map(|set| set.count("availableReplicas")).sum();
        let mut spare = available - available_min;
        for at in self.old() {
            let step = self.sets[at].replicas.min(spare).max(0);
            self.sets[at].replicas -= step;
            spare -= step;
            if self.sets[at].replicas != self.sets[at].spec_replicas() {
                self.annotate_size(at);
            }
        }
    }
}
