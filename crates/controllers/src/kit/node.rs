//! Whether a pod's rules allow a node: selectors, required affinity, taints. For pods that are made for one node.

use api::{LabelSelector, Object};
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, PodSpec, Taint, Toleration};
use serde_json::json;
use std::collections::BTreeMap;

use crate::node::eviction::tolerates;

/// `nodeSelector` and required node affinity.
pub fn selected(spec: &PodSpec, node: &Object) -> bool {
    let labels = &node.header.labels;
    let mut plain = spec.node_selector.iter().flatten();
    if !plain.all(|(key, value)| labels.get(key.as_str()).is_some_and(|have| have == value)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let Some(required) = required else { return true };
    let fields = BTreeMap::from([("metadata.name".into(), node.key.name.clone())]);
    required.node_selector_terms.iter().any(|term| {
        let parse = |list: &Option<Vec<NodeSelectorRequirement>>| {
            LabelSelector::from_tree(&json!({ "matchExpressions": list.clone().unwrap_or_default() }))
        };
        let empty = term.match_expressions.as_ref().is_none_or(Vec::is_empty)
            && term.match_fields.as_ref().is_none_or(Vec::is_empty);
        let held = |list, map: &BTreeMap<_, _>| parse(list).is_ok_and(|selector| selector.matches(map));
        !empty && held(&term.match_expressions, labels) && held(&term.match_fields, &fields)
    })
}

pub fn tolerates_all<'t>(tolerations: &[Toleration], mut taints: impl Iterator<Item = &'t Taint>) -> bool {
    taints.all(|taint| tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}
