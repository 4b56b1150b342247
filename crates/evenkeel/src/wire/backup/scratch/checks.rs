//! What is asked of the scratch control plane.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use api::{Gvr, Key, Op, Snapshot, Tree};
use apiserver::Server;
use base::{Clock, Rng};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PublicKeyData};
use schedule::Scheduler;
use serde_json::json;
use view::{Client, Drain, ListOptions, Transport, View, Watched};

use super::Found;
use crate::layout::Layout;
use crate::pki;
use crate::wire::backup::bundle::Manifest;
use crate::wire::{SystemClock, SystemRng, inprocess};

/// Secrets that are looked at, drawn anew for each proof.
const SECRETS_MAX: usize = 20;
const NAMESPACE: &str = "kube-system";
const POD: &str = "evenkeel-proof";
const AGENT: &str = "evenkeel-proof";
/// The views fill from memory.
const VIEW_TIMEOUT: Duration = Duration::from_secs(30);

/// Objects of each kind, as the manifest says.
pub fn counts(store: &store::Store, manifest: &Manifest) -> Found<()> {
    ensure!(!manifest.counts.is_empty(), "the bundle counts no kinds: an older program made it");
    let found: BTreeMap<String, u64> = store
        .counts()
        .into_iter()
        .filter(|(storage, count)| !storage.starts_with('_') && *count > 0)
        .map(|(storage, count)| (storage.to_string(), count as u64))
        .collect();
    let kinds = manifest.counts.keys().chain(found.keys());
    for kind in kinds {
        let (wanted, is) = (manifest.counts.get(kind).unwrap_or(&0), found.get(kind).unwrap_or(&0));
        ensure!(wanted == is, "{kind}: {is} were restored, the manifest counts {wanted}");
    }
    Ok(((), format!("{} objects of {} kinds, as the manifest says", manifest.objects, found.len())))
}

/// Each authority's key belongs to its certificate.
pub fn authorities(layout: &Layout) -> Found<()> {
    for name in ["server-ca", "client-ca", "request-header-ca"] {
        let folder = layout.server_tls();
        let read =
            |end: &str| pki::read(&folder.join(format!("{name}.{end}")))?.with_context(|| format!("{name}.{end}"));
        let key = KeyPair::from_pem(&read("key")?).with_context(|| format!("read {name}.key"))?;
        let certificates = pki::certificates(&read("crt")?).with_context(|| format!("read {name}.crt"))?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&certificates[0]).with_context(|| format!("{name}.crt"))?;
        let same = parsed.public_key().raw == key.subject_public_key_info();
        ensure!(same, "{name}.key is not the key of {name}.crt");
    }
    Ok(((), "three authorities with their keys".to_owned()))
}

/// Some Secrets come back through the API in the clear.
pub async fn secrets(server: &Server) -> Found<()> {
    let client = inprocess::administrator(server, AGENT);
    let gvr = Gvr::new("", "v1", "secrets");
    let page = client.list(&gvr, &ListOptions::default()).await.context("list Secrets")?;
    let mut keys: Vec<Key> = page.items.iter().map(|object| object.key.clone()).collect();
    let all = keys.len();
    for at in 0..keys.len().min(SECRETS_MAX) {
        keys.swap(at, at + draw(all - at));
    }
    for key in keys.iter().take(SECRETS_MAX) {
        let secret = client.get(&gvr, key).await.with_context(|| format!("read Secret {key}"))?;
        let values = secret.get("data").and_then(Tree::as_object).into_iter().flatten();
        for (name, value) in values {
            let decoded = STANDARD.decode(value.as_str().unwrap_or("?"));
            decoded.with_context(|| format!("Secret {key}: {name} is not what was encrypted"))?;
        }
    }
    Ok(((), format!("{} of {all} Secrets read in the clear", all.min(SECRETS_MAX))))
}

/// A number below `bound`; what is left of evenness does not matter here.
fn draw(bound: usize) -> usize {
    let mut bytes = [0; 8];
    SystemRng.fill(&mut bytes);
    (u64::from_le_bytes(bytes) % bound as u64) as usize
}

