//! Kinds that are questions: they are created, answered and never stored.

mod access;
mod token;

pub(crate) use token::token;

use admit::User;
use api::kind::KindRef;
use api::{Status, Tree};
use http::{Response, StatusCode};
use serde_json::json;

use crate::answer;
use crate::body::{self, Body};
use crate::codec;
use crate::context::{Routed, method_not_allowed};
use crate::media::{Accept, Encoding};
use base::limits::REQUEST_BODY_BYTES_MAX;

/// True for the kinds this module answers.
pub(crate) fn is_virtual(kind: &KindRef) -> bool {
    matches!(kind.gvk.group.as_str(), "authentication.k8s.io" | "authorization.k8s.io")
}

pub(crate) async fn serve(routed: Routed, body: Body) -> Result<Response<Body>, Status> {
    if routed.cx.verb != "create" || !routed.target.name.is_empty() {
        return Err(method_not_allowed());
    }
    let accept = Accept::of(&routed.cx.headers)?;
    let mut review = read(&routed, body).await?;
    let status = match routed.kind.gvk.kind.as_str() {
        "SelfSubjectReview" => json!({"userInfo": user_info(&routed.cx.user)}),
        "SelfSubjectAccessReview" => access::own(&routed, &review)?,
        "SubjectAccessReview" => access::of_subject(&routed, &review)?,
        "LocalSubjectAccessReview" => access::local(&routed, &review)?,
        "SelfSubjectRulesReview" => access::rules(&routed, &review)?,
        "TokenReview" => token::review(&routed, &review).await,
        _ => return Err(method_not_allowed()),
    };
    review["status"] = status;
    respond(accept, &routed.kind, &review)
}

fn respond(accept: Accept, kind: &KindRef, review: &Tree) -> Result<Response<Body>, Status> {
    let bytes = codec::encode_object(accept.encoding, kind, review)?;
    Ok(answer::document(StatusCode::CREATED, accept.encoding.media_type(), bytes))
}

/// The body, with its type checked.
async fn read(routed: &Routed, body: Body) -> Result<Tree, Status> {
    let encoding = Encoding::of_body(&routed.cx.headers)?;
    let bytes = body::read(body, REQUEST_BODY_BYTES_MAX).await?;
    let mut tree = codec::decode(encoding, &routed.cx.registry, &bytes)?.tree;
    let gvk = &routed.kind.gvk;
    if !tree.is_object() {
        return Err(Status::bad_request(format!("the object provided is unrecognized (must be of type {})", gvk.kind)));
    }
    let (version, kind) = (gvk.api_version(), gvk.kind.as_str());
    let named = |name: &str, want: &str| tree[name].is_null() || tree[name] == "" || tree[name] == want;
    if !named("kind", kind) || !named("apiVersion", &version) {
        let have = format!("{} {}", tree["apiVersion"], tree["kind"]);
        return Err(Status::bad_request(format!(
            "{have} in the body does not match the expected {version}, Kind={kind}"
        )));
    }
    tree["kind"] = json!(kind);
    tree["apiVersion"] = json!(version);
    if !tree["metadata"].is_object() {
        tree["metadata"] = json!({});
    }
    Ok(tree)
}

/// `UserInfo` of `authentication.k8s.io/v1`.
fn user_info(user: &User) -> Tree {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}
