//! What a pod demands of nodes and of other pods, parsed once: selectors, terms, tolerations, spread constraints.

use std::collections::BTreeMap;

use api::fit::Labels;
use api::{LabelSelector, Tree};
use base::SmolStr;
use k8s_openapi::api::core::v1 as core;

/// A term of pod affinity or anti-affinity.
#[derive(Clone, Debug)]
pub struct PodTerm {
    pub topology_key: SmolStr,
    /// None matches no pod.
    selector: Option<LabelSelector>,
    namespaces: Vec<SmolStr>,
    namespace_selector: Option<LabelSelector>,
    pub weight: i64,
}

impl PodTerm {
    /// `namespace` and `labels` are those of the pod that has the term.
    pub fn parse(term: &core::PodAffinityTerm, weight: i32, namespace: &SmolStr, labels: &Labels) -> PodTerm {
        let mut selector = selector(term.label_selector.as_ref());
        if let Some(selector) = &mut selector {
            let also = |keys: &Option<Vec<String>>, operator| extra(keys, labels, operator);
            selector.requirements.extend(also(&term.match_label_keys, api::selector::Operator::In));
            selector.requirements.extend(also(&term.mismatch_label_keys, api::selector::Operator::NotIn));
        }
        let mut namespaces: Vec<SmolStr> = term.namespaces.iter().flatten().map(SmolStr::from).collect();
        let namespace_selector = self::selector(term.namespace_selector.as_ref());
        if namespaces.is_empty() && namespace_selector.is_none() {
            namespaces.push(namespace.clone());
        }
        let topology_key = term.topology_key.as_str().into();
        PodTerm { topology_key, selector, namespaces, namespace_selector, weight: i64::from(weight) }
    }

    pub fn matches(&self, namespace: &SmolStr, labels: &Labels, namespaces: &BTreeMap<SmolStr, Labels>) -> bool {
        let named = self.namespaces.contains(namespace);
        let empty = Labels::new();
        let of = namespaces.get(namespace).unwrap_or(&empty);
        let chosen = named || self.namespace_selector.as_ref().is_some_and(|selector| selector.matches(of));
        chosen && self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }
}

fn extra(
    keys: &Option<Vec<String>>,
    labels: &Labels,
    operator: api::selector::Operator,
) -> Vec<api::selector::Requirement> {
    let keys = keys.iter().flatten().filter_map(|key| Some((key, labels.get(key.as_str())?)));
    keys.map(|(key, value)| api::selector::Requirement { key: key.into(), operator, values: vec![value.clone()] })
        .collect()
}

pub fn selector(
    selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
) -> Option<LabelSelector> {
    let tree: Tree = serde_json::to_value(selector?).ok()?;
    LabelSelector::from_tree(&tree).ok()
}

#[derive(Clone, Debug)]
pub struct Spread {
    pub topology_key: SmolStr,
    pub skew_max: i64,
    /// `DoNotSchedule`; otherwise the constraint only scores.
    pub hard: bool,
    pub selector: LabelSelector,
    pub domains_min: i64,
    pub honor_affinity: bool,
    pub honor_taints: bool,
}

impl Spread {
    pub fn parse(constraint: &core::TopologySpreadConstraint, labels: &Labels) -> Spread {
        let mut selector = selector(constraint.label_selector.as_ref()).unwrap_or_else(nothing);
        selector.requirements.extend(extra(&constraint.match_label_keys, labels, api::selector::Operator::In));
        Spread {
            topology_key: constraint.topology_key.as_str().into(),
            skew_max: i64::from(constraint.max_skew),
            hard: constraint.when_unsatisfiable == "DoNotSchedule",
            selector,
            domains_min: i64::from(constraint.min_domains.unwrap_or(1)),
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }
}

/// A selector that matches no pod: a key both there and not there.
fn nothing() -> LabelSelector {
    let requirement = |operator| api::selector::Requirement { key: "-".into(), operator, values: vec![] };
    let both = [api::selector::Operator::Exists, api::selector::Operator::DoesNotExist];
    LabelSelector { requirements: both.into_iter().map(requirement).collect() }
}
