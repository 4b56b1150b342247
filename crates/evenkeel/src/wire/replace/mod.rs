//! What putting a new machine in a node's place is made of: who is there to decide it, whether the old machine is off, what
//! is kept of the old node, and how long each part took.
//!
//! Everything that is under way is an object of the cluster, so that any server goes on where another stopped.

mod card;
mod fence;
mod kept;
mod rack;

pub use card::{Card, store};
pub use fence::{FencePath, Sighting, sightings};
pub use kept::Kept;
pub use rack::{Rack, Workloads, last_word, node, ready};
