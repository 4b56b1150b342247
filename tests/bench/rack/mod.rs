//! Three servers and an agent, each on a host of its own: joined, at rest, under load, and robbed of one, then of all.

mod gap;
mod idle;
mod loss;
mod restore;

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::{Agent, Endpoint, Options, Rack, eventually};
use serde_json::{Value, json};

use super::api;

const HOST: u8 = 44;
const BOUND: Duration = Duration::from_secs(120);

/// What is known of a run, under its key.
type Figures = Vec<(&'static str, Value)>;

pub fn measure() -> anyhow::Result<Figures> {
    let mut rack = Rack::start("bench-rack", HOST)?;
    let slower = rack.join()?.max(rack.join()?);
    rack.serves(0, 3)?;
    let (agent, took) = agent(&rack)?;
    let mut figures = vec![("join_server_s", seconds(slower)), ("join_agent_s", seconds(took))];
    figures.extend(idle::measure(&rack)?);
    rack.servers[0].kubectl().ok("create namespace bench")?;
    figures.push(("etcd_create_per_s", json!(api::fill(&Endpoint::of(&rack.servers[0].kubectl())?)?)));
    figures.extend(loss::measure(&mut rack, &agent)?);
    drop(agent);
    figures.extend(restore::measure(&mut rack)?);
    Ok(figures)
}

fn seconds(span: Duration) -> Value {
    json!((span.as_secs_f64() * 10.0).round() / 10.0)
}

/// An agent, and how long it took from its start until its node was ready.
fn agent(rack: &Rack) -> anyhow::Result<(Agent, Duration)> {
    let start = Instant::now();
    let agent = Agent::join(&rack.servers[0], Options::lane("", HOST + 3).host)?;
    let kubectl = rack.servers[1].kubectl();
    let path = "-o jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
    eventually("the agent's node is ready", BOUND, || {
        let ready = kubectl.ok(&format!("get node {} {path}", agent.host.name))?;
        ensure!(ready == "True", "its Ready condition is {ready:?}");
        Ok(())
    })?;
    Ok((agent, start.elapsed()))
}
