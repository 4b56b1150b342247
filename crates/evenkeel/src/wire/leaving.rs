//! A machine that wants to leave asks the servers it knows, one after another: its own cannot let it go.

use std::sync::Arc;

use anyhow::{Context, Result};
use base::Chain;
use view::Endpoint;

use super::door::{Attempt, Door};
use super::endpoints::KnownServers;
use super::join::LEAVE_PATH;
use super::join::messages::{Leaving, MachineRequest};
use crate::layout::Layout;
use crate::pki::{self, Leaf, MachineKey};

/// Who asks.
pub struct ThisMachine {
    pub node: String,
    key: MachineKey,
    ca_pem: String,
    servers: Vec<Endpoint>,
}

// === impl ThisMachine ===

impl ThisMachine {
    /// Reads what this machine knows of its cluster.
    pub fn load(layout: &Layout) -> Result<ThisMachine> {
        let nothing = "this machine belongs to no cluster";
        let leaf = Leaf::load(&layout.agent_tls(), "node-client")?.context(nothing)?;
        let node = leaf.common_name().and_then(|name| name.strip_prefix("system:node:").map(str::to_owned));
        let node = node.context("the node's certificate names no node")?;
        let ca_pem = match pki::read(&layout.server_tls().join("server-ca.crt"))? {
            Some(pem) => pem,
            None => pki::read(&layout.agent_tls().join("server-ca.crt"))?.context(nothing)?,
        };
        let servers = (KnownServers::new(layout, &node, None, None).endpoints())();
        anyhow::ensure!(
            !servers.is_empty(),
            "this machine has learned of no server; `evenkeel leave --local` asks none"
        );
        Ok(ThisMachine { node, key: MachineKey::load_or_draw(&layout.machine_key())?, ca_pem, servers })
    }

    /// One step, by the first server that can. Where none can just now, their etcd choosing a leader, that is waited for.
    pub async fn step(&self) -> Result<Leaving> {
        let mut waiting = Vec::new();
        for server in &self.servers {
            let only = server.clone();
            let door = Door { endpoints: Arc::new(move || vec![only.clone()]), ca_pem: self.ca_pem.clone() };
            let request = MachineRequest { node_name: self.node.clone() };
            match door.ask(LEAVE_PATH, &request, &self.key, None).await {
                Ok(leaving) => return Ok(leaving),
                Err(Attempt::Final(refusal)) => return Err(refusal),
                Err(Attempt::Again(failure)) => {
                    waiting.push(format!("{}: {}", server.url(), Chain(failure.as_ref())));
                }
            }
        }
        Ok(Leaving { gone: false, waiting })
    }
}
