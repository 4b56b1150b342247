//! Resource quantities: `250m`, `1.5Gi`, `1e3`. Exact decimal arithmetic in nano units, canonical text.

/// A parsed quantity (`apimachinery/pkg/api/resource`), kept exactly in units of 10^-9.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity {
    pub nanos: i128,
}
