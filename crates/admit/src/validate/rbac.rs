//! Roles and bindings.

use api::Tree;

use crate::causes::{At, Causes};
use crate::{doc, names};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn object(kind: &str, tree: &Tree, old: Option<&Tree>, causes: &mut Causes) {
    if kind.ends_with("Binding") {
        return binding(kind, tree, old, causes);
    }
    for (index, rule) in doc::items(tree, "rules").iter().enumerate() {
        self::rule(rule, kind == "Role", &At::of("rules").index(index), causes);
    }
}

fn rule(rule: &Tree, namespaced: bool, at: &At, causes: &mut Causes) {
    let has = |field: &str| !doc::items(rule, field).is_empty();
    if !has("verbs") {
        causes.required(&at.child("verbs"), "verbs must contain at least one value");
    }
    if has("nonResourceURLs") {
        if namespaced {
            let why = "namespaced rules cannot apply to non-resource URLs";
            causes.invalid(&at.child("nonResourceURLs"), doc::get(rule, "nonResourceURLs"), why);
        }
        if has("apiGroups") || has("resources") || has("resourceNames") {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            causes.invalid(&at.child("nonResourceURLs"), doc::get(rule, "nonResourceURLs"), why);
        }
        return;
    }
    if !has("apiGroups") {
        causes.required(&at.child("apiGroups"), "resource rules must supply at least one api group");
    }
    if !has("resources") {
        causes.required(&at.child("resources"), "resource rules must supply at least one resource");
    }
}

fn binding(kind: &str, tree: &Tree, old: Option<&Tree>, causes: &mut Causes) {
    let role = doc::get(tree, "roleRef");
    let at = At::of("roleRef");
    if doc::text(role, "apiGroup") != GROUP {
        causes.not_supported(&at.child("apiGroup"), doc::get(role, "apiGroup"), &[GROUP]);
    }
    let kinds: &[&str] = if kind == "ClusterRoleBinding" { &["ClusterRole"] } else { &["ClusterRole", "Role"] };
    if !kinds.contains(&doc::text(role, "kind")) {
        causes.not_supported(&at.child("kind"), doc::get(role, "kind"), kinds);
    }
    let name = doc::text(role, "name");
    if name.is_empty() {
        causes.required(&at.child("name"), "");
    } else {
        names::path_segment(name).iter().for_each(|why| causes.invalid_text(&at.child("name"), name, why));
    }
    for (index, subject) in doc::items(tree, "subjects").iter().enumerate() {
        self::subject(subject, kind, &At::of("subjects").index(index), causes);
    }
    if old.is_some_and(|old| doc::get(old, "roleRef") != role) {
        causes.invalid(&at, role, "cannot change roleRef");
    }
}

fn subject(subject: &Tree, binding: &str, at: &At, causes: &mut Causes) {
    if doc::text(subject, "name").is_empty() {
        causes.required(&at.child("name"), "");
    }
    let group = doc::get(subject, "apiGroup");
    match doc::text(subject, "kind") {
        "ServiceAccount" => {
            if !doc::text(subject, "apiGroup").is_empty() {
                causes.not_supported(&at.child("apiGroup"), group, &[""]);
            }
            if doc::text(subject, "namespace").is_empty() && binding == "ClusterRoleBinding" {
                causes.required(&at.child("namespace"), "");
            }
        }
        "User" | "Group" => {
            if doc::text(subject, "apiGroup") != GROUP {
                causes.not_supported(&at.child("apiGroup"), group, &[GROUP]);
            }
        }
        _ => causes.not_supported(&at.child("kind"), doc::get(subject, "kind"), &["Group", "ServiceAccount", "User"]),
    }
}
