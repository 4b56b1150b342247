//! How long `evenkeel wrong` takes to answer.

use std::time::Instant;

use anyhow::ensure;
use e2e::Cluster;

const LOOKS: usize = 40;

/// 95 of 100 answers come within this many milliseconds.
pub fn p95_millis(cluster: &Cluster) -> anyhow::Result<u64> {
    let evenkeel = cluster.evenkeel()?;
    let data = format!("--data-dir={}", cluster.data.display());
    let mut times = Vec::new();
    for _ in 0..LOOKS {
        let start = Instant::now();
        let said = evenkeel.call(&["wrong", "--short", &data], "")?;
        ensure!(said.code != 1, "{said:?}");
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[LOOKS * 95 / 100 - 1].as_millis() as u64)
}
