//! What is left once the state is one server's alone: the machines of the other servers are out, so that an old disk with
//! an old state does not come back as if nothing had happened.

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::json;
use tracing::{info, warn};
use view::Client;

use super::note::Note;
use crate::layout::Layout;
use crate::wire::join::registrar::{Only, Registrar};
use crate::wire::presence;

/// Does it where it is to be done. Their nodes stay: labels and taints are theirs again when they rejoin under their names.
pub async fn finish(layout: &Layout, own: &str, client: &Client, now: Timestamp) -> Result<()> {
    let Some(Note::Alone { why }) = Note::read(layout)? else { return Ok(()) };
    let registrar = Registrar::new(client.clone());
    for recorded in registrar.records.machines().await? {
        let machine = recorded.machine;
        if !machine.is_server() || machine.node == own {
            continue;
        }
        warn!(node = machine.node, "{why}: its machine is out until it joins anew");
        registrar
            .remove(&machine.node, Only::Whoever, now)
            .await
            .with_context(|| format!("remove {}", machine.node))?;
        let lease = presence::lease_of(&machine.node);
        match client.delete(&presence::leases(), &lease, &json!({})).await {
            Err(error) if !error.is_not_found() => return Err(error).context("remove its lease"),
            _ => {}
        }
    }
    Note::remove(layout)?;
    info!("{why}; the other servers join anew");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::finish;
    use crate::layout::Layout;
    use crate::pki::{MachineId, Role};
    use crate::wire::join::registrar::{Applicant, Registrar};
    use crate::wire::recover::note_restored;
    use jiff::Timestamp;
    use view::fake::FakeApi;

    #[tokio::test]
    async fn other_servers_are_out_and_agents_are_not() {
        let (folder, api, now) = (tempfile::tempdir().unwrap(), FakeApi::new(), Timestamp::UNIX_EPOCH);
        let layout = Layout::new(folder.path());
        layout.make().unwrap();
        let registrar = Registrar::new(api.client());
        let id = |text: &str| -> MachineId { serde_json::from_value(text.into()).unwrap() };
        let names = [("own", Role::Server), ("lost", Role::Server), ("agent", Role::Agent)];
        for (node, role) in names {
            let who = Applicant { node, machine: &id(node), role, addresses: &[] };
            registrar.register_own(who, now).await.unwrap();
        }
        let client = api.client();
        finish(&layout, "own", &client, now).await.unwrap();
        let machines = async || registrar.records.machines().await.unwrap();
        assert!(machines().await.iter().all(|one| one.machine.machine.is_some()), "nothing was decided");
        note_restored(&layout).unwrap();
        finish(&layout, "own", &client, now).await.unwrap();
        finish(&layout, "own", &client, now).await.unwrap();
        let out: Vec<String> = machines()
            .await
            .into_iter()
            .map(|one| one.machine)
            .filter(|one| one.machine.is_none())
            .map(|one| one.node)
            .collect();
        assert_eq!(out, ["lost"]);
        assert!(!layout.recovering().exists());
    }
}
