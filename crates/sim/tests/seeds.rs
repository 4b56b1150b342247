//! A few seeds, so that the simulation itself does not rot. Many more: `cargo xtask sim`.
#![allow(clippy::unwrap_used, reason = "tests")]

#[test]
fn promises_are_kept() {
    for seed in 0..3 {
        println!("{:?}", sim::run(seed).unwrap());
    }
}
