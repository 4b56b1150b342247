//! What clients get wrong, and what arrives that no client sent.

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kit::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn malformed_writes_get_upstreams_codes() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    let good = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let nested = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"a"}},"data":{deep}}}"#);
    let large = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"a"}},"data":{{"k":"{}"}}}}"#,
        "x".repeat(10 << 20)
    );
    let doubled = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"1","k":"2"}}"#;
    let unknown = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"dta":{"k":"1"}}"#;
    let table: Vec<(&str, &str, &str, &str, u16)> = vec![
        ("garbage", MAPS, "application/json", "\u{1}\u{2}garbage", 400),
        ("empty", MAPS, "application/json", "", 400),
        ("cut off", MAPS, "application/json", &good[..20], 400),
        ("array", MAPS, "application/json", "[]", 400),
        ("deep nesting", MAPS, "application/json", &nested, 400),
        ("10 MB", MAPS, "application/json", &large, 413),
        ("unknown type", MAPS, "application/xml", good, 415),
        ("cbor", MAPS, "application/cbor", good, 415),
        ("bad protobuf", MAPS, "application/vnd.kubernetes.protobuf", "k8s\0\u{a}\u{7f}", 400),
        ("bad yaml", MAPS, "application/yaml", "a: [", 400),
        ("other kind", MAPS, "application/json", r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}"#, 400),
        (
            "bad name",
            MAPS,
            "application/json",
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"A_b"}}"#,
            422,
        ),
        (
            "wrong type",
            MAPS,
            "application/json",
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":1}}"#,
            400,
        ),
        (
            "wrong namespace",
            MAPS,
            "application/json",
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"b"}}"#,
            400,
        ),
        (
            "duplicate, strict",
            "/api/v1/namespaces/default/configmaps?fieldValidation=Strict",
            "application/json",
            doubled,
            400,
        ),
        (
            "unknown, strict",
            "/api/v1/namespaces/default/configmaps?fieldValidation=Strict",
            "application/json",
            unknown,
            400,
        ),
        ("bad validation", "/api/v1/namespaces/default/configmaps?fieldValidation=Hard", "application/json", good, 422),
    ];
    for (name, path, media_type, body, code) in table {
        let answer = admin.send(Method::POST, path, &[("content-type", media_type)], body.to_owned()).await;
        assert_eq!(answer.code, code, "{name}: {}", String::from_utf8_lossy(&answer.bytes));
        assert_eq!(answer.json()["kind"], "Status", "{name}");
    }
    assert_eq!(admin.get(&format!("{MAPS}/a")).await.code, 404, "nothing of it was stored");
    let warned = admin.send(Method::POST, MAPS, &[("content-type", "application/json")], unknown).await;
    assert_eq!(warned.code, 201);
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"dta\\\"\"");
}

#[tokio::test]
async fn wrong_patches_and_methods() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    let good = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#;
    admin.send(Method::POST, MAPS, &[("content-type", "application/json")], good).await.ok();
    let one = format!("{MAPS}/a");
    let patch = |media_type: &'static str, query: &'static str, body: &'static str| {
        let (admin, path) = (admin.clone(), format!("{one}{query}"));
        async move { admin.send(Method::PATCH, &path, &[("content-type", media_type)], body).await.code }
    };
    assert_eq!(patch("application/json", "", "{}").await, 415);
    assert_eq!(patch("application/merge-patch+json", "", "{").await, 400);
    assert_eq!(patch("application/json-patch+json", "", r#"[{"op":"add","path":"/data"}]"#).await, 422);
    assert_eq!(patch("application/json-patch+json", "", r#"[{"op":"test","path":"/data","value":1}]"#).await, 422);
    assert_eq!(patch("application/apply-patch+yaml", "", "{}").await, 422, "no field manager");
    assert_eq!(patch("application/merge-patch+json", "?force=true", "{}").await, 422);
    assert_eq!(admin.send(Method::POST, &one, &[], good).await.code, 405);
    assert_eq!(admin.send(Method::PUT, MAPS, &[], good).await.code, 405);
    assert_eq!(admin.get("/api/v1/nonsense").await.code, 404);
    assert_eq!(admin.get("/apis/none.example/v1/things").await.code, 404);
    assert_eq!(admin.get("/nonsense").await.code, 404);
    assert_eq!(admin.get("/api/v1/namespaces/default/nodes").await.code, 404, "nodes lie in no namespace");
}

#[tokio::test]
async fn garbage_on_the_port_hurts_nobody() {
    let cluster = Cluster::start().await;
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0x16, 3, 1, 0xff, 0xff, 0, 0], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut stream = tokio::net::TcpStream::connect(cluster.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
    }
    // Inside TLS as well.
    for bytes in [
        &b"\0\x01garbage\r\n\r\n"[..],
        b"GET /version HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET /../..//%zz%00 HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        let mut stream = cluster.tls(None, b"http/1.1").await;
        stream.write_all(bytes).await.unwrap();
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
    }
    assert_eq!(cluster.client(None).await.get("/healthz").await.code, 200);
}

#[tokio::test]
async fn http_1_serves_and_flushes_a_watch() {
    let cluster = Cluster::start().await;
    let identity = cluster.client_ca.leaf("system:admin", "system:masters", false);
    let mut stream = cluster.tls(Some(identity), b"http/1.1").await;
    let request = format!("GET {MAPS}?watch=1&labelSelector=none HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = vec![0; 4096];
    // Nothing to send yet, and the headers are there all the same.
    let read = tokio::time::timeout(std::time::Duration::from_secs(10), stream.read(&mut head)).await.unwrap().unwrap();
    let head = String::from_utf8_lossy(&head[..read]).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
}

#[tokio::test]
async fn http_1_goes_on_after_a_request_that_its_head_refused() {
    let cluster = Cluster::start().await;
    let identity = cluster.client_ca.leaf("system:admin", "system:masters", false);
    let mut stream = cluster.tls(Some(identity), b"http/1.1").await;
    let body = "{}".repeat(1000);
    let head = format!(
        "PATCH {MAPS}/a HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    for round in 0..20 {
        // Some clients send head and body apart: the answer may be ready before the body comes.
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(cluster.client(None).await.get("/healthz").await.code, 200, "meanwhile");
        stream.write_all(body.as_bytes()).await.unwrap();
        let answer = one_answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 415"), "round {round}: {answer:?}");
    }
}

/// Head and body of the next answer.
async fn one_answer(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    loop {
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes).await.unwrap_or_default();
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
        let length = text
            .to_ascii_lowercase()
            .split_once("content-length: ")
            .and_then(|(_, rest)| rest.split_once("\r\n").and_then(|(length, _)| length.parse::<usize>().ok()));
        let whole =
            text.split_once("\r\n\r\n").is_some_and(|(_, body)| length.is_some_and(|length| body.len() >= length));
        if whole || read == 0 {
            return text;
        }
    }
}
