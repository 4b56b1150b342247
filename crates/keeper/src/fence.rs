//! Who may give orders: a token that only grows, held against every order on the node that would carry it out.
//!
//! A coordinator that lost its lease does not know it yet; its orders do. They carry an older token than the node has
//! seen, and are refused. So is an order of the same coordinator that was held up on its way, when the run has gone on
//! since: it carries how far the journal was.

use serde::{Deserialize, Serialize};

/// The right to coordinate, as a number: a later holder of the lease has a greater one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub u64);

/// What every order to a node carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    pub token: Token,
    pub generation: u64,
    /// Entries of the journal when it was given.
    #[serde(default)]
    pub sequence: u64,
}

/// The newest order a node has accepted. Durable on the node before the order is carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fence {
    pub token: Token,
    pub generation: u64,
    #[serde(default)]
    pub sequence: u64,
}

/// An order of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StaleOrder {
    #[error("another coordinator has taken over (token {newest:?}, this order's is {given:?})")]
    Token { given: Token, newest: Token },
    #[error("this node has accepted generation {newest}, the order is for {given}")]
    Generation { given: u64, newest: u64 },
    #[error("this order was given before entry {newest} of the journal, after entry {given}, and was held up")]
    Sequence { given: u64, newest: u64 },
}

// === impl Fence ===

impl Fence {
    /// The fence after accepting an order.
    ///
    /// # Errors
    /// When the order is older than one that was accepted before.
    pub fn accept(self, order: Order) -> Result<Fence, StaleOrder> {
        if order.token < self.token {
            return Err(StaleOrder::Token { given: order.token, newest: self.token });
        }
        if order.generation < self.generation {
            return Err(StaleOrder::Generation { given: order.generation, newest: self.generation });
        }
        let same = order.token == self.token && order.generation == self.generation;
        if same && order.sequence < self.sequence {
            return Err(StaleOrder::Sequence { given: order.sequence, newest: self.sequence });
        }
        Ok(Fence { token: order.token, generation: order.generation, sequence: order.sequence })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_coordinator_and_an_older_generation_are_refused() {
        let order = |token, generation, sequence| Order { token: Token(token), generation, sequence };
        let fence = Fence::default().accept(order(4, 7, 9)).unwrap();
        assert_eq!(fence.accept(order(3, 7, 9)), Err(StaleOrder::Token { given: Token(3), newest: Token(4) }));
        assert_eq!(fence.accept(order(5, 6, 9)), Err(StaleOrder::Generation { given: 6, newest: 7 }));
        assert_eq!(fence.accept(order(4, 7, 9)), Ok(fence), "the same again is the same");
        assert_eq!(fence.accept(order(4, 7, 8)), Err(StaleOrder::Sequence { given: 8, newest: 9 }));
        assert_eq!(fence.accept(order(4, 8, 1)).unwrap().sequence, 1, "another run begins anew");
    }
}
