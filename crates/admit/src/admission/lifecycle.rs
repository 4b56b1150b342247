//! Namespaces: nothing is made where there is none or it is going; some never go.

use api::{Cause, Status, Tree};

use crate::context::Cx;
use crate::doc;

/// Without these the cluster does not work.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) fn creation(cx: &Cx<'_>, tree: &Tree, old: Option<&Tree>) -> Result<(), Status> {
    if old.is_some() || !cx.kind.is_namespaced() {
        return Ok(());
    }
    let namespace = cx.request.namespace.as_str();
    let Some(object) = cx.read("", "namespaces", "", namespace) else {
        return Err(Status::not_found("", "namespaces", namespace));
    };
    if object.header.deletion.is_none() {
        return Ok(());
    }
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut status = cx.forbidden(doc::text(tree, "metadata.name"), &why);
    status.details.get_or_insert_default().causes = vec![Cause {
        reason: "NamespaceTerminating".into(),
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".into(),
    }];
    Err(status)
}

pub(super) fn deletion(cx: &Cx<'_>) -> Result<(), Status> {
    let name = cx.request.name.as_str();
    if cx.is("", "Namespace") && IMMORTAL.contains(&name) {
        return Err(cx.forbidden(name, "this namespace may not be deleted"));
    }
    Ok(())
}
