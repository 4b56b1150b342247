//! Binding: a pod gets its node, once.

use api::{Preconditions, Status, Tree};
use serde_json::json;

use crate::causes::{At, Causes};
use crate::context::{Cx, Gathered, Old, put};
use crate::delete::{preconditions, success};
use crate::pipeline::{Outcome, admitted};
use crate::request::Body;
use crate::{admission, doc};

pub(crate) async fn bind(cx: &Cx<'_>, old: Option<Old>, body: &Body) -> Result<Outcome, Status> {
    let old = old.ok_or_else(|| cx.not_found(&cx.request.name))?;
    let binding = &body.tree;
    let node = doc::text(binding, "target.name");
    check_binding(binding, node)?;
    let uid = doc::text(binding, "metadata.uid");
    let when = Preconditions { uid: (!uid.is_empty()).then(|| uid.into()), revision: None };
    preconditions(cx, &when, &old)?;
    check_pod(cx, &old.tree)?;
    let mut gathered = Gathered::default();
    admission::validate(cx, Some(&old.tree), Some(&old.tree), &mut gathered)?;

    let mut pod = old.tree.clone();
    doc::set(&mut pod, "spec.nodeName", node);
    for part in ["annotations", "labels"] {
        for (key, value) in doc::entries(binding, &format!("metadata.{part}")) {
            doc::object_mut(&mut pod, &format!("metadata.{part}")).insert(key.clone(), value.clone());
        }
    }
    scheduled(cx, &mut pod);
    let change = put(cx.place(&cx.request.name), Some(old.revision), &pod);
    let mut object = success(Tree::Null);
    doc::remove(&mut object, "details");
    let warnings = gathered.warnings;
    Ok(Outcome { admitted: admitted(cx, vec![change]), object, created: true, deleted: false, warnings })
}

fn check_binding(binding: &Tree, node: &str) -> Result<(), Status> {
    let mut causes = Causes::default();
    let kind = doc::get(binding, "target.kind");
    if !kind.is_null() && kind != "Node" && kind != "" {
        causes.not_supported(&At::of("target.kind"), kind, &["Node", "<empty>"]);
    }
    if node.is_empty() {
        causes.required(&At::of("target.name"), "");
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(Status::invalid("", "Binding", doc::text(binding, "metadata.name"), causes.into_vec()))
}

fn check_pod(cx: &Cx<'_>, pod: &Tree) -> Result<(), Status> {
    let name = cx.request.name.as_str();
    let conflict = |why: String| Err(Status::conflict("", "pods/binding", name, &why));
    if doc::has(pod, "metadata.deletionTimestamp") {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = doc::text(pod, "spec.nodeName");
    if !node.is_empty() {
        return conflict(format!("pod {name} is already assigned to node {node:?}"));
    }
    if !doc::items(pod, "spec.schedulingGates").is_empty() {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    Ok(())
}

fn scheduled(cx: &Cx<'_>, pod: &mut Tree) {
    let conditions = doc::list_mut(pod, "status.conditions");
    conditions.retain(|condition| doc::text(condition, "type") != "PodScheduled");
    conditions.push(json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": cx.stamp(),
    }));
}
