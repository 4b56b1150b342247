//! Nodes, events, quotas, bindings, and the cluster's own configuration.

use jiff::Timestamp;
use serde_json::json;

use super::{NONE, UNKNOWN, age, count, or, plain};
use crate::{Tree, meta};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

/// Status, Roles, Internal-IP, External-IP, OS-Image, Kernel-Version, Container-Runtime.
pub(super) fn node(object: &Tree) -> Vec<Tree> {
    let address = |ty: &str| {
        let addresses = meta::list_at(object, "status.addresses");
        let found = addresses.iter().find(|one| meta::str_at(one, "type") == ty);
        json!(found.map_or(NONE, |one| or(meta::str_at(one, "address"), NONE)))
    };
    let info = |name: &str| json!(or(meta::str_at(object, &format!("status.nodeInfo.{name}")), UNKNOWN));
    vec![
        json!(node_status(object)),
        json!(node_roles(object)),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn node_status(object: &Tree) -> String {
    let conditions = meta::list_at(object, "status.conditions");
    let ready = conditions.iter().find(|one| meta::str_at(one, "type") == "Ready");
    let ready = ready.map_or("Unknown", |one| if meta::str_at(one, "status") == "True" { "Ready" } else { "NotReady" });
    let suffix = if meta::bool_at(object, "spec.unschedulable") { ",SchedulingDisabled" } else { "" };
    format!("{ready}{suffix}")
}

fn node_roles(object: &Tree) -> String {
    let labels = meta::labels(object);
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in &labels {
        match key.strip_prefix(ROLE_PREFIX) {
            Some(role) if !role.is_empty() => roles.push(role),
            None if key == ROLE_LABEL && !value.is_empty() => roles.push(value),
            _ => {}
        }
    }
    roles.sort_unstable();
    roles.dedup();
    or(&roles.join(","), NONE).to_owned()
}

/// Last Seen, Object, Subobject, Source, Message, First Seen, Count.
pub(super) fn event(object: &Tree, now: Timestamp) -> Vec<Tree> {
    let text = |path: &str| meta::tree_at(object, path).map(plain).unwrap_or_default();
    let time = |path: &str| meta::tree_at(object, path).filter(|time| !time.is_null());
    let about = |name: &str| text(&format!("involvedObject.{name}"));
    let first = time("firstTimestamp").or_else(|| time("eventTime"));
    let last = time("series.lastObservedTime").or_else(|| time("lastTimestamp")).or(first);
    let count = meta::i64_at(object, "series.count").or_else(|| meta::i64_at(object, "count"));
    let component = or(&text("source.component"), &text("reportingComponent")).to_owned();
    let host = text("source.host");
    let source = if host.is_empty() { component } else { format!("{component}, {host}") };
    vec![
        json!(age::since(last, now)),
        json!(format!("{}/{}", about("kind").to_lowercase(), about("name"))),
        json!(about("fieldPath")),
        json!(source),
        json!(text("message").trim()),
        json!(age::since(first, now)),
        json!(count.unwrap_or(1)),
    ]
}

/// Status, Message, Error.
pub(super) fn component_status(object: &Tree) -> Vec<Tree> {
    let healthy = meta::list_at(object, "conditions").iter().find(|one| meta::str_at(one, "type") == "Healthy");
    let Some(healthy) = healthy else { return vec![json!("Unknown"), json!(""), json!("")] };
    let status = if meta::str_at(healthy, "status") == "True" { "Healthy" } else { "Unhealthy" };
    vec![json!(status), json!(meta::str_at(healthy, "message")), json!(meta::str_at(healthy, "error"))]
}

/// Request, Limit.
pub(super) fn quota(object: &Tree) -> Vec<Tree> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (name, hard) in meta::tree_at(object, "status.hard").and_then(Tree::as_object).into_iter().flatten() {
        let used = meta::tree_at_parts(object, &["status", "used", name]);
        let word = format!("{name}: {}/{}", used.map_or_else(|| "0".to_owned(), plain), plain(hard));
        if name.starts_with("limits.") { limits.push(word) } else { requests.push(word) }
    }
    vec![json!(requests.join(", ")), json!(limits.join(", "))]
}

/// Role, Users, Groups, ServiceAccounts.
pub(super) fn role_binding(object: &Tree) -> Vec<Tree> {
    let subjects = meta::list_at(object, "subjects");
    let names = |kind: &str| {
        let found = subjects.iter().filter(|one| meta::str_at(one, "kind") == kind);
        let name = |one: &Tree| match meta::str_at(one, "namespace") {
            "" => meta::str_at(one, "name").to_owned(),
            namespace => format!("{namespace}/{}", meta::str_at(one, "name")),
        };
        json!(found.map(name).collect::<Vec<_>>().join(", "))
    };
    let role = format!("{}/{}", meta::str_at(object, "roleRef.kind"), meta::str_at(object, "roleRef.name"));
    vec![json!(role), names("User"), names("Group"), names("ServiceAccount")]
}

/// RequestedDuration, Condition.
pub(super) fn signing_request(object: &Tree) -> Vec<Tree> {
    let seconds = meta::i64_at(object, "spec.expirationSeconds");
    let conditions = meta::list_at(object, "status.conditions");
    let has = |ty: &str| conditions.iter().any(|one| meta::str_at(one, "type") == ty);
    let mut text = vec![match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }];
    if has("Failed") {
        text.push("Failed");
    }
    if !meta::str_at(object, "status.certificate").is_empty() {
        text.push("Issued");
    }
    vec![json!(seconds.map_or_else(|| NONE.to_owned(), super::human_duration)), json!(text.join(","))]
}

