//! The faults lane: what is killed, filled or stalled, and what must hold all the same. An outside client's own log of
//! acknowledgements is the judge.
//!
//! `EVENKEEL_SEED` repeats a run, `EVENKEEL_KILLS` sets how often the server is killed, or processes of the rack.

mod disk;
mod kill;
mod runtime;
mod stalled;

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use e2e::{Case, Cluster, Options, run_all};

/// The cluster, held by one case at a time.
pub type Shared = Mutex<Cluster>;

const RACK: Case<()> = Case { name: "killed_rack", run: kill::rack::loses_nothing };

fn main() -> anyhow::Result<()> {
    println!("seed {}", seed());
    // Long: only where it is named.
    if std::env::args().any(|word| word == RACK.name) {
        std::process::exit(i32::from(!run_all(&(), &[RACK], 1)));
    }
    let cluster = Cluster::start(Options::lane("faults", 2))?;
    let shared = Shared::new(cluster);
    let cases = [
        Case { name: "killed_server_loses_nothing_acknowledged", run: kill::loses_nothing },
        Case { name: "killed_containerd_leaves_pods_running", run: runtime::leaves_pods_running },
        Case { name: "stalled_watchers_harm_nobody", run: stalled::watchers },
        Case { name: "stalled_log_follower_and_exec_harm_nobody", run: stalled::streams },
    ];
    let good = run_all(&shared, &cases, 1);
    drop(shared);
    let full = [Case { name: "full_disk_refuses_writes_and_recovers", run: disk::recovers }];
    let good = run_all(&(), &full, 1) && good;
    std::process::exit(i32::from(!good));
}

/// The seed of this run: given, or the time.
pub fn seed() -> u64 {
    let given = std::env::var("EVENKEEL_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs()))
}
