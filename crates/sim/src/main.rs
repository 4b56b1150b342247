//! `sim`: runs seeds, says what came of each, and fails with the first that broke a promise.

use std::fmt;
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Parser, ValueEnum};
use tokio::time::Instant;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Simulates the control plane from seeds.
#[derive(Parser)]
struct Args {
    /// How many seeds to run
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this of each seed
    #[arg(long)]
    of: Option<Of>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Of {
    ControlPlane,
    Rack,
}

/// Seconds of virtual time since the first line.
struct VirtualTime(OnceLock<Instant>);

impl FormatTime for VirtualTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:10.3}", self.0.get_or_init(Instant::now).elapsed().as_secs_f64())
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_env("EVENKEEL_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    let timer = VirtualTime(OnceLock::new());
    tracing_subscriber::fmt().with_env_filter(filter).with_timer(timer).with_writer(std::io::stderr).init();
    let mut broken = 0;
    for seed in args.from..args.from + args.seeds {
        let mut tell = |outcome: anyhow::Result<String>| match outcome {
            Ok(report) => println!("{report}"),
            Err(error) => {
                broken += 1;
                println!("BROKEN {error:#}");
            }
        };
        if args.of != Some(Of::Rack) {
            tell(sim::run(seed).map(|report| format!("{report:?}")));
        }
        if args.of != Some(Of::ControlPlane) {
            tell(sim::run_rack(seed).map(|report| format!("{report:?}")));
        }
    }
    println!("{} seeds, {broken} broken", args.seeds);
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
