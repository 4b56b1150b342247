//! Nodes: whether they are alive, what that means for their pods, and which pod range they have.

pub mod cidr;
pub mod eviction;
pub mod lifecycle;
pub mod lost;

#[cfg(test)]
mod tests;
