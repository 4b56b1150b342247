//! The `evenkeel` program: one binary for the server, the agent, the command line and the CNI plugin.
//!
//! Only this crate names more than one engine; `wire` holds the adapters between their ports.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod cli;
mod config;
mod layout;
mod pki;
mod wire;

// The loops as a server starts them, and the keeper over its ports, for whoever simulates servers.
pub use wire::keeper as coordination;
pub use wire::{controllers, schedule};

/// Of the API that is served.
pub use api::builtin::KUBERNETES_VERSION;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use base::Chain;
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;

/// The whole program.
pub fn main() -> ExitCode {
    if is_cni_plugin() {
        let variable = |name: &str| std::env::var(name).ok();
        return ExitCode::from(net::cni::main(std::io::stdin(), &variable, &mut std::io::stdout()));
    }
    let (cli, warnings) = match cli::parse() {
        Ok(parsed) => parsed,
        Err(error) => return fail(&error),
    };
    log(&cli);
    if matches!(cli.command, cli::Command::Scratch(_))
        && let Err(error) = wire::backup::scratch::leave_the_network()
    {
        return fail(&anyhow::Error::from(error).context("leave the network for a scratch control plane"));
    }
    let outcome = match runtime(&cli.command) {
        Ok(runtime) => {
            let outcome = runtime.block_on(cli::run(cli, warnings));
            // What still runs was given its time to drain.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(error.into()),
    };
    outcome.unwrap_or_else(|error| fail(&error))
}

/// What a node runs beside its agent is small: it gets by with one thread.
fn runtime(command: &cli::Command) -> std::io::Result<Runtime> {
    let mut builder = match command {
        cli::Command::Names(_) | cli::Command::KeeperWatch(_) => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let workers = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
    builder.worker_threads(workers).enable_all().build()
}

/// containerd runs this program under a plugin's name, with the verb in the environment.
fn is_cni_plugin() -> bool {
    let name = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
    name == net::cni::PLUGIN || name == net::cni::LOOPBACK || std::env::var_os("CNI_COMMAND").is_some()
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("evenkeel: {}", Chain(error.as_ref()));
    ExitCode::FAILURE
}

/// Logs go to the standard error; `EVENKEEL_LOG` overrides what is shown.
fn log(cli: &cli::Cli) {
    let debug = match &cli.command {
        cli::Command::Server(args) => args.common.debug,
        cli::Command::Agent(args) => args.common.debug,
        _ => false,
    };
    let fallback = if debug {
        "info,evenkeel=debug,apiserver=debug,store=debug,view=debug,reconcile=debug,node=debug,container=debug,net=debug"
    } else {
        "info"
    };
    let filter = EnvFilter::try_from_env("EVENKEEL_LOG").unwrap_or_else(|_| EnvFilter::new(fallback));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
