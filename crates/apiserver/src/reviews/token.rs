//! Tokens of service accounts: asked for (`TokenRequest`) and examined (`TokenReview`).

use admit::{Place, Reader, storage_of};
use api::{Cause, Key, Object, Status, Tree};
use base::SmolStr;
use base::limits::REQUEST_BODY_BYTES_MAX;
use http::{Response, StatusCode};
use serde_json::{Map, json};

use super::user_info;
use crate::answer;
use crate::authn::{Binding, TokenClaims, with_authenticated};
use crate::body::{self, Body};
use crate::codec;
use crate::context::Routed;
use crate::limits::{TOKEN_SECONDS_MAX, TOKEN_SECONDS_MIN};
use crate::media::{Accept, Encoding};

/// Seconds where the request does not say.
const TOKEN_SECONDS_DEFAULT: i64 = 3600;

/// POST of a `TokenRequest` to a service account.
pub(crate) async fn token(routed: Routed, body: Body) -> Result<Response<Body>, Status> {
    let accept = Accept::of(&routed.cx.headers)?;
    let account = routed.cx.shared.deps.store.get(&routed.place()).ok_or_else(|| routed.not_found())?;
    let encoding = Encoding::of_body(&routed.cx.headers)?;
    let bytes = body::read(body, REQUEST_BODY_BYTES_MAX).await?;
    let request = codec::decode(encoding, &routed.cx.registry, &bytes)?.tree;
    let spec = &request["spec"];
    let seconds = seconds(&routed, spec)?;
    let bound = binding(&routed, spec)?;
    let audiences = audiences(&routed, spec);
    let shared = &routed.cx.shared;
    let claims = TokenClaims {
        namespace: &routed.target.namespace,
        account: &routed.target.name,
        account_uid: &account.header.uid,
        audiences: audiences.clone(),
        seconds,
        node: bound.as_ref().and_then(|(binding, object)| node_of(&routed, binding, object)),
        bound: bound.map(|(binding, _)| binding),
        id: shared.new_uid(),
    };
    let (token, expires) =
        shared.tokens().issue(&claims).map_err(|error| Status::internal(format!("sign a token: {error}")))?;
    let mut answer = json!({
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": routed.target.name, "namespace": routed.target.namespace},
        "spec": spec, "status": {"token": token, "expirationTimestamp": rfc3339(expires)},
    });
    answer["spec"]["audiences"] = json!(audiences);
    answer["spec"]["expirationSeconds"] = json!(seconds);
    let bytes =
        codec::encode_gvk(accept.encoding, &api::Gvk::new("authentication.k8s.io", "v1", "TokenRequest"), &answer)?;
    Ok(answer::document(StatusCode::CREATED, accept.encoding.media_type(), bytes))
}

fn seconds(routed: &Routed, spec: &Tree) -> Result<i64, Status> {
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(TOKEN_SECONDS_DEFAULT);
    if seconds < TOKEN_SECONDS_MIN {
        return Err(invalid(
            routed,
            "spec.expirationSeconds",
            &format!("{seconds}: may not specify a duration less than 10 minutes"),
        ));
    }
    if seconds > 1 << 32 {
        return Err(invalid(
            routed,
            "spec.expirationSeconds",
            &format!("{seconds}: may not specify a duration larger than 2^32 seconds"),
        ));
    }
    Ok(seconds.min(TOKEN_SECONDS_MAX))
}

fn audiences(routed: &Routed, spec: &Tree) -> Vec<String> {
    let named = spec["audiences"].as_array().into_iter().flatten().filter_map(Tree::as_str);
    let named: Vec<String> = named.map(str::to_owned).collect();
    if named.is_empty() { routed.cx.shared.deps.config.audiences.clone() } else { named }
}

type Bound = (Binding, std::sync::Arc<Object>);

