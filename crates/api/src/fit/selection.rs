//! Node selectors: labels, required affinity.

use std::collections::BTreeMap;

use base::SmolStr;
use k8s_openapi::api::core::v1 as core;

use crate::LabelSelector;

pub type Labels = BTreeMap<SmolStr, SmolStr>;

/// One alternative of a node selector: labels and fields (`metadata.name`).
#[derive(Clone, Debug, Default)]
pub struct NodeTerm {
    labels: LabelSelector,
    fields: LabelSelector,
    /// A term without any requirement matches nothing.
    empty: bool,
}

impl NodeTerm {
    pub fn parse(term: &core::NodeSelectorTerm) -> NodeTerm {
        let of = |list: Option<&Vec<core::NodeSelectorRequirement>>| {
            let expressions = serde_json::to_value(list.cloned().unwrap_or_default()).unwrap_or_default();
            LabelSelector::from_tree(&serde_json::json!({ "matchExpressions": expressions })).ok()
        };
        let labels = of(term.match_expressions.as_ref());
        let fields = of(term.match_fields.as_ref());
        match (labels, fields) {
            (Some(labels), Some(fields)) => NodeTerm { empty: labels.is_empty() && fields.is_empty(), labels, fields },
            // A term that cannot be read must not let a pod anywhere.
            _ => NodeTerm { empty: true, ..NodeTerm::default() },
        }
    }

    pub fn matches(&self, name: &SmolStr, labels: &Labels) -> bool {
        let fields = BTreeMap::from([(SmolStr::new_static("metadata.name"), name.clone())]);
        !self.empty && self.labels.matches(labels) && self.fields.matches(&fields)
    }
}

/// Any term suffices; an absent selector matches every node.
pub fn parse_selector(selector: Option<&core::NodeSelector>) -> Option<Vec<NodeTerm>> {
    Some(selector?.node_selector_terms.iter().map(NodeTerm::parse).collect())
}

pub fn any_term(terms: Option<&Vec<NodeTerm>>, name: &SmolStr, labels: &Labels) -> bool {
    terms.is_none_or(|terms| terms.iter().any(|term| term.matches(name, labels)))
}

/// Whether a pod's `nodeSelector` and required affinity hold for a node.
pub fn selected(spec: &core::PodSpec, name: &SmolStr, labels: &Labels) -> bool {
    let mut plain = spec.node_selector.iter().flatten();
    if !plain.all(|(key, value)| labels.get(key.as_str()).is_some_and(|have| have == value)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    any_term(parse_selector(required).as_ref(), name, labels)
}
