//! Servers and an agent that join, and how long nobody can write when the server is lost whose etcd leads.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::{Agent, Endpoint, Options, Rack, eventually};
use serde_json::{Value, json};

const HOST: u8 = 44;
const BOUND: Duration = Duration::from_secs(60);

pub fn measure() -> anyhow::Result<Vec<(&'static str, Value)>> {
    let mut rack = Rack::start("bench-rack", HOST)?;
    let slower = rack.join()?.max(rack.join()?);
    rack.serves(0, 3)?;
    let agent = agent(&rack)?;
    let gap = gap(&mut rack)?;
    Ok(vec![
        ("join_server_s", seconds(slower)),
        ("join_agent_s", seconds(agent)),
        ("api_gap_leader_killed_ms", json!(gap.as_millis() as u64)),
    ])
}

fn seconds(span: Duration) -> Value {
    json!((span.as_secs_f64() * 10.0).round() / 10.0)
}

/// From the start of the agent until its node is ready.
fn agent(rack: &Rack) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let agent = Agent::join(&rack.servers[0], Options::lane("", HOST + 3).host)?;
    let kubectl = rack.servers[1].kubectl();
    let path = "-o jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
    eventually("the agent's node is ready", BOUND, || {
        let ready = kubectl.ok(&format!("get node {} {path}", agent.host.name))?;
        ensure!(ready == "True", "its Ready condition is {ready:?}");
        Ok(())
    })?;
    Ok(start.elapsed())
}

/// From the power cut until a write through another server is acknowledged.
fn gap(rack: &mut Rack) -> anyhow::Result<Duration> {
    rack.lead(0)?;
    let mut other = Endpoint::of(&rack.servers[1].kubectl())?.connect()?;
    rack.servers[0].power_cut()?;
    let cut = Instant::now();
    let map = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"gap-"}}"#;
    eventually("writes are taken again", BOUND, || {
        let answer = other.call("POST", "/api/v1/namespaces/default/configmaps", map)?;
        ensure!(answer.code == 201, "it answered {}", answer.code);
        Ok(cut.elapsed())
    })
}
