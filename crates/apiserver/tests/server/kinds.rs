//! Every built-in kind through every verb and media type, on the samples that the end-to-end walks use too.

use std::collections::BTreeMap;

use api::{Kind, Verb};
use e2e::Samples;
use http::Method;
use serde_json::{Value, json};

use crate::kit::{Client, Cluster};

/// The walk's number among the samples, and the name it gives.
const TAG: u8 = 1;

/// One kind and what went wrong with it.
type Faults = BTreeMap<String, String>;

#[tokio::test]
async fn every_kind_takes_every_verb_in_every_encoding() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    admin.post("/api/v1/namespaces/default/serviceaccounts", &account).await.ok();
    let mut faults = Faults::new();
    let samples = Samples::of(TAG, "default").unwrap();
    let mut walked = 0;
    for kind in cluster.server.registry().iter() {
        if kind.custom || !kind.verbs.has(Verb::Create) || !kind.verbs.has(Verb::Get) {
            continue;
        }
        walked += 1;
        if let Err(fault) = walk(&admin, kind, &samples).await {
            faults.insert(kind.gvr().to_string(), fault);
        }
    }
    assert!(walked > 50, "{walked} kinds");
    assert!(faults.is_empty(), "{} of {walked} kinds:\n{}", faults.len(), show(&faults));
}

fn show(faults: &Faults) -> String {
    faults.iter().map(|(kind, fault)| format!("  {kind}: {fault}\n")).collect()
}

async fn walk(admin: &Client, kind: &Kind, samples: &Samples) -> Result<(), String> {
    let object =
        samples.object(&kind.gvk.group, &kind.gvk.version, &kind.gvk.kind).map_err(|error| error.to_string())?;
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let collection = kind.gvr().path(kind.is_namespaced().then_some("default"), None);
    let one = format!("{collection}/{name}");
    let expect = |what: &str, answer: crate::kit::Answer, code: u16| -> Result<crate::kit::Answer, String> {
        if answer.code.as_u16() == code {
            return Ok(answer);
        }
        let text = String::from_utf8_lossy(&answer.bytes);
        Err(format!("{what}: {} {}", answer.code, text.chars().take(400).collect::<String>()))
    };
    let before = expect("list", admin.get(&collection).await, 200)?.json();
    let from = before["metadata"]["resourceVersion"].as_str().ok_or("list without a revision")?.to_owned();
    let mut events = admin.watch(&format!("{collection}?watch=1&resourceVersion={from}")).await;

    expect("dry create", admin.post(&format!("{collection}?dryRun=All"), &object).await, 201)?;
    expect("dry run left nothing", admin.get(&one).await, 404)?;
    let created = expect("create", admin.post(&collection, &object).await, 201)?.json();
    let at = |tree: &Value| tree["metadata"]["resourceVersion"].as_str().unwrap_or("0").parse::<u64>().unwrap_or(0);
    if at(&created) <= from.parse().unwrap_or(0) {
        return Err("the revision did not grow".into());
    }
    if events.line().await != format!("ADDED {name}") {
        return Err("the watch did not see it first".into());
    }
    // The server itself writes on a definition until it is established; what is compared below would move.
    let mut settled = kind.gvk.kind != "CustomResourceDefinition";
    while !settled {
        let event = events.next().await.ok_or("the watch ended before the definition was established")?;
        let conditions = event["object"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        settled = conditions.iter().any(|one| one["type"] == "Established" && one["status"] == "True");
    }
    read_back(admin, kind, &one, &collection).await?;

    let label = json!({"metadata": {"labels": {"touched": "1"}}});
    let patched = expect("merge patch", admin.merge(&one, &label).await, 200)?.json();
    if at(&patched) <= at(&created) {
        return Err("a patch did not grow the revision".into());
    }
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    let patch = json!({"metadata": {"labels": {"touched": "2"}}}).to_string();
    expect("strategic patch", admin.send(Method::PATCH, &one, &strategic, patch).await, 200)?;
    let json_patch = [("content-type", "application/json-patch+json")];
    let patch = json!([{"op": "replace", "path": "/metadata/labels/touched", "value": "3"}]).to_string();
    expect("json patch", admin.send(Method::PATCH, &one, &json_patch, patch).await, 200)?;
    let apply = [("content-type", "application/apply-patch+yaml")];
    let mut applied = json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": {"name": name, "labels": {"applied": "1"}}});
    if kind.is_namespaced() {
        applied["metadata"]["namespace"] = json!("default");
    }
    let path = format!("{one}?fieldManager=test");
    expect("apply", admin.send(Method::PATCH, &path, &apply, applied.to_string()).await, 200)?;
    let mut current = expect("get", admin.get(&one).await, 200)?.json();
    current["metadata"]["labels"]["touched"] = json!("4");
    expect("update", admin.put(&one, &current).await, 200)?;
    end(admin, kind, &one, &collection).await
}

/// Every encoding and shape reads, and what protobuf and YAML wrote is taken back.
async fn read_back(admin: &Client, kind: &Kind, one: &str, collection: &str) -> Result<(), String> {
    for accept in [
        "application/json",
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    ] {
        for path in [one, collection] {
            let answer = admin.send(Method::GET, path, &[("accept", accept)], "").await;
            if answer.code != 200 || answer.bytes.is_empty() {
                return Err(format!("{accept} of {path}: {} {}", answer.code, String::from_utf8_lossy(&answer.bytes)));
            }
        }
    }
    let want = admin.get(one).await.json();
    for media_type in ["application/vnd.kubernetes.protobuf", "application/yaml"] {
        let read = admin.send(Method::GET, one, &[("accept", media_type)], "").await;
        let written = admin.send(Method::PUT, one, &[("content-type", media_type)], read.bytes).await;
        if written.code != 200 {
            return Err(format!("PUT as {media_type}: {} {}", written.code, String::from_utf8_lossy(&written.bytes)));
        }
        let have = written.json();
        let revision = |tree: &Value| tree["metadata"]["resourceVersion"].clone();
        if revision(&have) != revision(&want) {
            return Err(format!("{media_type} does not come back as it went: {have} for {want} ({})", kind.gvk));
        }
    }
    Ok(())
}

async fn end(admin: &Client, kind: &Kind, one: &str, collection: &str) -> Result<(), String> {
    let answer = admin.delete(&format!("{one}?gracePeriodSeconds=0")).await;
    if !answer.code.is_success() {
        return Err(format!("delete: {} {}", answer.code, String::from_utf8_lossy(&answer.bytes)));
    }
    // Kinds with finalizers of their own only begin to go.
    let held = matches!(
        kind.gvk.kind.as_str(),
        "Namespace" | "CustomResourceDefinition" | "PersistentVolume" | "PersistentVolumeClaim" | "ServiceCIDR"
    );
    let left = admin.get(one).await.code;
    if left != 404 && !held {
        return Err(format!("still there after its deletion: {left}"));
    }
    if kind.verbs.has(Verb::DeleteCollection) {
        let answer = admin.delete(&format!("{collection}?labelSelector=none")).await;
        if answer.code != 200 {
            return Err(format!("delete collection: {} {}", answer.code, String::from_utf8_lossy(&answer.bytes)));
        }
    }
    Ok(())
}
