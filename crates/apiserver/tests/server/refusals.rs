//! What is refused, with upstream's codes and the field or parameter at fault; and that nothing worse comes of it.

use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kit::{Answer, Client, Cluster};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// Creates one ConfigMap and one Deployment to be wronged.
async fn victims(admin: &Client) {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "v"}, "immutable": true, "data": {"k": "1"}});
    admin.post(MAPS, &map).await.ok();
    let labels = json!({"app": "v"});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "v"}, "spec": {
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    admin.post(DEPLOYMENTS, &deployment).await.ok();
}

#[tokio::test]
async fn metadata_that_contradicts_is_refused() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    victims(&admin).await;
    let modified = "Operation cannot be fulfilled on configmaps \"v\": the object has been modified; please apply your \
                    changes to the latest version and try again";
    for (metadata, code, message) in [
        (json!({"name": "v", "resourceVersion": "1"}), 409, modified),
        (json!({"name": "v", "resourceVersion": "x"}), 422, "metadata.resourceVersion: Invalid value: \"x\""),
        (json!({"name": "v", "uid": "other"}), 409, "Precondition failed: UID in precondition: other"),
        (json!({"name": "w"}), 400, "the name of the object (w) does not match the name on the URL (v)"),
        (json!({"name": "v", "namespace": "w"}), 400, "the namespace of the provided object does not match"),
    ] {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"k": "1"}});
        refused(admin.put(&format!("{MAPS}/v"), &map).await, &map.to_string(), code, message);
    }
}

#[tokio::test]
async fn fields_that_may_not_be_so_are_named() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    victims(&admin).await;
    let (map, deployment) = (format!("{MAPS}/v"), format!("{DEPLOYMENTS}/v"));
    let lots = json!({"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "lots"}}}]});
    for (path, patch, message) in [
        (&map, json!({"data": {"k": "2"}}), "data: Forbidden: field is immutable when `immutable` is set"),
        (&deployment, json!({"spec": {"selector": {"matchLabels": {"x": "y"}}}}), "spec.selector: Invalid value:"),
        (
            &deployment,
            json!({"spec": {"strategy": {"type": "Slow"}}}),
            "spec.strategy.type: Unsupported value: \"Slow\"",
        ),
        (&deployment, json!({"spec": {"replicas": "many"}}), "spec.replicas of type int32"),
        (&deployment, json!({"spec": {"replicas": -1}}), "spec.replicas: Invalid value: -1: must be greater than"),
        (&deployment, json!({"spec": {"template": {"spec": lots}}}), "quantities must match the regular expression"),
    ] {
        refused(admin.merge(path, &patch).await, &patch.to_string(), 422, message);
    }
}

/// The answer is a `Status` with this code, and its message says this.
fn refused(answer: Answer, what: &str, code: u16, message: &str) {
    let status = answer.json();
    assert_eq!(answer.code, code, "{what}: {status}");
    assert!(status["message"].as_str().unwrap().contains(message), "{what}: {status}");
}

#[tokio::test]
async fn wrong_parameters_are_named() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    victims(&admin).await;
    let one = format!("{MAPS}/v");
    let wrong = [
        (Method::GET, format!("{MAPS}?labelSelector=a==b==c"), 400, ""),
        (Method::GET, format!("{MAPS}?fieldSelector=data.k=1"), 400, "field label not supported: data.k"),
        (Method::GET, format!("{MAPS}?limit=many"), 400, "many"),
        (Method::GET, format!("{MAPS}?resourceVersion=x"), 400, "invalid resource version"),
        (Method::GET, format!("{MAPS}?continue=garbage"), 400, "continue"),
        (Method::GET, format!("{MAPS}?watch=1&resourceVersion=x"), 422, "resourceVersion"),
        (Method::GET, format!("{MAPS}?sendInitialEvents=true"), 422, "sendInitialEvents"),
        (Method::GET, format!("{one}?resourceVersion=x"), 400, "invalid resource version"),
        (Method::DELETE, format!("{one}?propagationPolicy=Maybe"), 422, "propagationPolicy"),
        (Method::DELETE, format!("{one}?gracePeriodSeconds=soon"), 400, "soon"),
        (Method::DELETE, format!("{one}?dryRun=Some"), 422, "dryRun: Unsupported value: \"Some\""),
        (Method::POST, format!("{MAPS}?dryRun=Some"), 422, "dryRun: Unsupported value: \"Some\""),
        (Method::POST, format!("{MAPS}?fieldManager={}", "m".repeat(200)), 422, "fieldManager: Too long"),
    ];
    for (method, path, code, message) in wrong {
        let answer = admin.send(method, &path, &[("content-type", "application/json")], "").await;
        refused(answer, &path, code, message);
    }
    for accept in ["application/xml", "text/html;q=1", "application/json;as=Chart;v=v1;g=meta.k8s.io"] {
        let answer = admin.send(Method::GET, MAPS, &[("accept", accept)], "").await;
        assert_eq!(answer.code, 406, "{accept}");
        assert_eq!(answer.json()["reason"], "NotAcceptable");
    }
    let lonely = admin.send(Method::GET, MAPS, &[("impersonate-group", "x")], "").await;
    assert_eq!(lonely.code, 500, "as upstream: a group without a user");
    assert_eq!(admin.get(&one).await.code, 200, "still there");
}

