//! What a loop decides: operations on the API, in ordered steps.
//!
//! A typed struct is never written back: it would drop fields it does not know. Operations are creations, patches and
//! deletions, each safe to repeat: child names derive from their owner, patches carry preconditions.

use base::{Revision, SmolStr};
use jiff::Timestamp;

use crate::{Gvr, Key, Tree};

/// One operation on one object, or one event to record.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `AlreadyExists` counts as done: the name is derived, so the object is ours from an earlier, unanswered try.
    Create {
        gvr: Gvr,
        namespace: SmolStr,
        object: Tree,
    },
    Patch {
        gvr: Gvr,
        key: Key,
        subresource: Option<SmolStr>,
        patch: PatchType,
        body: Tree,
        when: Preconditions,
    },
    /// `NotFound` counts as done, and so does a failed `uid` precondition.
    Delete {
        gvr: Gvr,
        key: Key,
        when: Preconditions,
        propagation: Option<Propagation>,
        grace_seconds: Option<i64>,
    },
    /// POST of a body to a subresource: `binding`, `eviction`.
    Post {
        gvr: Gvr,
        key: Key,
        subresource: SmolStr,
        body: Tree,
    },
    /// PUT of a whole object to a subresource that only takes updates: `finalize`. The body carries its revision.
    Put {
        gvr: Gvr,
        key: Key,
        subresource: SmolStr,
        body: Tree,
    },
    /// An `Event` about an object. The driver deduplicates; never blocks a plan and never fails it.
    Event {
        regarding: Regarding,
        warning: bool,
        reason: SmolStr,
        message: String,
    },
}

/// The object an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Regarding {
    pub api_version: SmolStr,
    pub kind: SmolStr,
    pub key: Key,
    pub uid: SmolStr,
    /// `spec.containers{name}`, or empty.
    pub field_path: SmolStr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    Json,
    Merge,
    Strategic,
    /// Server-side apply, forced or not.
    Apply {
        force: bool,
    },
}

/// Sent with the operation and checked at commit. For a patch they travel in `metadata` of the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    pub uid: Option<SmolStr>,
    pub revision: Option<Revision>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// What to do now and when to look again. Operations of one step run in parallel (slow start); a later step runs only
/// when every operation of the earlier one held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Vec<Op>>,
    pub look_again_at: Option<Timestamp>,
}

// === impl PatchType ===

impl PatchType {
    /// The request's `Content-Type`.
    pub fn media_type(self) -> &'static str {
        match self {
            PatchType::Json => "application/json-patch+json",
            PatchType::Merge => "application/merge-patch+json",
            PatchType::Strategic => "application/strategic-merge-patch+json",
            PatchType::Apply { .. } => "application/apply-patch+yaml",
        }
    }
}

// === impl Propagation ===

impl Propagation {
    pub fn as_str(self) -> &'static str {
        match self {
            Propagation::Orphan => "Orphan",
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
        }
    }

    pub fn parse(word: &str) -> Option<Propagation> {
        [Propagation::Orphan, Propagation::Background, Propagation::Foreground].into_iter().find(|p| p.as_str() == word)
    }
}

// === impl Plan ===

impl Plan {
    /// Nothing to do: the goal is reached as far as this snapshot shows.
    pub const NOTHING: Plan = Plan { steps: Vec::new(), look_again_at: None };

    pub fn step(ops: Vec<Op>) -> Plan {
        Plan { steps: vec![ops], look_again_at: None }.trimmed()
    }

    /// Adds operations that run after everything planned so far.
    #[must_use]
    pub fn then(mut self, ops: Vec<Op>) -> Plan {
        self.steps.push(ops);
        self.trimmed()
    }

    /// Looks again at the earlier of the two times.
    #[must_use]
    pub fn again_at(mut self, at: Timestamp) -> Plan {
        self.look_again_at = Some(self.look_again_at.map_or(at, |earlier| earlier.min(at)));
        self
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    fn trimmed(mut self) -> Plan {
        self.steps.retain(|step| !step.is_empty());
        self
    }
}
