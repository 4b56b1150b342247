//! Discovery against what upstream answered, where its reference is at hand.

use std::collections::BTreeMap;
use std::path::PathBuf;

use http::Method;
use serde_json::Value;

use crate::kit::Cluster;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn reference(name: &str) -> Option<Value> {
    let root = std::env::var("EVENKEEL_REFERENCE").map(PathBuf::from);
    let root = root.unwrap_or_else(|_| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference"));
    let path = root.join("upstream-1.36").join(name);
    match std::fs::read(&path) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap()),
        Err(_) => {
            println!("skipped: {} is not there", path.display());
            None
        }
    }
}

/// Every resource by `group/version/resource`.
fn rows(list: &Value) -> BTreeMap<String, Value> {
    let mut rows = BTreeMap::new();
    for group in list["items"].as_array().unwrap() {
        let name = group["metadata"]["name"].as_str().unwrap_or_default();
        for version in group["versions"].as_array().unwrap() {
            for resource in version["resources"].as_array().unwrap() {
                let key = format!(
                    "{name}/{}/{}",
                    version["version"].as_str().unwrap(),
                    resource["resource"].as_str().unwrap()
                );
                rows.insert(key, resource.clone());
            }
        }
    }
    rows
}

#[tokio::test]
async fn aggregated_discovery_is_upstreams() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    for (path, file) in [("/api", "discovery-api.json"), ("/apis", "discovery-apis.json")] {
        let answer = admin.send(Method::GET, path, &[("accept", AGGREGATED)], "").await;
        assert_eq!(answer.headers["content-type"], AGGREGATED);
        let tag = answer.headers["etag"].to_str().unwrap().to_owned();
        let again = admin.send(Method::GET, path, &[("accept", AGGREGATED), ("if-none-match", &tag)], "").await;
        assert_eq!(again.code, 304);
        let ours = answer.ok();
        let Some(theirs) = reference(file) else { return };
        let (ours_rows, theirs_rows) = (rows(&ours), rows(&theirs));
        for (key, row) in &theirs_rows {
            assert_eq!(ours_rows.get(key), Some(row), "{key}");
        }
        let groups = |list: &Value| -> Vec<Value> {
            list["items"].as_array().unwrap().iter().map(|group| group["metadata"]["name"].clone()).collect()
        };
        assert_eq!(groups(&ours), groups(&theirs));
    }
}

#[tokio::test]
async fn every_document_of_discovery_is_served() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    assert_eq!(admin.get("/api").await.ok()["versions"][0], "v1");
    let groups = admin.get("/apis").await.ok();
    for group in groups["groups"].as_array().unwrap() {
        let name = group["name"].as_str().unwrap();
        assert_eq!(admin.get(&format!("/apis/{name}")).await.ok()["kind"], "APIGroup");
        for version in group["versions"].as_array().unwrap() {
            let path = format!("/apis/{}", version["groupVersion"].as_str().unwrap());
            assert_eq!(admin.get(&path).await.ok()["kind"], "APIResourceList");
        }
    }
    let v2 = admin.get("/openapi/v2").await.ok();
    assert!(v2["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
    let v3 = admin.get("/openapi/v3").await.ok();
    for (path, entry) in v3["paths"].as_object().unwrap() {
        let document = admin.get(entry["serverRelativeURL"].as_str().unwrap()).await.ok();
        assert!(document["components"]["schemas"].is_object(), "{path}");
    }
    assert_eq!(admin.get("/version").await.ok()["gitVersion"], "v1.36.2+evenkeel");
    let ready = admin.get("/readyz?verbose").await;
    assert!(String::from_utf8_lossy(&ready.bytes).contains("[+]store ok"));
    assert_eq!(admin.get("/livez/ping").await.code, 200);
    let metrics = admin.get("/metrics").await;
    assert!(String::from_utf8_lossy(&metrics.bytes).contains("apiserver_request_total"));
    let keys = admin.get("/openid/v1/jwks").await.ok();
    assert_eq!(keys["keys"][0]["use"], "sig");
}
