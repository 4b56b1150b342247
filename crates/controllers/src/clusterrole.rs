//! Aggregated ClusterRoles: the rules of all roles that their selectors match.

use api::snapshot::gvr_of;
use api::{Key, LabelSelector, Plan, Snapshot, Tree};
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::ClusterRole;
use serde_json::json;

use crate::kit::value::{canonical, list};
use crate::kit::{keys, op};
use crate::{Controller, Ctx, Watch};

pub fn controller() -> Controller {
    Controller {
        name: "clusterrole-aggregation",
        component: "clusterrole-aggregation-controller",
        watches: vec![Watch { gvr: gvr_of::<ClusterRole>(), indexes: vec![] }],
        every_kind: false,
        enqueue: |_, old, new, snapshot| {
            let mut keys = keys::own(old, new);
            let roles = snapshot.of::<ClusterRole>();
            // Only labelled roles can be selected.
            if [old, new].into_iter().flatten().any(|role| !role.header.labels.is_empty()) {
                let aggregated = roles.iter().filter(|role| !selectors(&role.tree()).is_empty());
                keys.extend(aggregated.map(|role| role.key.clone()));
            }
            keys
        },
        plan,
        workers: 1,
    }
}

fn selectors(role: &Tree) -> Vec<LabelSelector> {
    let all = list(role, "/aggregationRule/clusterRoleSelectors").iter();
    all.filter_map(|selector| LabelSelector::from_tree(selector).ok()).collect()
}

fn plan(_: &Ctx, snapshot: &Snapshot, key: &Key, _: Timestamp) -> Plan {
    let roles = snapshot.of::<ClusterRole>();
    let Some(role) = roles.get(key) else { return Plan::NOTHING };
    let tree = role.tree();
    let selectors = selectors(&tree);
    if selectors.is_empty() || role.header.deletion.is_some() {
        return Plan::NOTHING;
    }
    let mut rules: Vec<Tree> = vec![];
    for selector in &selectors {
        let chosen = roles.iter().filter(|other| other.key != role.key && selector.matches(&other.header.labels));
        for rule in chosen.flat_map(|other| list(&other.tree(), "/rules").to_vec()) {
            let rule = canonical(&rule);
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    let before: Vec<Tree> = list(&tree, "/rules").iter().map(canonical).collect();
    if before == rules {
        return Plan::NOTHING;
    }
    Plan::step(vec![op::merge_if_unchanged(&gvr_of::<ClusterRole>(), role, json!({ "rules": rules }))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn rules_follow_the_selected_roles() {
        let mut world = World::new(&["clusterrole-aggregation"]);
        let role = |name: &str, more: Tree| {
            let mut role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}});
            role.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            role
        };
        let rule = |verb: &str| json!([{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}]);
        world
            .put(role("view", json!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "view"}}]}})));
        let mut part = role("part", json!({"rules": rule("get")}));
        part["metadata"]["labels"] = json!({"to": "view"});
        world.put(part.clone());
        world.converge();
        let rules = |world: &World| world.get("rbac.authorization.k8s.io/v1", "ClusterRole", "view")["rules"].clone();
        assert_eq!(rules(&world), rule("get"));
        part["rules"] = rule("list");
        world.put(part);
        world.converge();
        assert_eq!(rules(&world), rule("list"));
    }
}