/// A body by name, where it is sent, its media type, and the codes that may come of it.
type Bounded<'a> = (&'a str, Method, &'a str, &'a str, Vec<u8>, &'a [u16]);

/// A billion of nothing in a few hundred bytes of YAML.
fn alias_bomb() -> String {
    let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for n in 1..9 {
        let line = vec![format!("*a{}", n - 1); 9].join(",");
        text.push_str(&format!("a{n}: &a{n} [{line}]\n"));
    }
    text
}

/// An envelope of envelopes.
fn nested_protobuf() -> Vec<u8> {
    let mut message = vec![0x0a, 0x00];
    for _ in 0..10_000 {
        let mut outer = vec![0x12];
        let mut length = message.len();
        while length >= 0x80 {
            outer.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        outer.push(u8::try_from(length).unwrap());
        outer.append(&mut message);
        message = outer;
    }
    [b"k8s\0".to_vec(), message].concat()
}

#[tokio::test]
async fn bodies_that_grow_when_read_are_bounded() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    victims(&admin).await;
    let one = format!("{MAPS}/v");
    let deep_yaml = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: d}}\ndata: {}{}\n",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let deep_patch = format!(r#"{{"data":{}1{}}}"#, r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
    let many = format!("[{}]", vec![r#"{"op":"test","path":"/kind","value":"ConfigMap"}"#; 10_001].join(","));
    let doubling = format!("[{}]", vec![r#"{"op":"copy","from":"/data","path":"/data/x"}"#; 60].join(","));
    let long_claim = [b"k8s\0".to_vec(), vec![0x12, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3]].concat();
    let json_patch = "application/json-patch+json";
    let table: Vec<Bounded<'_>> = vec![
        ("aliases", Method::POST, MAPS, "application/yaml", alias_bomb().into_bytes(), &[400, 413]),
        ("deep YAML", Method::POST, MAPS, "application/yaml", deep_yaml.into_bytes(), &[400]),
        ("deep patch", Method::PATCH, &one, "application/merge-patch+json", deep_patch.into_bytes(), &[400]),
        ("many operations", Method::PATCH, &one, json_patch, many.into_bytes(), &[413]),
        ("doubling copies", Method::PATCH, &one, json_patch, doubling.into_bytes(), &[400, 413, 422]),
        ("nested protobuf", Method::POST, MAPS, "application/vnd.kubernetes.protobuf", nested_protobuf(), &[400]),
        ("a length that lies", Method::POST, MAPS, "application/vnd.kubernetes.protobuf", long_claim, &[400]),
        ("deep options", Method::DELETE, &one, "application/json", "[".repeat(10_000).into_bytes(), &[400]),
        (
            "options of another kind",
            Method::DELETE,
            &one,
            "application/json",
            br#"{"kind":"Pod","apiVersion":"v1"}"#.to_vec(),
            &[400],
        ),
    ];
    for (name, method, path, media_type, body, codes) in table {
        let answer = admin.send(method, path, &[("content-type", media_type)], body).await;
        assert!(
            codes.contains(&answer.code.as_u16()),
            "{name}: {} {}",
            answer.code,
            String::from_utf8_lossy(&answer.bytes)
        );
        assert_eq!(answer.json()["kind"], "Status", "{name}");
    }
    // A body without a length is cut off where it gets too long.
    let endless =
        futures::stream::iter(std::iter::repeat_with(|| Ok(bytes::Bytes::from_static(&[b' '; 64 << 10]))).take(1000));
    let answer = crate::kit::call(&cluster.server, Method::POST, MAPS, apiserver::stream(endless)).await;
    assert_eq!(answer.code, 413);
    assert_eq!(admin.get(&one).await.code, 200);
}

#[tokio::test]
async fn tokens_of_others_and_of_yesterday_are_refused() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    let uid = admin.post(accounts, &account).await.ok()["metadata"]["uid"].as_str().unwrap().to_owned();
    let now = jiff::Timestamp::now().as_second();
    let claims = |issued: i64, issuer: &str, audience: &str| {
        json!({"iss": issuer, "aud": [audience], "sub": "system:serviceaccount:default:robot", "iat": issued, "nbf": issued,
            "exp": issued + 600, "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": "robot", "uid": uid}}})
    };
    let issuer = "https://kubernetes.default.svc.cluster.local";
    let good = cluster.keys.sign(&claims(now, issuer, issuer)).unwrap();
    assert_eq!(cluster.with_token(&good).await.get(MAPS).await.code, 403, "known, without rights");
    let foreign = apiserver::TokenKeys::from_pems(&[rcgen::KeyPair::generate().unwrap().serialize_pem()]).unwrap();
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap());
    let mut bent = good.clone();
    bent.replace_range(good.len() - 4.., "AAAA");
    for (what, token) in [
        ("expired", cluster.keys.sign(&claims(now - 7200, issuer, issuer)).unwrap()),
        ("of tomorrow", cluster.keys.sign(&claims(now + 7200, issuer, issuer)).unwrap()),
        ("of another key", foreign.sign(&claims(now, issuer, issuer)).unwrap()),
        ("of another issuer", cluster.keys.sign(&claims(now, "https://else", issuer)).unwrap()),
        ("for others", cluster.keys.sign(&claims(now, issuer, "vault")).unwrap()),
        ("unsigned", unsigned),
        ("bent", bent),
        ("huge", "a".repeat(20 << 10)),
    ] {
        let refused = cluster.with_token(&token).await.get("/version").await;
        assert_eq!(refused.code, 401, "{what}");
        assert_eq!(refused.json()["reason"], "Unauthorized", "{what}");
    }
}

