//! The right to act, between the one who holds the lease and those who act under it.

use std::sync::Arc;

use api::Term;
use base::Revision;
use tokio::sync::watch;

/// The lease as it is held: everything that was written in earlier terms is older than `since`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    pub term: Term,
    pub since: Revision,
}

/// Says in which term this process may act, if it may. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership(Arc<watch::Sender<Option<Tenure>>>);

// === impl Leadership ===

impl Leadership {
    pub(crate) fn new() -> Leadership {
        Leadership(Arc::new(watch::Sender::new(None)))
    }

    pub fn subscribe(&self) -> watch::Receiver<Option<Tenure>> {
        self.0.subscribe()
    }

    pub(crate) fn tenure(&self) -> Option<Tenure> {
        self.0.borrow().clone()
    }

    /// Gives a term up, of which something may still happen that nobody knows of. The lease is taken anew: then it has
    /// happened before, or it never will.
    pub(crate) fn give_up(&self, term: &Term) {
        self.0.send_if_modified(|tenure| {
            let given_up = tenure.as_ref().is_some_and(|tenure| tenure.term == *term);
            if given_up {
                *tenure = None;
            }
            given_up
        });
    }

    /// For the holder of the lease alone. False where what was just renewed was given up meanwhile.
    pub(crate) fn set(&self, wanted: Option<Tenure>, held: Option<&Tenure>) -> bool {
        let mut stands = true;
        self.0.send_if_modified(|tenure| {
            stands = wanted.is_none() || wanted.as_ref() != held || tenure.is_some();
            let changes = stands && *tenure != wanted;
            if changes {
                *tenure = wanted;
            }
            changes
        });
        stands
    }
}
