//! One kind through every verb: pages, selectors, shapes, encodings, dry runs, conflicts, collections.

use http::Method;
use serde_json::{Value, json};

use crate::kit::{Cluster, call};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": name}}, "data": {"k": "v"}})
}

fn revision(tree: &Value) -> u64 {
    tree["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_object_lives_and_dies() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    let created = admin.post(MAPS, &map("a")).await;
    assert_eq!(created.code, 201);
    let created = created.ok();
    assert_eq!(admin.post(MAPS, &map("a")).await.code, 409);
    let read = admin.get(&format!("{MAPS}/a")).await.ok();
    assert_eq!(read, created);
    let mut changed = read.clone();
    changed["data"]["k"] = json!("w");
    let updated = admin.put(&format!("{MAPS}/a"), &changed).await.ok();
    assert!(revision(&updated) > revision(&created));
    let stale = admin.put(&format!("{MAPS}/a"), &changed).await;
    assert_eq!(stale.code, 409, "an old resourceVersion");
    let patched = admin.merge(&format!("{MAPS}/a"), &json!({"data": {"x": "y"}})).await.ok();
    assert_eq!(patched["data"], json!({"k": "w", "x": "y"}));
    let same = admin.merge(&format!("{MAPS}/a"), &json!({"data": {"x": "y"}})).await.ok();
    assert_eq!(revision(&same), revision(&patched), "nothing changed, nothing written");
    let gone = admin.delete(&format!("{MAPS}/a")).await.ok();
    assert_eq!((&gone["kind"], &gone["status"]), (&json!("Status"), &json!("Success")));
    let missing = admin.get(&format!("{MAPS}/a")).await;
    assert_eq!(missing.code, 404);
    assert_eq!(missing.json()["message"], "configmaps \"a\" not found");
}

#[tokio::test]
async fn dry_runs_leave_nothing() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    let before = revision(&admin.get(MAPS).await.ok());
    let answer = admin.post(&format!("{MAPS}?dryRun=All"), &map("a")).await;
    assert_eq!(answer.code, 201);
    assert_eq!(admin.get(&format!("{MAPS}/a")).await.code, 404);
    assert_eq!(revision(&admin.get(MAPS).await.ok()), before);
    assert_eq!(admin.post(&format!("{MAPS}?dryRun=Some"), &map("a")).await.code, 422);
    // What a dry run of an update answers can be sent as one: it is at the revision that is there.
    let made = admin.post(MAPS, &map("a")).await.ok();
    let merged = admin.merge(&format!("{MAPS}/a?dryRun=All"), &json!({"data": {"k": "dry"}})).await.ok();
    assert_eq!((&merged["data"]["k"], revision(&merged)), (&json!("dry"), revision(&made)));
    assert_eq!(admin.get(&format!("{MAPS}/a")).await.ok()["data"]["k"], "v");
}

#[tokio::test]
async fn lists_come_in_pages_of_one_revision() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    for name in ["a", "b", "c", "d", "e"] {
        admin.post(MAPS, &map(name)).await.ok();
    }
    let path = format!("{MAPS}?limit=2&labelSelector=app");
    let first = admin.get(&path).await.ok();
    assert_eq!(names(&first), ["a", "b"]);
    admin.delete(&format!("{MAPS}/c")).await.ok();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = admin.get(&format!("{path}&continue={token}")).await.ok();
    assert_eq!(names(&second), ["c", "d"], "the state of the first page");
    assert_eq!(revision(&second), revision(&first));
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = admin.get(&format!("{path}&continue={token}")).await.ok();
    assert_eq!(names(&third), ["e"]);
    assert!(third["metadata"].get("continue").is_none());
    assert_eq!(admin.get(&format!("{MAPS}?continue=garbage")).await.code, 400);
    let selected = admin.get(&format!("{MAPS}?labelSelector=app%20in%20(a,e)")).await.ok();
    assert_eq!(names(&selected), ["a", "e"]);
    let selected = admin.get(&format!("{MAPS}?fieldSelector=metadata.name%3Db")).await.ok();
    assert_eq!(names(&selected), ["b"]);
    assert_eq!(admin.get(&format!("{MAPS}?fieldSelector=data.k%3Dv")).await.code, 400);
    assert_eq!(admin.get(&format!("{MAPS}?labelSelector=a%20in%20b")).await.code, 400);
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn shapes_and_encodings_are_negotiated() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    admin.post(MAPS, &map("a")).await.ok();
    let get = |accept: &'static str, path: String| {
        let admin = admin.clone();
        async move { admin.send(Method::GET, &path, &[("accept", accept)], "").await }
    };
    let table = get("application/json;as=Table;v=v1;g=meta.k8s.io", format!("{MAPS}/a")).await.ok();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial = get("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", MAPS.into()).await.ok();
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert!(partial["items"][0].get("data").is_none());
    let yaml = get("application/yaml", format!("{MAPS}/a")).await;
    assert!(String::from_utf8_lossy(&yaml.bytes).contains("kind: ConfigMap"));
    let protobuf = get("application/vnd.kubernetes.protobuf", MAPS.into()).await;
    assert_eq!(&protobuf.bytes[..4], b"k8s\0");
    assert_eq!(get("text/html", MAPS.into()).await.code, 406);
    assert_eq!(get("application/yaml", format!("{MAPS}?watch=1")).await.code, 406, "YAML has no frames");
    // What protobuf says comes back as it went.
    let one = get("application/vnd.kubernetes.protobuf", format!("{MAPS}/a")).await;
    let headers = [("content-type", "application/vnd.kubernetes.protobuf")];
    let put = admin.send(Method::PUT, &format!("{MAPS}/a"), &headers, one.bytes).await;
    assert_eq!(put.ok()["data"]["k"], "v");
}

