//! What several controllers share: names, operations, ownership, conditions, pods. Nothing here decides anything.

pub mod condition;
pub mod keys;
pub mod name;
pub mod node;
pub mod op;
pub mod owner;
pub mod pod;
pub mod revision;
pub mod value;
