//! A term: one holder's time with a `Lease`. What was decided in a term is done in it, or not at all.

use std::fmt;
use std::str::FromStr;

use base::SmolStr;

use crate::{Key, Tree};

/// Header of a write that holds only in a term.
pub const TERM_HEADER: &str = "x-evenkeel-term";
/// Cause, in the `Status` of a write, that its term is over.
pub const TERM_OVER: &str = "LeaseTermOver";

/// One term of one lease. No two are the same: each taking of the lease counts `spec.leaseTransitions` on, and a lease
/// that was made anew has another uid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub lease: Key,
    pub uid: SmolStr,
    pub transitions: u64,
    pub holder: SmolStr,
}

/// A text that names no term.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} names no term: it reads NAMESPACE/LEASE UID TRANSITIONS HOLDER")]
pub struct TermError {
    text: String,
}

// === impl Term ===

impl Term {
    /// The term that a `Lease` is in; `None` while nobody holds it.
    pub fn of(lease: &Tree) -> Option<Term> {
        let text = |part: &Tree| part.as_str().filter(|text| !text.is_empty()).map(SmolStr::from);
        let (metadata, spec) = (&lease["metadata"], &lease["spec"]);
        Some(Term {
            lease: Key::new(metadata["namespace"].as_str()?, metadata["name"].as_str()?),
            uid: text(&metadata["uid"])?,
            transitions: spec["leaseTransitions"].as_u64().unwrap_or_default(),
            holder: text(&spec["holderIdentity"])?,
        })
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { namespace, name } = &self.lease;
        write!(f, "{namespace}/{name} {} {} {}", self.uid, self.transitions, self.holder)
    }
}

impl FromStr for Term {
    type Err = TermError;

    fn from_str(text: &str) -> Result<Term, TermError> {
        let parsed = || {
            let mut words = text.splitn(4, ' ');
            let (namespace, name) = words.next()?.split_once('/')?;
            let (uid, transitions, holder) = (words.next()?, words.next()?, words.next()?);
            let transitions = transitions.parse().ok()?;
            Some(Term { lease: Key::new(namespace, name), uid: uid.into(), transitions, holder: holder.into() })
        };
        parsed().ok_or_else(|| TermError { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::Term;
    use serde_json::json;

    #[test]
    fn a_term_survives_its_header_and_a_free_lease_has_none() {
        let lease = |holder: &str| {
            json!({
                "metadata": {"namespace": "kube-system", "name": "loops", "uid": "7f"},
                "spec": {"holderIdentity": holder, "leaseTransitions": 3},
            })
        };
        let term = Term::of(&lease("server one")).unwrap();
        assert_eq!(term.to_string(), "kube-system/loops 7f 3 server one");
        assert_eq!(term.to_string().parse::<Term>().unwrap(), term);
        assert_eq!(Term::of(&lease("")), None);
        assert!("kube-system/loops 7f three me".parse::<Term>().is_err());
    }
}
