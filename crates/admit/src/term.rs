//! Writes that hold only in a term: while the requester has its lease as it had when it decided.

use api::term::TERM_OVER;
use api::{Cause, Reason, Status, Term};

use crate::context::{Cx, place_of};
use crate::{Change, Expect, Write};

/// What must be unchanged when the write happens; `None` for a requester without a term.
///
/// # Errors
/// 409 where the term is over.
pub(crate) fn guard(cx: &Cx<'_>) -> Result<Option<Change>, Status> {
    let Some(term) = &cx.request.options.term else { return Ok(None) };
    let place = place_of("coordination.k8s.io", "leases", &term.lease.namespace, &term.lease.name);
    let lease = cx.ports.reader.get(&place);
    let lease = lease.filter(|lease| Term::of(&lease.tree()).as_ref() == Some(term)).ok_or_else(|| over(term))?;
    Ok(Some(Change { place, expect: Expect::At(lease.revision), write: Write::Keep }))
}

fn over(term: &Term) -> Status {
    let message =
        format!("nothing was written: {} has lost the lease {} since it decided this", term.holder, term.lease);
    let mut status = Status::new(Reason::Conflict, message.clone());
    let cause = Cause { reason: TERM_OVER.to_owned(), message, field: String::new() };
    status.details.get_or_insert_default().causes.push(cause);
    status
}
