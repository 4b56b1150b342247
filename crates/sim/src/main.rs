//! `sim`: runs seeds, says what came of each, and fails with the first that broke a promise.

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Simulates the control plane from seeds.
#[derive(Parser)]
struct Args {
    /// How many seeds to run
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_env("EVENKEEL_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut broken = 0;
    for seed in args.from..args.from + args.seeds {
        match sim::run(seed) {
            Ok(report) => println!("{report:?}"),
            Err(error) => {
                broken += 1;
                println!("BROKEN {error:#}");
            }
        }
    }
    println!("{} seeds, {broken} broken", args.seeds);
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
