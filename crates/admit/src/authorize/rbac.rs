//! Role-based access control: roles, bindings, subjects.

use std::sync::Arc;

use api::k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};

use super::{Attributes, Decision, MASTERS, user_name_of_account};
use crate::context::place_of;
use crate::ports::{Reader, storage_of};
use crate::request::User;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Roles and bindings, cluster-wide and of the request's namespace.
pub fn rbac(attributes: &Attributes<'_>, reader: &dyn Reader) -> Decision {
    if attributes.user.groups.iter().any(|group| group == MASTERS) {
        return Decision::Allow(String::new());
    }
    let mut missing = Vec::new();
    let mut allowed = None;
    visit(attributes.user, attributes.namespace, reader, &mut |grant| {
        match grant {
            Grant::Rule(rule, why) if allows(rule, attributes) => allowed = Some(why()),
            Grant::Rule(..) => {}
            Grant::Missing(what) => missing.push(format!("RBAC: {what} not found")),
        }
        allowed.is_none()
    });
    match allowed {
        Some(why) => Decision::Allow(why),
        None => Decision::NoOpinion(missing.join(", ")),
    }
}

/// What a visit meets.
pub(super) enum Grant<'a> {
    Rule(&'a PolicyRule, &'a dyn Fn() -> String),
    /// A binding names a role that is not there.
    Missing(String),
}

/// Calls `each` with every rule that applies to the user until it returns false.
pub(super) fn visit(user: &User, namespace: &str, reader: &dyn Reader, each: &mut dyn FnMut(Grant<'_>) -> bool) {
    for object in reader.list(&storage_of(GROUP, "clusterrolebindings"), None) {
        let Ok(binding) = object.typed::<ClusterRoleBinding>() else { continue };
        let Some(subject) = find(user, binding.subjects.as_deref().unwrap_or_default(), "") else { continue };
        let name = object.key.name.as_str();
        let said = |role: &RoleRef| {
            format!(
                "RBAC: allowed by ClusterRoleBinding {name:?} of {} {:?} to {}",
                role.kind,
                role.name,
                told(subject)
            )
        };
        if !follow(&binding.role_ref, "", reader, &|| said(&binding.role_ref), each) {
            return;
        }
    }
    if namespace.is_empty() {
        return;
    }
    for object in reader.list(&storage_of(GROUP, "rolebindings"), Some(namespace)) {
        let Ok(binding) = object.typed::<RoleBinding>() else { continue };
        let Some(subject) = find(user, binding.subjects.as_deref().unwrap_or_default(), namespace) else { continue };
        let name = format!("{}/{}", object.key.name, namespace);
        let said = |role: &RoleRef| {
            format!("RBAC: allowed by RoleBinding {name:?} of {} {:?} to {}", role.kind, role.name, told(subject))
        };
        if !follow(&binding.role_ref, namespace, reader, &|| said(&binding.role_ref), each) {
            return;
        }
    }
}

fn follow(
    role: &RoleRef,
    namespace: &str,
    reader: &dyn Reader,
    why: &dyn Fn() -> String,
    each: &mut dyn FnMut(Grant<'_>) -> bool,
) -> bool {
    match role_rules(role, namespace, reader) {
        Some(rules) => rules.as_slice().iter().all(|rule| each(Grant::Rule(rule, why))),
        None => each(Grant::Missing(format!("{} {:?}", role.kind.to_lowercase(), role.name))),
    }
}

/// The rules of a role, shared with the object they are decoded from.
pub(super) enum RuleSet {
    Cluster(Arc<ClusterRole>),
    Namespaced(Arc<Role>),
}

impl RuleSet {
    pub(super) fn as_slice(&self) -> &[PolicyRule] {
        match self {
            RuleSet::Cluster(role) => role.rules.as_deref(),
            RuleSet::Namespaced(role) => role.rules.as_deref(),
        }
        .unwrap_or_default()
    }
}

pub(super) fn role_rules(role: &RoleRef, namespace: &str, reader: &dyn Reader) -> Option<RuleSet> {
    if role.kind == "ClusterRole" {
        let object = reader.get(&place_of(GROUP, "clusterroles", "", &role.name))?;
        return object.typed::<ClusterRole>().ok().map(RuleSet::Cluster);
    }
    let object = reader.get(&place_of(GROUP, "roles", namespace, &role.name))?;
    object.typed::<Role>().ok().map(RuleSet::Namespaced)
}

/// The first subject that is this user. Kinds matter: a user and a group may share a name.
fn find<'a>(user: &User, subjects: &'a [Subject], namespace: &str) -> Option<&'a Subject> {
    subjects.iter().find(|subject| match subject.kind.as_str() {
        "User" => user.name == subject.name,
        "Group" => user.groups.iter().any(|group| *group == subject.name),
        "ServiceAccount" => {
            let space = subject.namespace.as_deref().filter(|space| !space.is_empty()).unwrap_or(namespace);
            !space.is_empty() && user.name == user_name_of_account(space, &subject.name)
        }
        _ => false,
    })
}

fn told(subject: &Subject) -> String {
    match subject.namespace.as_deref().filter(|_| subject.kind == "ServiceAccount") {
        Some(namespace) => format!("{} \"{}/{namespace}\"", subject.kind, subject.name),
        None => format!("{} {:?}", subject.kind, subject.name),
    }
}

/// Does one rule allow the request?
pub fn allows(rule: &PolicyRule, attributes: &Attributes<'_>) -> bool {
    let verb = rule.verbs.iter().any(|verb| verb == "*" || verb == attributes.verb);
    if !verb {
        return false;
    }
    if !attributes.is_resource() {
        let urls = rule.non_resource_urls.as_deref().unwrap_or_default();
        return urls.iter().any(|url| url_matches(url, attributes.path));
    }
    let any = |list: &Option<Vec<String>>, want: &str| {
        list.as_deref().unwrap_or_default().iter().any(|have| have == "*" || have == want)
    };
    let names = rule.resource_names.as_deref().unwrap_or_default();
    any(&rule.api_groups, attributes.group)
        && resource_matches(rule.resources.as_deref().unwrap_or_default(), attributes)
        && (names.is_empty() || names.iter().any(|name| name == attributes.name))
}

/// `*` is everything, `pods/log` one subresource, `*/scale` that subresource of everything.
fn resource_matches(resources: &[String], attributes: &Attributes<'_>) -> bool {
    resources.iter().any(|rule| {
        if rule == "*" {
            return true;
        }
        match rule.split_once('/') {
            None => attributes.subresource.is_empty() && rule == attributes.resource,
            Some((resource, sub)) => {
                sub == attributes.subresource && (resource == "*" || resource == attributes.resource)
            }
        }
    })
}

/// A trailing `*` matches any rest.
pub(super) fn url_matches(rule: &str, path: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => rule == path,
    }
}
