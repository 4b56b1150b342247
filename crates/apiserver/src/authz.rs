//! May they: the Node authorizer, then RBAC; the first that allows or denies decides, silence is refusal.

use admit::authorize::{Attributes, Decision};
use admit::{Reader, User};
use api::Status;

use crate::target::Target;

/// The verb of a request, as RBAC names it.
pub fn verb_of(method: &http::Method, target: &Target, watch: bool) -> &'static str {
    let named = match target {
        Target::Path(_) => return plain_verb(method),
        Target::Resource(resource) => !resource.name.is_empty(),
    };
    match method.as_str() {
        "GET" | "HEAD" if watch => "watch",
        "GET" | "HEAD" if named => "get",
        "GET" | "HEAD" => "list",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if named => "delete",
        "DELETE" => "deletecollection",
        _ => "",
    }
}

fn plain_verb(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        _ => "",
    }
}

/// What the authorizers are asked about a request.
pub fn attributes<'a>(user: &'a User, verb: &'a str, target: &'a Target) -> Attributes<'a> {
    match target {
        Target::Path(path) => Attributes { path, ..blank(user, verb) },
        Target::Resource(resource) => Attributes {
            group: &resource.group,
            version: &resource.version,
            resource: &resource.resource,
            subresource: &resource.subresource,
            namespace: &resource.namespace,
            name: &resource.name,
            ..blank(user, verb)
        },
    }
}

/// Attributes of nothing yet.
pub fn blank<'a>(user: &'a User, verb: &'a str) -> Attributes<'a> {
    Attributes { user, verb, group: "", version: "", resource: "", subresource: "", namespace: "", name: "", path: "" }
}

/// The reason of an allowing decision, or 403 worded as upstream words it.
pub fn authorize(attributes: &Attributes<'_>, reader: &dyn Reader) -> Result<String, Status> {
    match admit::authorize::authorize(attributes, reader) {
        Decision::Allow(reason) => Ok(reason),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(attributes.forbidden(&reason)),
    }
}

/// Attributes of an impersonation claim.
pub fn impersonation<'a>(user: &'a User, claim: &'a crate::authn::Claim) -> Attributes<'a> {
    let (group, resource, subresource, namespace, name) = claim;
    Attributes { group, version: "v1", resource, subresource, namespace, name, ..blank(user, "impersonate") }
}