/// Service, Available.
pub(super) fn api_service(object: &Tree) -> Vec<Tree> {
    let service = meta::tree_at(object, "spec.service").filter(|service| !service.is_null());
    let service = service.map_or_else(
        || "Local".to_owned(),
        |service| format!("{}/{}", meta::str_at(service, "namespace"), meta::str_at(service, "name")),
    );
    let conditions = meta::list_at(object, "status.conditions");
    let available = conditions.iter().find(|one| meta::str_at(one, "type") == "Available");
    let available = available.map_or_else(
        || "Unknown".to_owned(),
        |one| match meta::str_at(one, "status") {
            "True" => "True".to_owned(),
            status => format!("{status} ({})", meta::str_at(one, "reason")),
        },
    );
    vec![json!(service), json!(available)]
}

/// DistinguisherMethod, MissingPL.
pub(super) fn flow_schema(object: &Tree) -> Vec<Tree> {
    let conditions = meta::list_at(object, "status.conditions");
    let dangling = conditions.iter().find(|one| meta::str_at(one, "type") == "Dangling");
    let missing = dangling.map_or("?", |one| meta::str_at(one, "status"));
    vec![json!(or(meta::str_at(object, "spec.distinguisherMethod.type"), NONE)), json!(missing)]
}

/// NominalConcurrencyShares, Queues, HandSize, QueueLengthLimit.
pub(super) fn priority_level(object: &Tree) -> Vec<Tree> {
    let path = if meta::str_at(object, "spec.type") == "Exempt" { "spec.exempt" } else { "spec.limited" };
    let cell = |path: String| json!(meta::i64_at(object, &path).map_or_else(|| NONE.to_owned(), |n| n.to_string()));
    let queue = |name: &str| cell(format!("spec.limited.limitResponse.queuing.{name}"));
    vec![
        cell(format!("{path}.nominalConcurrencyShares")),
        queue("queues"),
        queue("handSize"),
        queue("queueLengthLimit"),
    ]
}

/// Validations or Mutations, ParamKind.
pub(super) fn policy(object: &Tree, list: &str) -> Vec<Tree> {
    let kind = meta::tree_at(object, "spec.paramKind").map_or_else(
        || "<unset>".to_owned(),
        |kind| format!("{}/{}", meta::str_at(kind, "apiVersion"), meta::str_at(kind, "kind")),
    );
    vec![count(object, list), json!(kind)]
}

/// ParamRef.
pub(super) fn policy_binding(object: &Tree) -> Vec<Tree> {
    let reference = meta::tree_at(object, "spec.paramRef").map_or_else(
        || "<unset>".to_owned(),
        |reference| match (meta::str_at(reference, "namespace"), meta::str_at(reference, "name")) {
            (_, "") => "<selector>".to_owned(),
            ("", name) => format!("*/{name}"),
            (namespace, name) => format!("{namespace}/{name}"),
        },
    );
    vec![json!(reference)]
}
