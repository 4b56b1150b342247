//! A few seeds, so that the simulation itself does not rot. Many more: `cargo xtask sim`.
#![allow(clippy::unwrap_used, reason = "tests")]

#[test]
fn a_rack_is_changed_through_any_trouble() {
    for seed in 0..2 {
        println!("{:?}", sim::run_rack(seed).unwrap());
    }
}

#[test]
fn promises_are_kept() {
    for seed in 0..3 {
        println!("{:?}", sim::run(seed).unwrap());
    }
}
