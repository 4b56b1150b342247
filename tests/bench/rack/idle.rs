//! What a server of three uses at rest: Evenkeel itself, and its etcd beside it.

use std::time::Duration;

use anyhow::Context;
use e2e::{Rack, pause};
use serde_json::json;

use super::Figures;
use crate::machine;

/// Time to come to rest.
const SETTLE: Duration = Duration::from_secs(15);

/// Of the largest of the three.
pub fn measure(rack: &Rack) -> anyhow::Result<Figures> {
    pause(SETTLE);
    let (mut ours, mut etcd) = (0.0_f64, 0.0_f64);
    for server in &rack.servers {
        let groups = machine::usage(&server.data)?;
        let of = |group: &str| groups.get(group).map(|used| used.megabytes).context("a process is missing");
        ours = ours.max(of("evenkeel")?);
        etcd = etcd.max(of("etcd")?);
    }
    let round = |value: f64| json!((value * 10.0).round() / 10.0);
    Ok(vec![("rss_idle_rack_mb", round(ours)), ("etcd_mb", round(etcd))])
}
