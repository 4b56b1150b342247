//! Eviction: a deletion that its disruption budget has to allow; both are written in one batch.

use std::sync::Arc;

use api::status::Details;
use api::{Cause, LabelSelector, Object, Preconditions, Propagation, Reason, Status, Tree};
use serde_json::json;

use crate::context::{Cx, Gathered, Old, place_of, put};
use crate::delete::{Wish, outcome, preconditions, success, too_many_requests};
use crate::pipeline::Outcome;
use crate::request::Body;
use crate::{admission, doc};

/// Pods that a budget may hold as being disrupted at once (upstream's `MaxDisruptedPodSize`).
const DISRUPTED_PODS_MAX: usize = 2000;
const VIOLATED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

pub(crate) async fn evict(cx: &Cx<'_>, old: Option<Old>, body: &Body) -> Result<Outcome, Status> {
    let old = old.ok_or_else(|| cx.not_found(&cx.request.name))?;
    let options = doc::get(&body.tree, "deleteOptions");
    let uid = doc::text(options, "preconditions.uid");
    let when = Preconditions {
        uid: (!uid.is_empty()).then(|| uid.into()),
        revision: doc::text(options, "preconditions.resourceVersion").parse().ok(),
    };
    preconditions(cx, &when, &old)?;
    let mut gathered = Gathered::default();
    admission::validate(cx, None, Some(&old.tree), &mut gathered)?;
    if !ignores_budgets(&old.tree)
        && let Some(budget) = budget_of(cx, &old.tree)?
    {
        spend(cx, &old.tree, &budget, &mut gathered)?;
    }
    let wish = Wish {
        propagation: Propagation::parse(doc::text(options, "propagationPolicy")),
        grace_seconds: doc::int(options, "gracePeriodSeconds"),
    };
    let mut evicted = outcome(cx, old, wish, gathered)?;
    evicted.object = success(Tree::Null);
    doc::remove(&mut evicted.object, "details");
    (evicted.created, evicted.deleted) = (true, false);
    Ok(evicted)
}

/// A pod that is over, not yet started or already going costs no budget.
fn ignores_budgets(pod: &Tree) -> bool {
    matches!(doc::text(pod, "status.phase"), "Succeeded" | "Failed" | "Pending")
        || doc::has(pod, "metadata.deletionTimestamp")
}

fn budget_of(cx: &Cx<'_>, pod: &Tree) -> Result<Option<Arc<Object>>, Status> {
    let labels = api::Header::of(pod).labels;
    let mut matching = cx.list("policy", "poddisruptionbudgets", Some(&cx.request.namespace));
    matching.retain(|budget| {
        let tree = budget.tree();
        let selector = doc::at(&tree, "spec.selector");
        selector.is_some_and(|selector| LabelSelector::from_tree(selector).is_ok_and(|s| s.matches(&labels)))
    });
    if matching.len() > 1 {
        let message =
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(Status::new(Reason::InternalError, message));
    }
    Ok(matching.pop())
}

/// Takes one allowed disruption, or refuses.
fn spend(cx: &Cx<'_>, pod: &Tree, budget: &Arc<Object>, gathered: &mut Gathered) -> Result<(), Status> {
    let mut tree = budget.tree();
    let name = budget.key.name.as_str();
    let count = |field: &str| doc::int(&tree, &format!("status.{field}")).unwrap_or(0);
    if !is_ready(pod) && unhealthy_may_go(&tree, count("currentHealthy"), count("desiredHealthy")) {
        return Ok(());
    }
    if count("observedGeneration") < doc::int(&tree, "metadata.generation").unwrap_or(0) {
        return Err(violated(format!("The disruption budget {name} is still being processed by the server."), 10));
    }
    let allowed = count("disruptionsAllowed");
    if allowed < 0 {
        return Err(Status::forbidden("policy", "poddisruptionbudget", name, "pdb disruptions allowed is negative"));
    }
    if doc::entries(&tree, "status.disruptedPods").count() > DISRUPTED_PODS_MAX {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden("policy", "poddisruptionbudget", name, why));
    }
    if allowed == 0 {
        let (want, have) = (count("desiredHealthy"), count("currentHealthy"));
        let why = format!("The disruption budget {name} needs {want} healthy pods and has {have} currently");
        return Err(violated(why, 0));
    }
    doc::set(&mut tree, "status.disruptionsAllowed", allowed - 1);
    doc::object_mut(&mut tree, "status.disruptedPods")
        .insert(doc::text(pod, "metadata.name").to_owned(), json!(cx.stamp()));
    let place = place_of("policy", "poddisruptionbudgets", &budget.key.namespace, name);
    gathered.changes.push(put(place, Some(budget.revision), &tree));
    Ok(())
}

fn unhealthy_may_go(budget: &Tree, healthy: i64, desired: i64) -> bool {
    match doc::text(budget, "spec.unhealthyPodEvictionPolicy") {
        "AlwaysAllow" => true,
        _ => healthy >= desired && desired > 0,
    }
}

fn is_ready(pod: &Tree) -> bool {
    let mut conditions = doc::items(pod, "status.conditions").iter();
    conditions.any(|condition| doc::text(condition, "type") == "Ready" && doc::text(condition, "status") == "True")
}

fn violated(why: String, retry_after_seconds: u32) -> Status {
    let mut status = too_many_requests(VIOLATED);
    let causes = vec![Cause { reason: "DisruptionBudget".into(), message: why, field: String::new() }];
    status.details = Some(Box::new(Details { causes, retry_after_seconds, ..Details::default() }));
    status
}