#[tokio::test]
async fn five_thousand_are_deleted_at_once() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    let mut writes = tokio::task::JoinSet::new();
    for worker in 0..16 {
        let admin = admin.clone();
        writes.spawn(async move {
            for number in 0..63 {
                admin.post(MAPS, &map(&format!("m-{worker}-{number}"))).await.ok();
            }
        });
    }
    writes.join_all().await;
    let list = admin.get(&format!("{MAPS}?labelSelector=app")).await.ok();
    assert_eq!(list["items"].as_array().unwrap().len(), 16 * 63);
    let deleted = admin.delete(&format!("{MAPS}?labelSelector=app")).await.ok();
    assert_eq!(deleted["items"].as_array().unwrap().len(), 16 * 63);
    let list = admin.get(&format!("{MAPS}?labelSelector=app")).await.ok();
    assert!(list["items"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn the_in_process_transport_takes_the_same_road() {
    let cluster = Cluster::start().await;
    let created = call(&cluster.server, Method::POST, MAPS, apiserver::full(map("a").to_string())).await;
    assert_eq!(created.code, 201);
    let user = admit::User { name: "nobody".into(), ..Default::default() };
    let request = http::Request::builder().uri(MAPS).body(apiserver::empty()).unwrap();
    assert_eq!(cluster.server.call(user, request).await.status(), 403);
    // The audit log is written behind the answers.
    let path = cluster.folder.path().join("audit.log");
    let written = || std::fs::read_to_string(&path).is_ok_and(|text| text.contains("\"nobody\""));
    let bound = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        while !written() {
            tokio::task::yield_now().await;
        }
    });
    bound.await.expect("both calls are in the audit log");
}

#[tokio::test]
async fn custom_resources_are_kinds_like_any_other() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "boats", "singular": "boat", "kind": "Boat", "shortNames": ["bt"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 3}}},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                }}},
            }],
        },
    });
    let mut events = admin.watch(&format!("{crds}?watch=true")).await;
    admin.post(crds, &crd).await.ok();
    loop {
        let event = events.next().await.unwrap();
        let conditions = event["object"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True") {
            break;
        }
    }
    let boats = "/apis/example.com/v1/namespaces/default/boats";
    let boat = json!({"apiVersion": "example.com/v1", "kind": "Boat", "metadata": {"name": "b"}, "spec": {}});
    let created = admin.post(boats, &boat).await.ok();
    assert_eq!(created["spec"]["size"], 3);
    let found = admin.get("/apis/example.com/v1").await.ok();
    assert_eq!(found["resources"][0]["name"], "boats");
    admin.delete(&format!("{crds}/boats.example.com")).await.ok();
    while events.next().await.unwrap()["type"] != "DELETED" {}
    assert_eq!(admin.get(boats).await.code, 404);
}

#[tokio::test]
async fn a_pod_waits_for_the_account_of_its_new_namespace() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    let (created, _) = tokio::join!(
        admin.post("/api/v1/namespaces/default/pods", &pod),
        // As the controller does, but never before the pod is asked for: the branches start in order.
        admin.post("/api/v1/namespaces/default/serviceaccounts", &account),
    );
    assert_eq!(created.ok()["spec"]["serviceAccountName"], "default");
}
