//! Bringing a pod's status to the API: one write at a time, only what changed, the final deletion last.

use std::sync::Arc;

use api::{Gvr, Key, PatchType, Tree};
use serde_json::json;
use view::{ClientError, PatchRequest};

use crate::context::Context;
use crate::spec::names::PodName;

/// What one write led to.
pub enum Reported {
    /// The API's object after the write.
    Written(Tree),
    Deleted,
    /// The record is not there any more, or is another pod of the same name.
    Gone,
    Failed(ClientError),
}

fn pods() -> Gvr {
    Gvr::new("", "v1", "pods")
}

pub async fn write(context: Arc<Context>, name: PodName, body: Tree) -> Reported {
    let key = Key::new(&name.namespace, &name.name);
    let (gvr, patch) = (pods(), PatchType::Strategic);
    let request = PatchRequest { gvr: &gvr, key: &key, subresource: Some("status"), patch, body: &body };
    match context.client.patch(&request).await {
        Ok(object) => Reported::Written(object),
        Err(error) if error.is_not_found() => Reported::Gone,
        Err(error) if error.is_conflict() => match context.client.get(&gvr, &key).await {
            Ok(object) if object["metadata"]["uid"] == name.uid.as_str() => Reported::Written(object),
            Ok(_) => Reported::Gone,
            Err(error) if error.is_not_found() => Reported::Gone,
            Err(error) => Reported::Failed(error),
        },
        Err(error) => Reported::Failed(error),
    }
}

/// Grace 0 with the uid as precondition: the pod of this name that is meant, and no other.
pub async fn delete(context: Arc<Context>, name: PodName) -> Reported {
    let key = Key::new(&name.namespace, &name.name);
    let options = json!({
        "kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": name.uid},
    });
    match context.client.delete(&pods(), &key, &options).await {
        Ok(_) => Reported::Deleted,
        Err(error) if error.is_not_found() || error.is_conflict() => Reported::Gone,
        Err(error) => Reported::Failed(error),
    }
}
