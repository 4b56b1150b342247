//! Operations in the forms the controllers use: each carries the uid it was planned for.

use api::op::Regarding;
use api::snapshot::gvr_of;
use api::{Gvr, Object, Op, PatchType, Preconditions, Propagation, Tree};
use base::SmolStr;
use k8s_openapi::Resource;
use serde_json::json;

use super::value::merge_diff;

pub fn create<T: Resource>(namespace: &str, object: Tree) -> Op {
    Op::Create { gvr: gvr_of::<T>(), namespace: namespace.into(), object }
}

/// Deletes this very object, with its kind's default propagation.
pub fn delete<T: Resource>(object: &Object) -> Op {
    delete_gvr(&gvr_of::<T>(), object, None)
}

pub fn delete_gvr(gvr: &Gvr, object: &Object, propagation: Option<Propagation>) -> Op {
    Op::Delete { gvr: gvr.clone(), key: object.key.clone(), when: same_uid(object), propagation, grace_seconds: None }
}

/// A merge patch of this very object, whatever its revision is by now.
pub fn merge<T: Resource>(object: &Object, body: Tree) -> Op {
    patch(&gvr_of::<T>(), object, None, PatchType::Merge, body, same_uid(object))
}

/// A merge patch that holds only if nobody wrote in between: for lists that are replaced as a whole.
pub fn merge_if_unchanged(gvr: &Gvr, object: &Object, body: Tree) -> Op {
    patch(gvr, object, None, PatchType::Merge, body, same_version(object))
}

pub fn strategic<T: Resource>(object: &Object, subresource: Option<&str>, body: Tree) -> Op {
    patch(&gvr_of::<T>(), object, subresource, PatchType::Strategic, body, same_uid(object))
}

/// Replaces what differs in the status; None where nothing does. `tree` is the object's document.
pub fn status<T: Resource>(object: &Object, tree: &Tree, status: &Tree) -> Option<Op> {
    let before = tree.get("status").cloned().unwrap_or_else(|| json!({}));
    let change = merge_diff(&before, status)?;
    let body = json!({ "status": change });
    Some(patch(&gvr_of::<T>(), object, Some("status"), PatchType::Merge, body, same_uid(object)))
}

pub fn patch(
    gvr: &Gvr,
    object: &Object,
    subresource: Option<&str>,
    patch: PatchType,
    body: Tree,
    when: Preconditions,
) -> Op {
    let subresource = subresource.map(SmolStr::from);
    Op::Patch { gvr: gvr.clone(), key: object.key.clone(), subresource, patch, body, when }
}

/// Takes one finalizer off; None where it is not there. The list is replaced, so the revision is a precondition.
pub fn remove_finalizer(gvr: &Gvr, object: &Object, finalizer: &str) -> Option<Op> {
    let finalizers = &object.header.finalizers;
    let rest: Vec<_> = finalizers.iter().filter(|name| *name != finalizer).collect();
    (rest.len() < finalizers.len()).then(|| merge_if_unchanged(gvr, object, json!({"metadata": {"finalizers": rest}})))
}

pub fn add_finalizer(gvr: &Gvr, object: &Object, finalizer: &str) -> Option<Op> {
    let mut all = object.header.finalizers.clone();
    if all.iter().any(|name| name == finalizer) {
        return None;
    }
    all.push(finalizer.into());
    Some(merge_if_unchanged(gvr, object, json!({"metadata": {"finalizers": all}})))
}

pub fn event<T: Resource>(object: &Object, reason: &str, message: impl Into<String>) -> Op {
    record::<T>(object, false, reason, message.into())
}

pub fn warning<T: Resource>(object: &Object, reason: &str, message: impl Into<String>) -> Op {
    record::<T>(object, true, reason, message.into())
}

fn record<T: Resource>(object: &Object, warning: bool, reason: &str, message: String) -> Op {
    let regarding = Regarding {
        api_version: T::API_VERSION.into(),
        kind: T::KIND.into(),
        key: object.key.clone(),
        uid: object.header.uid.clone(),
        field_path: SmolStr::default(),
    };
    Op::Event { regarding, warning, reason: reason.into(), message }
}

pub fn same_uid(object: &Object) -> Preconditions {
    Preconditions { uid: Some(object.header.uid.clone()), revision: None }
}

pub fn same_version(object: &Object) -> Preconditions {
    Preconditions { uid: Some(object.header.uid.clone()), revision: Some(object.revision) }
}
