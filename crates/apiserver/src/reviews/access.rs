//! May they: the access reviews, answered by the authorizers that guard the API itself.

use admit::User;
use admit::authorize::{Attributes, Decision, authorize, rules_for};
use api::{Cause, Status, Tree};
use base::SmolStr;
use serde_json::{Map, json};

use crate::authz::blank;
use crate::context::Routed;

pub(super) fn own(routed: &Routed, review: &Tree) -> Result<Tree, Status> {
    answer(routed, &routed.cx.user, &review["spec"])
}

pub(super) fn of_subject(routed: &Routed, review: &Tree) -> Result<Tree, Status> {
    let spec = &review["spec"];
    answer(routed, &subject(routed, spec)?, spec)
}

pub(super) fn local(routed: &Routed, review: &Tree) -> Result<Tree, Status> {
    let spec = &review["spec"];
    let namespace = spec["resourceAttributes"]["namespace"].as_str().unwrap_or_default();
    if namespace != routed.target.namespace {
        let why = format!("must match metadata.namespace: {}", routed.target.namespace);
        return Err(invalid(routed, "spec.resourceAttributes.namespace", "Invalid value", &why));
    }
    answer(routed, &subject(routed, spec)?, spec)
}

pub(super) fn rules(routed: &Routed, review: &Tree) -> Result<Tree, Status> {
    let namespace = review["spec"]["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let found = rules_for(&routed.cx.user, namespace, &routed.cx.shared.reader);
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in &found.rules {
        let mut tree = Map::new();
        tree.insert("verbs".into(), json!(rule.verbs));
        if let Some(urls) = rule.non_resource_urls.as_ref().filter(|urls| !urls.is_empty()) {
            tree.insert("nonResourceURLs".into(), json!(urls));
            paths.push(Tree::Object(tree));
            continue;
        }
        tree.insert("apiGroups".into(), json!(rule.api_groups.clone().unwrap_or_default()));
        tree.insert("resources".into(), json!(rule.resources.clone().unwrap_or_default()));
        if let Some(names) = rule.resource_names.as_ref().filter(|names| !names.is_empty()) {
            tree.insert("resourceNames".into(), json!(names));
        }
        resources.push(Tree::Object(tree));
    }
    let incomplete = !found.error.is_empty();
    let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": incomplete});
    if incomplete {
        status["evaluationError"] = json!(found.error);
    }
    Ok(status)
}

fn subject(routed: &Routed, spec: &Tree) -> Result<User, Status> {
    let words = |tree: &Tree| -> Vec<SmolStr> {
        tree.as_array().into_iter().flatten().filter_map(Tree::as_str).map(SmolStr::new).collect()
    };
    let user = User {
        name: spec["user"].as_str().unwrap_or_default().into(),
        uid: spec["uid"].as_str().unwrap_or_default().into(),
        groups: words(&spec["groups"]),
        extra: spec["extra"]
            .as_object()
            .map(|extra| extra.iter().map(|(key, values)| (SmolStr::new(key), words(values))).collect())
            .unwrap_or_default(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        return Err(invalid(
            routed,
            "spec.user",
            "Invalid value",
            "\"\": at least one of user or group must be specified",
        ));
    }
    Ok(user)
}

fn answer(routed: &Routed, user: &User, spec: &Tree) -> Result<Tree, Status> {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if resource.is_object() == path.is_object() {
        let field = "spec.resourceAttributes";
        let why = if resource.is_object() {
            "cannot be specified in combination with nonResourceAttributes"
        } else {
            "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        };
        return Err(invalid(routed, field, "Invalid value", why));
    }
    fn text<'a>(tree: &'a Tree, name: &str) -> &'a str {
        tree[name].as_str().unwrap_or_default()
    }
    let attributes = if resource.is_object() {
        Attributes {
            group: text(resource, "group"),
            version: text(resource, "version"),
            resource: text(resource, "resource"),
            subresource: text(resource, "subresource"),
            namespace: text(resource, "namespace"),
            name: text(resource, "name"),
            ..blank(user, text(resource, "verb"))
        }
    } else {
        Attributes { path: text(path, "path"), ..blank(user, text(path, "verb")) }
    };
    let (allowed, denied, reason) = match authorize(&attributes, &routed.cx.shared.reader) {
        Decision::Allow(reason) => (true, false, reason),
        Decision::Deny(reason) => (false, true, reason),
        Decision::NoOpinion(reason) => (false, false, reason),
    };
    let mut status = json!({ "allowed": allowed });
    if denied {
        status["denied"] = json!(true);
    }
    if !reason.is_empty() {
        status["reason"] = json!(reason);
    }
    Ok(status)
}

fn invalid(routed: &Routed, field: &str, what: &str, why: &str) -> Status {
    let message = format!("{what}: {why}");
    let cause = Cause { reason: "FieldValueInvalid".into(), message, field: field.into() };
    Status::invalid(&routed.kind.gvk.group, &routed.kind.gvk.kind, "", vec![cause])
}
