//! Whether a loop may act now: its process leads, and its view shows all that earlier terms have left.

use api::{Gvr, Term};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use view::{Client, View};

use crate::leadership::{Leadership, Tenure};

/// One loop's right to act.
pub(crate) struct Office {
    /// `None`: a loop that needs no lease.
    told: Option<watch::Receiver<Option<Tenure>>>,
    client: Client,
    view: View,
    reads: Vec<Gvr>,
    state: State,
}

enum State {
    Out,
    /// Leading, and not yet up to date: what an earlier leader made last may not be seen here yet.
    Entering(BoxFuture<'static, Warrant>),
    In(Warrant),
}

/// With what to act.
#[derive(Clone)]
pub(crate) struct Warrant {
    pub(crate) client: Client,
    pub(crate) term: Option<Term>,
}

// === impl Office ===

impl Office {
    pub(crate) fn new(leadership: Option<&Leadership>, client: Client, view: View, reads: Vec<Gvr>) -> Office {
        let told = leadership.map(Leadership::subscribe);
        let state = match &told {
            None => State::In(Warrant { client: client.clone(), term: None }),
            Some(_) => State::Out,
        };
        let mut office = Office { told, client, view, reads, state };
        office.look();
        office
    }

    /// With what to act, where that is allowed now.
    pub(crate) fn warrant(&self) -> Option<&Warrant> {
        match &self.state {
            State::In(warrant) => Some(warrant),
            State::Out | State::Entering(_) => None,
        }
    }

    /// Returns when the answer may be another. Safe to cancel.
    pub(crate) async fn changed(&mut self) {
        let Some(told) = &mut self.told else { return std::future::pending().await };
        let entered = match &mut self.state {
            State::Entering(entering) => entering.left_future(),
            State::Out | State::In(_) => std::future::pending().right_future(),
        };
        tokio::select! { biased;
            Ok(()) = told.changed() => self.look(),
            warrant = entered => self.state = State::In(warrant),
        }
    }

    fn look(&mut self) {
        let Some(told) = &mut self.told else { return };
        let tenure = told.borrow_and_update().clone();
        self.state = match tenure {
            None => State::Out,
            Some(Tenure { term, since }) => {
                let (view, reads) = (self.view.clone(), self.reads.clone());
                let warrant = Warrant { client: self.client.in_term(&term), term: Some(term) };
                State::Entering(async move { view.catch_up(&reads, since).await }.map(|_| warrant).boxed())
            }
        };
    }
}
