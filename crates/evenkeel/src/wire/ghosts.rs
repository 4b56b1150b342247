//! Nodes of servers that were given up in a recovery or a restore, and that nobody has joined as since.

use anyhow::Result;
use api::{Gvr, Key};
use view::Client;

use super::join::records::Records;

/// Their names, in order.
pub async fn find(client: &Client) -> Result<Vec<String>> {
    let machines = Records::new(client.clone()).machines().await?;
    let mut found = Vec::new();
    for machine in machines.into_iter().map(|recorded| recorded.machine).filter(|machine| machine.machine.is_none()) {
        match client.get(&Gvr::new("", "v1", "nodes"), &Key::cluster(&machine.node)).await {
            Ok(_) => found.push(machine.node),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.sort();
    Ok(found)
}
