//! Automation of the project: checks, tests, demo images, the demo, benchmarks. Rust, not shell.

mod bench;
mod counts;
mod demo;
mod down;
mod fuzz;
mod host;
mod images;
mod lanes;
mod process;
mod sim;
mod tidy;
mod tools;
mod wait;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Automation of the Evenkeel project")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check what the compiler does not: layers, sizes, module docs, forbidden words
    Tidy {
        /// Shrink the ratchet list to what is still needed
        #[arg(long)]
        bless: bool,
        /// Print the size figures of the code
        #[arg(long)]
        figures: bool,
    },
    /// The fast lane: tidy, formatting, compiler and clippy
    Check,
    /// Every lane that CI runs
    Test {
        /// Run only these lanes
        #[arg(long = "lane")]
        lanes: Vec<String>,
    },
    /// An ordinary application on a cluster on this machine, from nothing; harmless to repeat
    Demo {
        /// On this machine itself (1), or on three servers, each on a simulated host of this machine (3)
        #[arg(long, default_value = "1", value_parser = ["1", "3"])]
        nodes: String,
    },
    /// Take the demo away, so that nothing is left
    Down,
    /// Build the images of the demo and the tests into target/images
    Images,
    /// Measure the performance figures of a release build
    Bench {
        /// Print one JSON object (the only form there is; named for scripts)
        #[arg(long)]
        json: bool,
    },
    /// Search for inputs that make a decoder fail (a lane of its own)
    Fuzz {
        targets: Vec<String>,
        /// Seconds for each target
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Simulate the control plane of three servers from seeds, in virtual time
    Sim {
        /// How many seeds
        #[arg(long, default_value_t = 200)]
        seeds: u64,
        /// The first of them
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
    /// Tell the whole story on three simulated hosts: one dies, is replaced, upgrade and back, two are lost, all are
    Story {
        /// Only these parts: dies, replace, upgrade, quorum, restore
        parts: Vec<String>,
    },
    /// Fetch kubectl, helm and the Python client into target/tools
    Tools,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    std::env::set_current_dir(process::workspace_root())?;
    match command {
        Command::Tidy { figures: true, .. } => tidy::figures(),
        Command::Tidy { bless, .. } => tidy::run(bless),
        Command::Check => lanes::check(),
        Command::Test { lanes } => lanes::test(&lanes),
        Command::Bench { .. } => bench::bench(),
        Command::Fuzz { targets, seconds } => fuzz::fuzz(&targets, seconds),
        Command::Sim { seeds, from } => sim::run(seeds, from),
        Command::Demo { nodes } if nodes == "3" => demo::rack(),
        Command::Demo { .. } => demo::run(),
        Command::Story { parts } => demo::prepared("story", &parts),
        Command::Down => down::run(),
        Command::Images => images::build().map(|folder| println!("{}", folder.display())),
        Command::Tools => tools::all().map(|folder| println!("{}", folder.display())),
    }
}
