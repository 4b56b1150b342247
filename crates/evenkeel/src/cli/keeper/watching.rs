//! Looking on. A server that starts again does not answer for a while; the run goes on without being looked at.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use base::Chain;
use keeper::Standing;
use tokio::time::Instant;

use super::remote::Remote;
use super::show;

const LOOK: Duration = Duration::from_secs(1);
/// No server needs this long to start.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// The end that was wished for; another one is a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Finished,
    Returned,
    Either,
}

/// Prints entries as they come, until the run is over, paused, or needs a person.
pub async fn until_over(remote: &Remote, json: bool, wanted: Wanted) -> Result<ExitCode> {
    let (mut printed, mut heard, mut said, mut waits) = (0, Instant::now(), false, None);
    loop {
        match remote.status().await {
            Err(failure) if SILENCE_MAX < heard.elapsed() => bail!(
                "the server does not answer ({}); the run goes on by itself, or a person is needed there",
                Chain(failure.as_ref())
            ),
            Err(_) if !said => {
                eprintln!("the server does not answer; the run goes on by itself");
                said = true;
            }
            Err(_) => {}
            Ok(status) => {
                (heard, said) = (Instant::now(), false);
                let Some(run) = &status.run else {
                    println!("{}\nThere was no run yet.", show::head(&status.head));
                    return Ok(ExitCode::SUCCESS);
                };
                if printed == 0 && !json {
                    println!("{}\n{}, armed by {}", show::head(&status.head), run.name, run.armed.by);
                }
                for entry in run.journal.iter().skip(printed) {
                    if json {
                        print!("{}", entry.line());
                    } else {
                        println!("{}", show::entry(entry, Some(&run.armed.plan)));
                    }
                }
                printed = run.journal.len().max(printed);
                if waits != status.waits {
                    waits.clone_from(&status.waits);
                    eprintln!("{}", show::standing(&status));
                }
                // What was asked takes hold in a moment.
                let moving = !status.asked.is_empty() && !run.standing.is_over();
                if let Some(code) = ended(&run.standing, wanted).filter(|_| !moving) {
                    eprintln!("{}", show::standing(&status));
                    return Ok(code);
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn ended(standing: &Standing, wanted: Wanted) -> Option<ExitCode> {
    match (standing, wanted) {
        (Standing::Running { .. } | Standing::Returning { .. }, _) => None,
        (Standing::Finished, Wanted::Returned) | (Standing::Returned, Wanted::Finished) => Some(ExitCode::FAILURE),
        (standing, _) => Some(super::code(standing)),
    }
}
