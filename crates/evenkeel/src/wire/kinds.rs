//! Follows every kind that is served, as CRDs come and go: the garbage collector reads all owners.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::{Gvr, Registry};
use arc_swap::ArcSwap;
use controllers::Ctx;
use view::{Drain, View};

use super::controllers::header_only;

/// How often the registry is looked at. It is a pointer comparison.
const LOOK: Duration = Duration::from_millis(500);

/// Keeps a view's streams equal to the registry.
pub struct Kinds {
    view: View,
    registry: Arc<dyn Fn() -> Arc<Registry> + Send + Sync>,
    /// Followed whether or not every kind is: controllers name them.
    named: BTreeSet<Gvr>,
    context: Mutex<Option<Arc<ArcSwap<Ctx>>>>,
}

impl Kinds {
    pub fn new(view: View, registry: Arc<dyn Fn() -> Arc<Registry> + Send + Sync>, named: BTreeSet<Gvr>) -> Kinds {
        Kinds { view, registry, named, context: Mutex::new(None) }
    }

    /// Where the registry goes when it changes.
    pub fn keep(&self, context: Arc<ArcSwap<Ctx>>) {
        *self.context.lock().expect("no holder of this lock panics") = Some(context);
    }

    pub fn follow(&self, registry: &Registry) {
        let wanted: BTreeSet<Gvr> = controllers::every_kind(registry).iter().map(|kind| kind.gvr()).collect();
        for gvr in &wanted {
            let (watched, form) = header_only(gvr.clone());
            self.view.follow(watched, form);
        }
        for gvr in self.view.followed() {
            if !wanted.contains(&gvr) && !self.named.contains(&gvr) {
                self.view.unfollow(&gvr);
            }
        }
    }

    pub async fn run(self, drain: Drain) {
        let mut known = (self.registry)();
        loop {
            tokio::select! { biased;
                () = drain.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let now = (self.registry)();
            if Arc::ptr_eq(&known, &now) {
                continue;
            }
            self.follow(&now);
            if let Some(context) = &*self.context.lock().expect("no holder of this lock panics") {
                context.rcu(|ctx| Ctx { registry: now.clone(), ..Ctx::clone(ctx) });
            }
            known = now;
        }
    }
}
