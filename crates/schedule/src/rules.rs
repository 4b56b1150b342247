//! What a pod demands of nodes and of other pods, parsed once: selectors, terms, tolerations, spread constraints.

use std::collections::BTreeMap;

use api::{LabelSelector, Tree};
use base::SmolStr;
use k8s_openapi::api::core::v1 as core;

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

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    pub key: SmolStr,
    pub value: SmolStr,
    pub effect: SmolStr,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toleration {
    key: SmolStr,
    exists: bool,
    value: SmolStr,
    effect: SmolStr,
}

impl Toleration {
    pub fn parse(toleration: &core::Toleration) -> Toleration {
        let text = |part: &Option<String>| SmolStr::from(part.as_deref().unwrap_or_default());
        Toleration {
            key: text(&toleration.key),
            exists: toleration.operator.as_deref() == Some("Exists"),
            value: text(&toleration.value),
            effect: text(&toleration.effect),
        }
    }

    pub fn tolerates(&self, taint: &Taint) -> bool {
        let effect = self.effect.is_empty() || self.effect == taint.effect;
        let key = self.key.is_empty() && self.exists || self.key == taint.key;
        effect && key && (self.exists || self.value == taint.value)
    }
}