#[tokio::test]
async fn odd_requests_end_in_an_answer() {
    let cluster = Cluster::start().await;
    let identity = || Some(cluster.client_ca.leaf("system:admin", "system:masters", false));
    let long = format!("GET /version HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    for (request, codes) in [
        (format!("GET {MAPS}/%ff%fe%00 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"), vec!["404"]),
        ("GET /api/v1/namespaces/../../x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(), vec!["404"]),
        ("BREW /api/v1/pods HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(), vec!["405"]),
        (
            format!(
                "POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\n"
            ),
            vec!["400"],
        ),
        (format!("POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-length: nine\r\n\r\n"), vec!["400"]),
        (long, vec!["431", ""]),
    ] {
        let mut stream = cluster.tls(identity(), b"http/1.1").await;
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let text = String::from_utf8_lossy(&answer);
        let code = text.split(' ').nth(1).unwrap_or_default();
        assert!(codes.contains(&code), "{:?}: {text}", &request[..40]);
    }
    // HTTP/2 that breaks its own rules: a frame of a stream that was never opened, and one too long.
    for frame in [&[0, 0, 4, 0, 0, 0, 0, 0, 9, 1, 2, 3, 4][..], &[0xff, 0xff, 0xff, 4, 0, 0, 0, 0, 0]] {
        let mut stream = cluster.tls(identity(), b"h2").await;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let _ = stream.write_all(frame).await;
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(std::time::Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        assert!(closed.is_ok(), "the connection is closed");
    }
    assert_eq!(cluster.client(None).await.get("/healthz").await.code, 200);
}
