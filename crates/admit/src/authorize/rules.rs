//! All rules of a user (`SelfSubjectRulesReview`), and whether some rules are within others (escalation).

use api::k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};

use super::rbac::{Grant, role_rules, url_matches, visit};
use crate::ports::Reader;
use crate::request::User;

/// What a user may do in a namespace and cluster-wide.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub rules: Vec<PolicyRule>,
    /// Bindings to roles that do not exist: the list may be incomplete. Empty when it is complete.
    pub error: String,
}

/// Everything RBAC grants the user in a namespace.
pub fn rules_for(user: &User, namespace: &str, reader: &dyn Reader) -> Rules {
    let mut found = Rules::default();
    let mut missing = Vec::new();
    if user.groups.iter().any(|group| group == super::MASTERS) {
        found.rules.extend(everything());
    }
    visit(user, namespace, reader, &mut |grant| {
        match grant {
            Grant::Rule(rule, _) => found.rules.push(rule.clone()),
            Grant::Missing(what) => missing.push(format!("{what} not found")),
        }
        true
    });
    found.error = missing.join(", ");
    found
}

fn everything() -> [PolicyRule; 2] {
    let all = || Some(vec!["*".to_owned()]);
    let verbs = vec!["*".to_owned()];
    [
        PolicyRule { api_groups: all(), resources: all(), verbs: verbs.clone(), ..PolicyRule::default() },
        PolicyRule { non_resource_urls: all(), verbs, ..PolicyRule::default() },
    ]
}

/// The rules of the role that a binding names.
pub(crate) fn rules_of(role: &RoleRef, namespace: &str, reader: &dyn Reader) -> Option<Vec<PolicyRule>> {
    role_rules(role, namespace, reader).map(|rules| rules.as_slice().to_vec())
}

/// Returns the parts of `wanted` that `held` does not grant, one verb, group and resource each.
pub fn covers(held: &[PolicyRule], wanted: &[PolicyRule]) -> Result<(), Vec<PolicyRule>> {
    let parts = wanted.iter().flat_map(break_down);
    let uncovered: Vec<PolicyRule> = parts.filter(|part| !held.iter().any(|rule| grants(rule, part))).collect();
    if uncovered.is_empty() { Ok(()) } else { Err(uncovered) }
}

/// One rule as rules of a single verb, group, resource and name.
fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut parts = Vec::new();
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    for verb in &rule.verbs {
        for group in list(&rule.api_groups) {
            for resource in list(&rule.resources) {
                let names = list(&rule.resource_names);
                let names =
                    if names.is_empty() { vec![None] } else { names.into_iter().map(|n| Some(vec![n])).collect() };
                parts.extend(names.into_iter().map(|resource_names| PolicyRule {
                    verbs: vec![verb.clone()],
                    api_groups: Some(vec![group.clone()]),
                    resources: Some(vec![resource.clone()]),
                    resource_names,
                    non_resource_urls: None,
                }));
            }
        }
        for url in list(&rule.non_resource_urls) {
            let urls = Some(vec![url]);
            parts.push(PolicyRule { verbs: vec![verb.clone()], non_resource_urls: urls, ..PolicyRule::default() });
        }
    }
    parts
}

/// Does a held rule grant one broken-down part?
fn grants(held: &PolicyRule, part: &PolicyRule) -> bool {
    let has = |list: &[String], want: &str| list.iter().any(|have| have == "*" || have == want);
    let only = |list: &Option<Vec<String>>| list.as_deref().and_then(<[String]>::first).cloned();
    let (Some(verb), slice) = (part.verbs.first(), |list: &Option<Vec<String>>| list.clone().unwrap_or_default())
    else {
        return true;
    };
    if !has(&held.verbs, verb) {
        return false;
    }
    if let Some(url) = only(&part.non_resource_urls) {
        return slice(&held.non_resource_urls).iter().any(|rule| url_matches(rule, &url));
    }
    let (Some(group), Some(resource)) = (only(&part.api_groups), only(&part.resources)) else { return false };
    let resources = slice(&held.resources);
    let by_sub = resource.split_once('/').is_some_and(|(_, sub)| resources.contains(&format!("*/{sub}")));
    let names = slice(&held.resource_names);
    let named = names.is_empty() || only(&part.resource_names).is_some_and(|name| names.contains(&name));
    has(&slice(&held.api_groups), &group) && (has(&resources, &resource) || by_sub) && named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> PolicyRule {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        PolicyRule {
            api_groups: Some(list(groups)),
            resources: Some(list(resources)),
            verbs: list(verbs),
            ..PolicyRule::default()
        }
    }

    #[test]
    fn a_role_is_within_what_is_held() {
        let held = [rule(&[""], &["pods", "*/status"], &["get", "list"]), rule(&["apps"], &["*"], &["*"])];
        assert!(covers(&held, &[rule(&[""], &["pods"], &["get"])]).is_ok());
        assert!(covers(&held, &[rule(&["apps"], &["deployments"], &["delete"])]).is_ok());
        assert!(covers(&held, &[rule(&[""], &["nodes/status"], &["list"])]).is_ok());
        let missing = covers(&held, &[rule(&["", "apps"], &["pods"], &["delete"])]).unwrap_err();
        assert_eq!(missing, [rule(&[""], &["pods"], &["delete"])]);
    }
}
