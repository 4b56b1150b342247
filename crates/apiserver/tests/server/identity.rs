//! Who is who and who may what.

use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kit::{Ca, Cluster};

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn nobody_known_may_what_rbac_says() {
    let cluster = Cluster::start().await;
    let nobody = cluster.client(None).await;
    let refused = nobody.get(PODS).await;
    assert_eq!(refused.code, 403);
    let message = "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" in the \
                   namespace \"default\"";
    assert_eq!(
        refused.json(),
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
            "reason": "Forbidden", "details": {"kind": "pods"}, "code": 403})
    );
    for (closed, code) in [("/", 403), ("/api", 403), ("/openapi/v2", 403), ("/metrics", 403), ("/nonsense", 403)] {
        let refused = nobody.get(closed).await;
        assert_eq!(refused.code, code, "{closed}");
        let message = format!("forbidden: User \"system:anonymous\" cannot get path \"{closed}\"");
        assert_eq!(refused.json()["message"], message);
    }
    assert_eq!(nobody.post(PODS, &json!({})).await.code, 403, "refused before the body is looked at");
    for open in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(nobody.get(open).await.code, 200, "{open}");
    }
    let bad = cluster.with_token("not.a.token").await;
    let refused = bad.get("/version").await;
    assert_eq!(refused.code, 401, "a bad token is worse than none");
    assert_eq!(
        refused.json(),
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "Unauthorized", "reason": "Unauthorized", "code": 401})
    );
    let protocols = "base64url.bearer.authorization.k8s.io.bm90LmEudG9rZW4, v5.channel.k8s.io";
    let refused = nobody.send(Method::GET, "/version", &[("sec-websocket-protocol", protocols)], "").await;
    assert_eq!(refused.code, 401, "also where a browser brings it");
}

#[tokio::test]
async fn a_revoked_certificate_ends_at_once_also_what_is_open() {
    let cluster = Cluster::start().await;
    let named = |uri| cluster.client_ca.leaf_of("system:admin", "system:masters", uri);
    let (gone, stays) =
        (cluster.client(Some(named("machine:1"))).await, cluster.client(Some(named("machine:2"))).await);
    assert_eq!(gone.get(PODS).await.code, 200);
    let mut watch = gone.watch(&format!("{PODS}?watch=true")).await;
    cluster.revoking.send_replace(["machine:1".into()].into());
    assert!(watch.ended().await, "a watch goes on for who was revoked");
    let again = cluster.client(Some(named("machine:1"))).await;
    assert_eq!(again.get(PODS).await.code, 401, "a new connection does not help");
    assert_eq!(stays.get(PODS).await.code, 200);
}

#[tokio::test]
async fn certificates_that_do_not_hold_are_refused_per_request() {
    let cluster = Cluster::start().await;
    let foreign = Ca::new("client-ca").leaf("system:admin", "system:masters", false);
    let expired = cluster.client_ca.expired_leaf("system:admin", "system:masters");
    let serving = cluster.client_ca.leaf("system:admin", "system:masters", true);
    for (what, leaf) in [("foreign", foreign), ("expired", expired), ("for servers", serving)] {
        let client = cluster.client(Some(leaf)).await;
        for path in [PODS, "/version"] {
            let refused = client.get(path).await;
            assert_eq!(refused.code, 401, "{what} {path}");
            assert_eq!(refused.json()["reason"], "Unauthorized", "{what}");
        }
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_ends_the_handshake() {
    let cluster = Cluster::start().await;
    let (certificate, _) = cluster.client_ca.leaf("system:admin", "system:masters", false);
    let (_, other) = Ca::new("other").leaf("eve", "", false);
    let mut stream = cluster.tls(Some((certificate, other)), b"http/1.1").await;
    let _ = stream.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut answer = Vec::new();
    assert!(stream.read_to_end(&mut answer).await.is_err(), "the server hangs up with an alert");
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn refusals_read_as_upstreams() {
    let cluster = Cluster::start().await;
    let jane = cluster.user("jane", "people").await;
    let refused = jane.get(PODS).await;
    assert_eq!(refused.code, 403);
    let status = refused.json();
    let want =
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"";
    assert_eq!(status["message"], want);
    assert_eq!(status["details"]["kind"], "pods");
    let refused = jane.get("/metrics").await.json();
    assert_eq!(refused["message"], "forbidden: User \"jane\" cannot get path \"/metrics\"");
}

#[tokio::test]
async fn roles_grant_and_reviews_agree() {
    let cluster = Cluster::start().await;
    let (admin, jane) = (cluster.admin().await, cluster.user("jane", "people").await);
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]});
    admin.post(&format!("{rbac}/roles"), &role).await.ok();
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "people"}]});
    admin.post(&format!("{rbac}/rolebindings"), &binding).await.ok();
    assert_eq!(jane.get("/api/v1/namespaces/default/configmaps").await.code, 200);
    assert_eq!(jane.get("/api/v1/namespaces/kube-system/configmaps").await.code, 403);
    let ask = |verb: &str| {
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"user": "jane", "groups": ["people"],
            "resourceAttributes": {"namespace": "default", "verb": verb, "resource": "configmaps"}}})
    };
    let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    assert_eq!(admin.post(reviews, &ask("get")).await.ok()["status"]["allowed"], true);
    assert_eq!(admin.post(reviews, &ask("delete")).await.ok()["status"]["allowed"], false);
}

#[tokio::test]
async fn impersonation_is_a_right() {
    let cluster = Cluster::start().await;
    let (admin, jane) = (cluster.admin().await, cluster.user("jane", "people").await);
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let headers = [("impersonate-user", "sam"), ("impersonate-group", "devs"), ("content-type", "application/json")];
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let refused = jane.send(Method::POST, path, &headers, body.clone()).await;
    assert_eq!(refused.code, 403);
    // What the impersonated user may do counts: sam may nothing but look at himself, as system:basic-user allows.
    let sam = admin.send(Method::GET, PODS, &headers, "").await;
    assert_eq!(sam.code, 403);
    assert!(sam.json()["message"].as_str().unwrap().contains("\"sam\""));
}

#[tokio::test]
async fn tokens_are_issued_reviewed_and_die_with_their_account() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    admin.post(accounts, &account).await.ok();
    let ask =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}});
    let issued = admin.post(&format!("{accounts}/robot/token"), &ask).await.ok();
    let token = issued["status"]["token"].as_str().unwrap().to_owned();
    let robot = cluster.with_token(&token).await;
    let refused = robot.get(PODS).await;
    assert_eq!(refused.code, 403, "known, but without rights");
    assert!(refused.json()["message"].as_str().unwrap().contains("system:serviceaccount:default:robot"));
    let review = |audiences: serde_json::Value| json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token, "audiences": audiences}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let known = admin.post(reviews, &review(json!([]))).await.ok();
    assert_eq!(known["status"]["user"]["username"], "system:serviceaccount:default:robot");
    let other = admin.post(reviews, &review(json!(["vault"]))).await.ok();
    assert_eq!(other["status"]["authenticated"], json!(null));
    admin.delete(&format!("{accounts}/robot")).await.ok();
    assert_eq!(robot.get(PODS).await.code, 401);
    let short =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 5}});
    admin.post(accounts, &account).await.ok();
    assert_eq!(admin.post(&format!("{accounts}/robot/token"), &short).await.code, 422);
}
