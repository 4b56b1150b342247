//! Scaling by a person in the middle of a rollout, or while it is paused: every set keeps its share.

use super::Rollout;
use super::set::{DESIRED, MAX};
use crate::kit::value::int;

impl Rollout<'_> {
    /// `spec.replicas` has changed since the sets were last sized.
    pub fn scaled_by_person(&self) -> bool {
        let active = self.sets.iter().filter(|set| set.replicas > 0);
        active.filter_map(|set| set.number(DESIRED)).any(|desired| desired != self.replicas)
    }

    pub fn scale(&mut self) {
        let active: Vec<usize> = (0..self.sets.len()).filter(|at| self.sets[*at].replicas > 0).collect();
        let only = match active.as_slice() {
            [] => self.current.or_else(|| self.sets.len().checked_sub(1)),
            [one] => Some(*one),
            _ => None,
        };
        if let Some(at) = only {
            self.resize(at, self.replicas);
            return;
        }
        if self.current_is_saturated() {
            let old: Vec<usize> = self.old().filter(|at| self.sets[*at].replicas > 0).collect();
            old.into_iter().for_each(|at| self.resize(at, 0));
            return;
        }
        self.scale_in_proportion(active);
    }

    fn current_is_saturated(&self) -> bool {
        let Some(set) = self.current.map(|at| &self.sets[at]) else { return false };
        let wanted = self.replicas;
        set.replicas == wanted && set.number(DESIRED) == Some(wanted) && set.count("availableReplicas") == wanted
    }

    /// The larger sets first; the newer first when growing, the older first when shrinking. Rounding goes to the first.
    fn scale_in_proportion(&mut self, mut active: Vec<usize>) {
        let allowed = if self.replicas > 0 { self.replicas + self.surge } else { 0 };
        let to_add = allowed - active.iter().map(|at| self.sets[*at].replicas).sum::<i64>();
        active.sort_by(|a, b| {
            let by_size = self.sets[*b].replicas.cmp(&self.sets[*a].replicas);
            by_size.then(if to_add > 0 { b.cmp(a) } else { a.cmp(b) })
        });
        let mut added = 0;
        let mut sizes = vec![];
        for at in &active {
            let share = self.share(*at, to_add, added);
            added += share;
            sizes.push(self.sets[*at].replicas + share);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + to_add - added).max(0);
        }
        active.into_iter().zip(sizes).for_each(|(at, size)| self.resize(at, size));
    }

    fn share(&self, at: usize, to_add: i64, added: i64) -> i64 {
        let set = &self.sets[at];
        if set.replicas == 0 || to_add == 0 || to_add == added {
            return 0;
        }
        let fraction = if self.replicas == 0 {
            -set.replicas
        } else {
            let annotated = set.number(MAX).filter(|max| *max > 0);
            let before = annotated.or_else(|| int(self.tree, "/status/replicas")).unwrap_or_default().max(1);
            let exact = set.replicas * (self.replicas + self.surge);
            (2 * exact + before).div_euclid(2 * before) - set.replicas
        };
        let allowed = to_add - added;
        if to_add > 0 { fraction.min(allowed) } else { fraction.max(allowed) }
    }

    fn resize(&mut self, at: usize, replicas: i64) {
        self.sets[at].replicas = replicas;
        self.annotate_size(at);
    }
}
