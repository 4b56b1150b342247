//! Somebody who looks on: asks one server after the other, over connections that stay.

use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Connection, Endpoint};
use serde_json::Value;

/// Longer than this nobody waits for an answer.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Rounds<'a> {
    servers: Vec<(&'a Endpoint, Option<Connection>)>,
    turn: usize,
}

// === impl Rounds ===

impl<'a> Rounds<'a> {
    pub fn new(endpoints: &'a [Endpoint]) -> Rounds<'a> {
        Rounds { servers: endpoints.iter().map(|endpoint| (endpoint, None)).collect(), turn: 0 }
    }

    /// From now on the next server is asked.
    pub fn go_on(&mut self) {
        self.turn = (self.turn + 1) % self.servers.len();
    }

    pub fn get(&mut self, path: &str) -> anyhow::Result<Value> {
        let (endpoint, connection) = self.servers.get_mut(self.turn).context("no server")?;
        let mut open = match connection.take() {
            Some(open) => open,
            None => endpoint.connect_within(PATIENCE)?,
        };
        let answer = open.call("GET", path, "")?;
        if !answer.last {
            *connection = Some(open);
        }
        ensure!(answer.code == 200, "{path} answered {}", answer.code);
        serde_json::from_slice(&answer.body).with_context(|| format!("read {path}"))
    }
}