/// The object a token shall be bound to. A node may ask only for tokens bound to its own pods.
fn binding(routed: &Routed, spec: &Tree) -> Result<Option<Bound>, Status> {
    let reference = &spec["boundObjectRef"];
    let node = routed.cx.user.name.strip_prefix("system:node:");
    if !reference.is_object() {
        if node.is_some() {
            return Err(forbidden(routed, "node requested token not bound to a pod"));
        }
        return Ok(None);
    }
    let kind = reference["kind"].as_str().unwrap_or_default();
    let (resource, namespace) = match kind {
        "Pod" => ("pods", routed.target.namespace.as_str()),
        "Secret" => ("secrets", routed.target.namespace.as_str()),
        "Node" => ("nodes", ""),
        _ => {
            let why = format!("cannot bind token for object of type {kind}");
            return Err(Status::bad_request(why));
        }
    };
    if node.is_some() && kind != "Pod" {
        return Err(forbidden(routed, "node requested token not bound to a pod"));
    }
    let name = reference["name"].as_str().unwrap_or_default();
    let place = Place { storage: storage_of("", resource), key: Key::new(namespace, name) };
    let object = routed.cx.shared.reader.get(&place).ok_or_else(|| Status::not_found("", resource, name))?;
    let uid = reference["uid"].as_str().unwrap_or_default();
    if !uid.is_empty() && uid != object.header.uid {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict("", resource, name, &why));
    }
    check_pod(routed, kind, node, uid, &object)?;
    Ok(Some((Binding { kind: kind.into(), name: name.into(), uid: object.header.uid.clone() }, object)))
}

fn check_pod(routed: &Routed, kind: &str, node: Option<&str>, uid: &str, object: &Object) -> Result<(), Status> {
    if kind != "Pod" {
        return Ok(());
    }
    let account = crate::rest::field(&object.bytes, "spec.serviceAccountName").unwrap_or_default();
    if account != routed.target.name {
        let name = &object.key.name;
        let why = format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            routed.target.name.as_str()
        );
        return Err(Status::bad_request(format!("pod {name}: {why}")));
    }
    let Some(node) = node else { return Ok(()) };
    let runs_on = crate::rest::field(&object.bytes, "spec.nodeName").unwrap_or_default();
    if uid.is_empty() {
        return Err(forbidden(routed, "node requested token with a pod binding without a uid"));
    }
    if runs_on != node {
        return Err(forbidden(routed, "node requested token bound to a pod scheduled on a different node"));
    }
    Ok(())
}

/// The node of a bound pod, for information in the token.
fn node_of(routed: &Routed, binding: &Binding, object: &Object) -> Option<(SmolStr, SmolStr)> {
    if binding.kind != "Pod" {
        return None;
    }
    let name = crate::rest::field(&object.bytes, "spec.nodeName").filter(|name| !name.is_empty())?;
    let place = Place { storage: storage_of("", "nodes"), key: Key::cluster(&name) };
    let uid = routed.cx.shared.reader.get(&place).map(|node| node.header.uid.clone()).unwrap_or_default();
    Some((name, uid))
}

/// Answers a `TokenReview`.
pub(super) async fn review(routed: &Routed, review: &Tree) -> Tree {
    let (token, audiences) = asked(review);
    let want = (!audiences.is_empty()).then_some(audiences.as_slice());
    let error = match routed.cx.shared.tokens().review(&token, want) {
        Ok((user, audiences)) => {
            let user = user_info(&with_authenticated(user));
            return json!({"authenticated": true, "user": user, "audiences": audiences});
        }
        Err(error) => error,
    };
    if let Some(user) = routed.cx.shared.deps.tokens.authenticate(&token).await {
        return json!({"authenticated": true, "user": user_info(&with_authenticated(user))});
    }
    json!({"user": Map::new(), "error": format!("[invalid bearer token, {error}]")})
}

fn asked(review: &Tree) -> (String, Vec<String>) {
    let spec = &review["spec"];
    let audiences = spec["audiences"].as_array().into_iter().flatten().filter_map(Tree::as_str);
    (spec["token"].as_str().unwrap_or_default().to_owned(), audiences.map(str::to_owned).collect())
}

fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map(|at| at.to_string()).unwrap_or_default()
}

fn invalid(routed: &Routed, field: &str, why: &str) -> Status {
    let message = format!("Invalid value: {why}");
    let cause = Cause { reason: "FieldValueInvalid".into(), message, field: field.into() };
    Status::invalid("authentication.k8s.io", "TokenRequest", &routed.target.name, vec![cause])
}

fn forbidden(routed: &Routed, why: &str) -> Status {
    Status::forbidden("", "serviceaccounts", &routed.target.name, why)
}
