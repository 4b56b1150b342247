//! What must hold in the end: everything that was promised is there, nothing else is, and then there is rest.

use anyhow::{Context, Result, ensure};
use api::{Gvr, Key, Tree};
use serde_json::Value;
use view::{Client, ListOptions};

use crate::kubelet::pods;
use crate::person::{Book, NAMESPACE, Thing, resource};

/// Storages that are written for ever: leases, nodes' heartbeats, and events, which expire.
const RESTLESS: [&str; 3] = ["coordination.k8s.io/leases", "/nodes", "/events"];

/// Whether every promise is kept, as this client sees it.
pub async fn promises(client: &Client, book: &Book) -> Result<()> {
    let everything = everything(client, &pods()).await?;
    for (name, thing) in &book.0 {
        let own: Vec<&Tree> =
            everything.iter().filter(|pod| pod["metadata"]["labels"]["app"] == name.as_str()).collect();
        kept(client, name, thing, &own).await.with_context(|| format!("{name}, which shall be {thing:?}"))?;
    }
    orphans(client, &everything).await
}

async fn kept(client: &Client, name: &str, thing: &Thing, pods: &[&Tree]) -> Result<()> {
    if *thing == Thing::Gone {
        ensure!(pods.is_empty(), "{} pods are left, as {}", pods.len(), pods[0]["metadata"]);
        return Ok(());
    }
    let found = client.get(&resource(thing), &Key::new(NAMESPACE, name)).await?;
    let (status, metadata) = (&found["status"], &found["metadata"]);
    let number = |field: &str| status[field].as_u64().unwrap_or_default();
    let settled = || status["observedGeneration"] == metadata["generation"];
    let running = || pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count() as u64;
    match thing {
        Thing::Deployment { replicas, image } => {
            ensure!(settled(), "its controller has not seen it: {status}");
            ensure!(number("availableReplicas") == *replicas && number("updatedReplicas") == *replicas, "{status}");
            ensure!(pods.len() as u64 == *replicas && running() == *replicas, "{} pods", pods.len());
            let fresh = pods.iter().all(|pod| pod["spec"]["containers"][0]["image"] == image.as_str());
            ensure!(fresh, "a pod runs another image");
        }
        Thing::StatefulSet { replicas } => {
            ensure!(settled() && number("readyReplicas") == *replicas, "{status}");
            ensure!(pods.len() as u64 == *replicas && running() == *replicas, "{} pods", pods.len());
        }
        Thing::Job { completions } => {
            ensure!(number("succeeded") == *completions, "{status}");
            let complete = |condition: &Value| condition["type"] == "Complete" && condition["status"] == "True";
            ensure!(status["conditions"].as_array().into_iter().flatten().any(complete), "not complete: {status}");
        }
        Thing::Note { text } => ensure!(found["data"]["text"] == text.as_str(), "it says {}", found["data"]),
        Thing::Gone => {}
    }
    Ok(())
}

/// Nothing has an owner that is not there, and no pod is on its way out.
async fn orphans(client: &Client, pods: &[Tree]) -> Result<()> {
    let sets = everything(client, &Gvr::new("apps", "v1", "replicasets")).await?;
    let mut owners = Vec::new();
    for gvr in
        [Gvr::new("apps", "v1", "deployments"), Gvr::new("apps", "v1", "statefulsets"), Gvr::new("batch", "v1", "jobs")]
    {
        owners.extend(everything(client, &gvr).await?);
    }
    for child in pods.iter().chain(&sets) {
        let metadata = &child["metadata"];
        ensure!(metadata["deletionTimestamp"].is_null(), "{} is still going", metadata["name"]);
        let uid = &metadata["ownerReferences"][0]["uid"];
        let owned = owners.iter().chain(&sets).any(|owner| owner["metadata"]["uid"] == *uid);
        ensure!(owned, "{} belongs to nobody", metadata["name"]);
    }
    Ok(())
}

async fn everything(client: &Client, gvr: &Gvr) -> Result<Vec<Tree>> {
    let page = client.list(gvr, &ListOptions { namespace: Some(NAMESPACE), ..ListOptions::default() }).await?;
    page.items.iter().map(|object| Ok(serde_json::from_slice(&object.bytes)?)).collect()
}

/// What was written that should not have been when there was nothing to do.
pub fn unrest(entries: &[store::Entry]) -> Option<String> {
    let mut changes = entries.iter().flat_map(|entry| &entry.changes);
    let restless = |change: &&store::EntryChange| RESTLESS.contains(&change.place.storage.as_str());
    changes.find(|change| !restless(change)).map(|change| format!("{} {}", change.place.storage, change.place.key))
}
