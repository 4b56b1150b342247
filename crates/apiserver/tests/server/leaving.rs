//! A server that is about to stop is asked by nobody new, and cuts nobody off who still asks.

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kit::Cluster;

/// Two requests over one connection of HTTP/1.1: how many were answered, and what was said.
async fn asked_twice(cluster: &Cluster) -> (usize, String) {
    let identity = cluster.client_ca.leaf("system:admin", "system:masters", false);
    let mut stream = cluster.tls(Some(identity), b"http/1.1").await;
    stream.write_all("GET /version HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2).as_bytes()).await.unwrap();
    let (mut said, mut piece) = (String::new(), [0; 4096]);
    let answers = |said: &str| said.matches("http/1.1 200").count();
    while answers(&said) < 2 {
        let read = tokio::time::timeout(std::time::Duration::from_secs(20), stream.read(&mut piece)).await;
        match read.expect("an answer or the end within 20 s") {
            Err(_) | Ok(0) => break,
            Ok(count) => said.push_str(&String::from_utf8_lossy(&piece[..count]).to_ascii_lowercase()),
        }
    }
    (answers(&said), said)
}

#[tokio::test]
async fn who_asks_is_answered_and_told_to_ask_elsewhere_next() {
    let cluster = Cluster::start().await;
    let (answers, said) = asked_twice(&cluster).await;
    assert!(answers == 2 && !said.contains("connection: close"), "{said}");
    let client = cluster.admin().await;
    assert_eq!(client.get("/readyz").await.code, StatusCode::OK);

    cluster.server.leave();
    let (answers, said) = asked_twice(&cluster).await;
    assert!(answers == 1 && said.contains("connection: close"), "{said}");
    assert_eq!(client.get("/readyz").await.code, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(client.get("/livez").await.code, StatusCode::OK, "nobody is to start it again");
    let answer = client.get("/version").await;
    assert_eq!((answer.code, answer.headers.contains_key("connection")), (StatusCode::OK, false));
}
