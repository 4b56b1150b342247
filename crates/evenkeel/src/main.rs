//! evenkeel
fn main() {}
