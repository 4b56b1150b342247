//! LimitRanger: a namespace's default, least and most of each resource.

use api::{Quantity, Status, Tree};

use crate::context::Cx;
use crate::doc;
use crate::vocabulary::quantity;

const LISTS: [&str; 2] = ["spec.containers", "spec.initContainers"];

/// Every limit of the namespace.
fn limits(cx: &Cx<'_>) -> Vec<Tree> {
    let ranges = cx.list("", "limitranges", Some(&cx.request.namespace));
    ranges.iter().flat_map(|range| doc::items(&range.tree(), "spec.limits").to_vec()).collect()
}

/// Gives containers the limits and requests they leave out.
pub(super) fn fill(cx: &Cx<'_>, pod: &mut Tree) {
    for limit in limits(cx).iter().filter(|limit| doc::text(limit, "type") == "Container") {
        for list in LISTS {
            for container in doc::items_mut(pod, list) {
                for (from, to) in [("default", "resources.limits"), ("defaultRequest", "resources.requests")] {
                    for (resource, amount) in doc::entries(limit, from) {
                        doc::object_mut(container, to).entry(resource.clone()).or_insert_with(|| amount.clone());
                    }
                }
            }
        }
    }
}

pub(super) fn check(cx: &Cx<'_>, tree: &Tree, old: Option<&Tree>) -> Result<(), Status> {
    let is_claim = cx.is("", "PersistentVolumeClaim");
    if old.is_some() && !is_claim && cx.sub() != "resize" {
        return Ok(());
    }
    let mut wrong: Vec<String> = Vec::new();
    for limit in limits(cx) {
        match (doc::text(&limit, "type"), is_claim) {
            ("PersistentVolumeClaim", true) => {
                judge(&limit, "PersistentVolumeClaim", doc::get(tree, "spec.resources"), &mut wrong)
            }
            ("Container", false) => {
                for container in LISTS.iter().flat_map(|list| doc::items(tree, list)) {
                    judge(&limit, "Container", doc::get(container, "resources"), &mut wrong);
                }
            }
            ("Pod", false) => judge(&limit, "Pod", &sum(tree), &mut wrong),
            _ => {}
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let why = if wrong.len() == 1 { wrong.concat() } else { format!("[{}]", wrong.join(", ")) };
    Err(cx.forbidden(doc::text(tree, "metadata.name"), &why))
}

fn judge(limit: &Tree, kind: &str, resources: &Tree, wrong: &mut Vec<String>) {
    let amount = |list: &str, resource: &str| resources.get(list).and_then(|list| list.get(resource));
    for (resource, bound) in doc::entries(limit, "min") {
        let (request, shown) = (amount("requests", resource), bound.as_str().unwrap_or_default());
        match request {
            None => wrong.push(format!("minimum {resource} usage per {kind} is {shown}.  No request is specified")),
            Some(request) if quantity(request) < quantity(bound) => {
                let have = request.as_str().unwrap_or_default();
                wrong.push(format!("minimum {resource} usage per {kind} is {shown}, but request is {have}"));
            }
            Some(_) => {}
        }
    }
    for (resource, bound) in doc::entries(limit, "max") {
        let list = if kind == "PersistentVolumeClaim" { "requests" } else { "limits" };
        let shown = bound.as_str().unwrap_or_default();
        match amount(list, resource) {
            None => wrong.push(format!("maximum {resource} usage per {kind} is {shown}.  No limit is specified")),
            Some(have) if quantity(have) > quantity(bound) => {
                let have = have.as_str().unwrap_or_default();
                let what = if list == "limits" { "limit" } else { "request" };
                wrong.push(format!("maximum {resource} usage per {kind} is {shown}, but {what} is {have}"));
            }
            Some(_) => {}
        }
    }
    for (resource, bound) in doc::entries(limit, "maxLimitRequestRatio") {
        let (Some(request), Some(most)) = (amount("requests", resource), amount("limits", resource)) else { continue };
        let (request, most, bound) = (quantity(request).nanos, quantity(most).nanos, quantity(bound).nanos);
        let one = Quantity::from_units(1).nanos;
        if request > 0 && most.saturating_mul(one) / request > bound {
            let ratio = bound / one.max(1);
            wrong.push(format!(
                "{resource} max limit to request ratio per {kind} is {ratio}, but provided ratio is {}",
                most / request
            ));
        }
    }
}

/// Requests and limits of all containers of a pod together.
fn sum(pod: &Tree) -> Tree {
    let mut total = Tree::Object(serde_json::Map::new());
    for container in doc::items(pod, "spec.containers") {
        for list in ["requests", "limits"] {
            for (resource, amount) in doc::entries(doc::get(container, "resources"), list) {
                let slot = doc::object_mut(&mut total, list);
                let have = slot.get(resource).map(quantity).unwrap_or_default();
                slot.insert(resource.clone(), Tree::String((have + quantity(amount)).to_string()));
            }
        }
    }
    total
}
