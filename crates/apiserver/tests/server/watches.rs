//! Watches: from a revision, with selectors, bookmarks and initial events, many on one connection.

use serde_json::json;

use crate::kit::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, app: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": app}}})
}

#[tokio::test]
async fn a_watch_goes_on_from_its_revision() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    let list = admin.get(MAPS).await.ok();
    let from = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    admin.post(MAPS, &map("a", "x")).await.ok();
    let mut events = admin.watch(&format!("{MAPS}?watch=1&resourceVersion={from}")).await;
    assert_eq!(events.line().await, "ADDED a");
    admin.merge(&format!("{MAPS}/a"), &json!({"data": {"k": "v"}})).await.ok();
    assert_eq!(events.line().await, "MODIFIED a");
    let gone = admin.delete(&format!("{MAPS}/a")).await;
    gone.ok();
    let deleted = events.next().await.unwrap();
    assert_eq!(deleted["type"], "DELETED");
    assert_eq!(deleted["object"]["data"]["k"], "v", "the last state");
    let now = admin.get(MAPS).await.ok()["metadata"]["resourceVersion"].clone();
    assert!(deleted["object"]["metadata"]["resourceVersion"] == now, "at the deletion's revision");
}

#[tokio::test]
async fn without_a_revision_what_is_there_comes_first() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    admin.post(MAPS, &map("a", "x")).await.ok();
    for path in
        [format!("{MAPS}?watch=1&labelSelector=app"), format!("{MAPS}?watch=1&labelSelector=app&resourceVersion=0")]
    {
        let mut events = admin.watch(&path).await;
        assert_eq!(events.line().await, "ADDED a");
    }
    let path = format!(
        "{MAPS}?watch=1&labelSelector=app&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut events = admin.watch(&path).await;
    assert_eq!(events.line().await, "ADDED a");
    let bookmark = events.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}

#[tokio::test]
async fn objects_enter_and_leave_a_selector() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    let mut events = admin.watch(&format!("{MAPS}?watch=1&labelSelector=app%3Dx")).await;
    admin.post(MAPS, &map("a", "y")).await.ok();
    admin.merge(&format!("{MAPS}/a"), &json!({"metadata": {"labels": {"app": "x"}}})).await.ok();
    assert_eq!(events.line().await, "ADDED a");
    admin.merge(&format!("{MAPS}/a"), &json!({"data": {"k": "v"}})).await.ok();
    assert_eq!(events.line().await, "MODIFIED a");
    admin.merge(&format!("{MAPS}/a"), &json!({"metadata": {"labels": {"app": "y"}}})).await.ok();
    assert_eq!(events.line().await, "DELETED a");
}

#[tokio::test]
async fn the_past_is_gone_and_the_future_is_not_there() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    let too_large = admin.get(&format!("{MAPS}?resourceVersion=999999999")).await;
    assert_eq!(too_large.code, 504);
    assert_eq!(too_large.json()["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    for (query, code) in [
        ("watch=1&resourceVersion=abc", 422),
        ("resourceVersion=abc", 400),
        ("resourceVersionMatch=Exact", 422),
        ("sendInitialEvents=true", 422),
        ("resourceVersion=0&resourceVersionMatch=Exact", 422),
    ] {
        assert_eq!(admin.get(&format!("{MAPS}?{query}")).await.code, code, "{query}");
    }
}

#[tokio::test]
async fn a_watch_ends_with_its_timeout() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    let mut events = admin.watch(&format!("{MAPS}?watch=1&timeoutSeconds=1&labelSelector=none")).await;
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn three_hundred_watches_share_one_connection() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let mut events = admin.watch(&format!("{MAPS}?watch=1&labelSelector=app")).await;
        // Read at once: a stream that nobody reads holds the window of the whole connection.
        readers.spawn(async move {
            for number in 0..10 {
                assert_eq!(events.line().await, format!("ADDED a{number}"));
            }
        });
    }
    let text = "x".repeat(20_000);
    for number in 0..10 {
        let mut map = map(&format!("a{number}"), "x");
        map["data"] = json!({"text": text});
        admin.post(MAPS, &map).await.ok();
    }
    readers.join_all().await;
}
