//! Which nodes a pod wants and beside whom: node and pod affinity.

use api::Tree;
use serde_json::json;

use super::network::selector;
use crate::causes::{At, Causes};
use crate::{doc, names};

pub(super) fn check(spec: &Tree, at: &At, causes: &mut Causes) {
    let Some(affinity) = doc::at(spec, "affinity") else { return };
    let at = at.child("affinity");
    if let Some(node) = doc::at(affinity, "nodeAffinity") {
        let at = at.child("nodeAffinity");
        if let Some(required) = doc::at(node, REQUIRED) {
            node_selector(required, &at.child(REQUIRED), causes);
        }
        for (index, preferred) in doc::items(node, PREFERRED).iter().enumerate() {
            let at = at.child(PREFERRED).index(index);
            weight(preferred, &at, causes);
            node_term(doc::get(preferred, "preference"), &at.child("preference"), causes);
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = doc::at(affinity, kind) else { continue };
        let at = at.child(kind);
        for (index, term) in doc::items(pods, REQUIRED).iter().enumerate() {
            pod_term(term, &at.child(REQUIRED).index(index), causes);
        }
        for (index, preferred) in doc::items(pods, PREFERRED).iter().enumerate() {
            let at = at.child(PREFERRED).index(index);
            weight(preferred, &at, causes);
            pod_term(doc::get(preferred, "podAffinityTerm"), &at.child("podAffinityTerm"), causes);
        }
    }
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Also of volumes, which say where they can be reached.
pub(super) fn node_selector(selector: &Tree, at: &At, causes: &mut Causes) {
    for (index, term) in doc::items(selector, "nodeSelectorTerms").iter().enumerate() {
        node_term(term, &at.child("nodeSelectorTerms").index(index), causes);
    }
}

fn weight(preferred: &Tree, at: &At, causes: &mut Causes) {
    let weight = doc::int(preferred, "weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        causes.invalid(&at.child("weight"), &json!(weight), "must be in the range 1-100");
    }
}

fn node_term(term: &Tree, at: &At, causes: &mut Causes) {
    for (index, wanted) in doc::items(term, "matchExpressions").iter().enumerate() {
        let at = at.child("matchExpressions").index(index);
        expression(wanted, &at, causes);
        let key = doc::text(wanted, "key");
        names::qualified(key).iter().for_each(|why| causes.invalid_text(&at.child("key"), key, why));
    }
    for (index, wanted) in doc::items(term, "matchFields").iter().enumerate() {
        let at = at.child("matchFields").index(index);
        let operator = doc::text(wanted, "operator");
        match (operator, doc::items(wanted, "values").len()) {
            ("In" | "NotIn", 1) => {}
            ("In" | "NotIn", _) => {
                let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                causes.required(&at.child("values"), why);
            }
            _ => causes.invalid_text(&at.child("operator"), operator, "not a valid selector operator"),
        }
        let key = doc::text(wanted, "key");
        if key != "metadata.name" {
            causes.invalid_text(&at.child("key"), key, "not a valid field selector key");
        }
    }
}

fn expression(wanted: &Tree, at: &At, causes: &mut Causes) {
    let operator = doc::text(wanted, "operator");
    let values = at.child("values");
    match (operator, doc::items(wanted, "values").len()) {
        ("In" | "NotIn", 0) => causes.required(&values, "must be specified when `operator` is 'In' or 'NotIn'"),
        ("Exists" | "DoesNotExist", 1..) => {
            causes.forbidden(&values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        ("Gt" | "Lt", 0 | 2..) => {
            causes.required(&values, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        ("In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt", _) => {}
        _ => causes.invalid_text(&at.child("operator"), operator, "not a valid selector operator"),
    }
}

fn pod_term(term: &Tree, at: &At, causes: &mut Causes) {
    for field in ["labelSelector", "namespaceSelector"].into_iter().filter(|field| doc::has(term, field)) {
        selector(doc::get(term, field), &at.child(field), causes);
    }
    for (index, name) in doc::items(term, "namespaces").iter().enumerate() {
        let name = name.as_str().unwrap_or_default();
        let at = at.child("namespaces").index(index);
        names::label(name).iter().for_each(|why| causes.invalid_text(&at, name, why));
    }
    let key = doc::text(term, "topologyKey");
    if !key.is_empty() {
        names::qualified(key).iter().for_each(|why| causes.invalid_text(&at.child("topologyKey"), key, why));
    }
}
