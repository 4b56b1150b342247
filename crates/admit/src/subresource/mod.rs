//! Subresources whose body is another kind.

pub(crate) mod binding;
pub(crate) mod eviction;
pub(crate) mod scale;
