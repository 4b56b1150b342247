//! The faults of the catalogue, injected one after the other into three servers and an agent: `evenkeel wrong` has to name
//! the cause first, whoever is asked, in the words of `golden.txt`, and with the right next command. A shell that knows
//! nothing but this command runs it; what only hands can do is done by the case; then everything must be well again.
//!
//! Words on the command line choose cases. `EVENKEEL_BLESS=1` writes the golden lines anew; the difference is the review.

mod copies;
mod disks;
mod golden;
mod machines;
mod network;
mod people;
mod programs;
mod shell;
mod state;
mod time;
mod workload;
mod world;

use std::time::Instant;

use world::World;

/// One fault, or one side of it.
pub struct Fault {
    /// Its numbers in the catalogue.
    pub numbers: &'static [u8],
    pub name: &'static str,
    pub run: fn(&mut World) -> anyhow::Result<()>,
}

/// In this order: what leaves the cluster smaller or another one comes last.
const FAULTS: [&[Fault]; 9] = [
    &workload::FAULTS,
    &people::FAULTS,
    &programs::FAULTS,
    &time::FAULTS,
    &network::FAULTS,
    &disks::FAULTS,
    &state::FAULTS,
    &copies::FAULTS,
    &machines::FAULTS,
];
/// Of a hundred first causes as many must be right.
const RIGHT_PERCENT_MIN: usize = 95;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let asked = |fault: &&Fault| words.is_empty() || words.iter().any(|word| fault.name.contains(word.as_str()));
    let chosen: Vec<&Fault> = FAULTS.iter().flat_map(|area| area.iter()).filter(asked).collect();
    let mut world = World::start()?;
    let mut failures = Vec::new();
    for fault in &chosen {
        let start = Instant::now();
        world.begin(fault.name);
        let outcome = (fault.run)(&mut world);
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("case {:<40} {:<8} {word} {:.1} s", fault.name, numbers(fault), start.elapsed().as_secs_f64());
        let Err(error) = outcome else { continue };
        println!("  {error:?}");
        failures.push(fault.name);
        if let Err(error) = world.mend() {
            println!("not well again after {}: {error:?}", fault.name);
            break;
        }
    }
    let right = world.conclude(words.is_empty());
    println!("{} passed, {} failed", chosen.len() - failures.len(), failures.len());
    let good = failures.is_empty() && right;
    drop(world);
    std::process::exit(i32::from(!good));
}

fn numbers(fault: &Fault) -> String {
    let numbers: Vec<String> = fault.numbers.iter().map(u8::to_string).collect();
    numbers.join(",")
}
