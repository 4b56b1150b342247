//! An [`Op`] as a request, and its answer as "done at this revision" or an error.
//!
//! The rules that make operations safe to repeat live here: a creation that finds its object there, a deletion that
//! finds nothing, and a deletion whose uid precondition fails all count as done.

use api::{Op, PatchType, Preconditions, Tree};
use base::Revision;
use serde_json::json;

use crate::client::PatchRequest;
use crate::{Client, ClientError};

impl Client {
    /// Performs one operation. The revision is the one the write happened at, where the API told it.
    ///
    /// `Op::Event` is the driver's to record; here it does nothing.
    pub async fn perform(&self, op: &Op) -> Result<Option<Revision>, ClientError> {
        match op {
            Op::Create { gvr, namespace, object } => match self.create(gvr, namespace, object).await {
                Err(error) if error.is_already_exists() => Ok(None),
                outcome => outcome.map(|tree| revision_of(&tree)),
            },
            Op::Patch { gvr, key, subresource, patch, body, when } => {
                let body = with_preconditions(*patch, body, when);
                let subresource = subresource.as_deref();
                let outcome = self.patch(&PatchRequest { gvr, key, subresource, patch: *patch, body: &body }).await;
                outcome.map(|tree| revision_of(&tree))
            }
            Op::Delete { gvr, key, when, propagation, grace_seconds } => {
                let options = delete_options(when, propagation.map(api::Propagation::as_str), *grace_seconds);
                match self.delete(gvr, key, &options).await {
                    Err(error) if error.is_not_found() => Ok(None),
                    // Another object has the name now; the one that was meant is gone.
                    Err(error) if is_another(&error) && when.uid.is_some() && when.revision.is_none() => Ok(None),
                    outcome => outcome.map(|tree| revision_of(&tree)),
                }
            }
            Op::Post { gvr, key, subresource, body } => {
                self.post(gvr, key, subresource, body).await.map(|tree| revision_of(&tree))
            }
            Op::Put { gvr, key, subresource, body } => {
                self.update(gvr, key, Some(subresource), body).await.map(|tree| revision_of(&tree))
            }
            Op::Event { .. } => Ok(None),
        }
    }
}

/// The object is another one than was meant.
fn is_another(error: &ClientError) -> bool {
    error.is_conflict() && !error.is_term_over()
}

fn revision_of(tree: &Tree) -> Option<Revision> {
    tree.get("metadata")?.get("resourceVersion")?.as_str()?.parse().ok()
}

/// For a patch the preconditions travel in its body: as `metadata` fields, or as `test` operations of a JSON patch.
fn with_preconditions(patch: PatchType, body: &Tree, when: &Preconditions) -> Tree {
    let mut body = body.clone();
    let uid = when.uid.as_ref().map(|uid| ("uid", uid.to_string()));
    let revision = when.revision.map(|revision| ("resourceVersion", revision.to_string()));
    let wanted = uid.into_iter().chain(revision);
    match patch {
        PatchType::Json => {
            let tests =
                wanted.map(|(name, value)| json!({"op": "test", "path": format!("/metadata/{name}"), "value": value}));
            let tests: Vec<Tree> = tests.collect();
            if let Some(list) = body.as_array_mut() {
                list.splice(0..0, tests);
            }
        }
        PatchType::Merge | PatchType::Strategic | PatchType::Apply { .. } => {
            for (name, value) in wanted {
                body["metadata"][name] = json!(value);
            }
        }
    }
    body
}

fn delete_options(when: &Preconditions, propagation: Option<&str>, grace_seconds: Option<i64>) -> Tree {
    let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
    if let Some(uid) = &when.uid {
        options["preconditions"]["uid"] = json!(uid);
    }
    if let Some(revision) = when.revision {
        options["preconditions"]["resourceVersion"] = json!(revision.to_string());
    }
    if let Some(propagation) = propagation {
        options["propagationPolicy"] = json!(propagation);
    }
    if let Some(seconds) = grace_seconds {
        options["gracePeriodSeconds"] = json!(seconds);
    }
    options
}

#[cfg(test)]
mod tests {
    use super::{delete_options, with_preconditions};
    use api::{PatchType, Preconditions};
    use base::Revision;
    use serde_json::json;

    #[test]
    fn preconditions_travel_in_the_body() {
        let when = Preconditions { uid: Some("u1".into()), revision: Some(Revision(7)) };
        let merge = with_preconditions(PatchType::Merge, &json!({"spec": {"replicas": 1}}), &when);
        assert_eq!(merge, json!({"metadata": {"uid": "u1", "resourceVersion": "7"}, "spec": {"replicas": 1}}));
        let list = with_preconditions(PatchType::Json, &json!([{"op": "remove", "path": "/a"}]), &when);
        assert_eq!(list[0], json!({"op": "test", "path": "/metadata/uid", "value": "u1"}));
        assert_eq!(list.as_array().map(Vec::len), Some(3));
        let options = delete_options(&when, Some("Background"), Some(0));
        assert_eq!(options["preconditions"], json!({"uid": "u1", "resourceVersion": "7"}));
    }
}
