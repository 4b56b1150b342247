//! RBAC: nobody grants what they do not hold, unless they may `escalate` or `bind`.

use api::k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use api::{Status, Tree};

use crate::authorize::{Attributes, authorize, covers, rules_for, rules_of};
use crate::context::Cx;
use crate::doc;

pub(super) fn judge(cx: &Cx<'_>, tree: &Tree, old: Option<&Tree>) -> Result<(), Status> {
    if old.is_some_and(|old| {
        ["rules", "subjects", "roleRef", "aggregationRule"].iter().all(|part| old.get(*part) == tree.get(*part))
    }) {
        return Ok(());
    }
    let name = doc::text(tree, "metadata.name");
    let (verb, resource, role_name, wanted) = match cx.kind.gvk.kind.as_str() {
        "Role" | "ClusterRole" => {
            let rules: Vec<PolicyRule> = serde_json::from_value(doc::get(tree, "rules").clone()).unwrap_or_default();
            ("escalate", cx.kind.resource.as_str(), name, rules)
        }
        _ => {
            let role: RoleRef = serde_json::from_value(doc::get(tree, "roleRef").clone()).unwrap_or_default();
            let resource = if role.kind == "ClusterRole" { "clusterroles" } else { "roles" };
            let rules = rules_of(&role, &cx.request.namespace, cx.ports.reader);
            ("bind", resource, doc::text(tree, "roleRef.name"), rules.unwrap_or_else(anything))
        }
    };
    if may(cx, verb, resource, role_name) {
        return Ok(());
    }
    let held = rules_for(cx.user, &cx.request.namespace, cx.ports.reader);
    let Err(missing) = covers(&held.rules, &wanted) else { return Ok(()) };
    let lines: Vec<String> = missing.iter().map(shown).collect();
    let groups: Vec<String> = cx.user.groups.iter().map(|group| format!("{:?}", group.as_str())).collect();
    let why = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        cx.user.name.as_str(),
        groups.join(" "),
        lines.join("\n")
    );
    Err(cx.forbidden(name, &why))
}

/// A role that is not there yet may come to hold anything.
fn anything() -> Vec<PolicyRule> {
    let all = || Some(vec!["*".to_owned()]);
    vec![PolicyRule { api_groups: all(), resources: all(), verbs: vec!["*".to_owned()], ..PolicyRule::default() }]
}

fn may(cx: &Cx<'_>, verb: &str, resource: &str, name: &str) -> bool {
    let attributes = Attributes {
        user: cx.user,
        verb,
        group: "rbac.authorization.k8s.io",
        version: "*",
        resource,
        subresource: "",
        namespace: &cx.request.namespace,
        name,
        path: "",
    };
    authorize(&attributes, cx.ports.reader).is_allowed()
}

fn shown(rule: &PolicyRule) -> String {
    let mut parts = Vec::new();
    let list = |words: &[String]| words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" ");
    for (name, words) in [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("ResourceNames", &rule.resource_names),
        ("NonResourceURLs", &rule.non_resource_urls),
    ] {
        if let Some(words) = words.as_deref().filter(|words| !words.is_empty()) {
            parts.push(format!("{name}:[{}]", list(words)));
        }
    }
    parts.push(format!("Verbs:[{}]", list(&rule.verbs)));
    format!("{{{}}}", parts.join(", "))
}