/// A token that the restored key signs is one that the restored cluster knows.
pub async fn tokens(server: &Server) -> Found<()> {
    let client = inprocess::administrator(server, AGENT);
    let accounts = Gvr::new("", "v1", "serviceaccounts");
    let key = Key::new(NAMESPACE, "default");
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}});
    let minted = client.post(&accounts, &key, "token", &request).await.context("mint a token")?;
    let token = minted.pointer("/status/token").and_then(Tree::as_str).context("the answer holds no token")?;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let reviews = Gvr::new("authentication.k8s.io", "v1", "tokenreviews");
    let reviewed = client.create(&reviews, "", &review).await.context("review it")?;
    let user = reviewed.pointer("/status/user/username").and_then(Tree::as_str).unwrap_or_default();
    let wanted = format!("system:serviceaccount:{NAMESPACE}:default");
    ensure!(user == wanted, "a token of {wanted} is taken for {user:?}");
    Ok(((), format!("a token of {wanted} verifies")))
}

/// Whether some node would take a pod: one that was ready when the bundle was made.
pub async fn has_room(server: &Server) -> bool {
    let client = inprocess::administrator(server, AGENT);
    let nodes = client.list(&Gvr::new("", "v1", "nodes"), &ListOptions::default()).await;
    let open = |node: &Tree| {
        let taints = node.pointer("/spec/taints").and_then(Tree::as_array).cloned().unwrap_or_default();
        let keeps_off = |taint: &Tree| taint["effect"] != "PreferNoSchedule";
        node.pointer("/spec/unschedulable") != Some(&json!(true)) && !taints.iter().any(keeps_off)
    };
    nodes.is_ok_and(|page| page.items.iter().any(|node| open(&node.tree())))
}

/// A pod passes admission as a dry run; then, created in this throw-away state, the scheduler finds a node for it.
pub async fn pod(server: &Server) -> Found<()> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All");
    let request = http::Request::post(path).header("content-type", "application/json");
    let request = request.body(serde_json::to_vec(&manifest())?.into())?;
    let response = inprocess::administrator_transport(server).call(request).await.context("a dry run")?;
    let status = response.status();
    if !status.is_success() {
        let body = view::read_body(response.into_body(), 64 << 10).await?;
        bail!("a dry run of a pod is answered {status}: {}", String::from_utf8_lossy(&body));
    }
    let client = inprocess::administrator(server, AGENT);
    client.create(&Gvr::new("", "v1", "pods"), NAMESPACE, &manifest()).await.context("create a pod")?;
    let node = tokio::time::timeout(VIEW_TIMEOUT, place(&client)).await.context("the scheduler saw no pod")??;
    Ok(((), format!("a pod passes admission and would run on {node}")))
}

fn manifest() -> Tree {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD, "namespace": NAMESPACE},
        "spec": {"containers": [{"name": "proof", "image": "proof.invalid/proof"}]},
    })
}

/// Where one round of scheduling puts the pod.
async fn place(client: &Client) -> Result<String> {
    let drain = Drain::new();
    let watched = Scheduler::watches().into_iter().map(|watch| Watched::all(watch.gvr, &watch.indexes)).collect();
    let view = View::start(client, watched, &drain);
    let key = Key::new(NAMESPACE, POD);
    let has_pod =
        |snapshot: &Snapshot| snapshot.synced() && snapshot.stream(&Gvr::new("", "v1", "pods")).get(&key).is_some();
    let snapshot = view.wait_for(has_pod).await;
    let plan = Scheduler::new(schedule::Config::default()).plan(&snapshot, SystemClock.now());
    drain.cancel();
    let bound = plan.steps.iter().flatten().find_map(|op| match op {
        Op::Post { key: pod, subresource, body, .. } if *pod == key && subresource == "binding" => {
            body.pointer("/target/name").and_then(Tree::as_str).map(str::to_owned)
        }
        _ => None,
    });
    bound.context("the scheduler finds no node for a plain pod")
}
