//! ControllerRevisions: the history of a template, from which `kubectl rollout undo` takes it back.

use std::sync::Arc;

use api::snapshot::gvr_of;
use api::{Index, Key, Object, Op, Snapshot, Tree};
use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::json;

use super::value::{canonical, int};
use super::{name, op, owner};

/// Pods carry the revision they were made from.
pub const HASH_LABEL: &str = "controller-revision-hash";
/// Revisions without a living pod kept where the owner does not say.
const HISTORY_DEFAULT: i64 = 10;

pub struct Revision {
    pub object: Arc<Object>,
    pub tree: Tree,
}

pub struct History {
    /// Oldest first.
    pub all: Vec<Revision>,
    /// Name of the revision of the present template; perhaps only about to be made by `ops`.
    pub update: String,
    /// Its `controller-revision-hash` in DaemonSets.
    pub hash: String,
    pub ops: Vec<Op>,
    /// The derived name is taken by another template.
    pub collision: bool,
}

impl Revision {
    pub fn number(&self) -> i64 {
        int(&self.tree, "/revision").unwrap_or_default()
    }

    pub fn name(&self) -> &str {
        &self.object.key.name
    }

    /// The template as it was.
    pub fn template(&self) -> Tree {
        let mut template = self.tree.pointer("/data/spec/template").cloned().unwrap_or_default();
        if let Some(fields) = template.as_object_mut() {
            fields.remove("$patch");
        }
        template
    }
}

impl History {
    /// Finds, renews or makes the revision of the owner's present template.
    pub fn of<O: Resource>(owner: &Object, tree: &Tree, snapshot: &Snapshot, hash_label: &str) -> History {
        let stream = snapshot.of::<ControllerRevision>();
        let owned = stream.by(Index::CONTROLLER.name, &owner.header.uid);
        let mut all: Vec<Revision> =
            owned.map(|object| Revision { object: object.clone(), tree: object.tree() }).collect();
        all.sort_by_key(|revision| (revision.number(), revision.object.key.clone()));
        let template = tree.pointer("/spec/template").cloned().unwrap_or_default();
        let newest = all.last().map_or(0, Revision::number);
        let wanted = canonical(&template);
        if let Some(same) = all.iter().rev().find(|revision| canonical(&revision.template()) == wanted) {
            let mut ops = vec![];
            if same.number() < newest {
                ops.push(op::merge::<ControllerRevision>(&same.object, json!({"revision": newest + 1})));
            }
            let hash = same.object.header.labels.get(hash_label).map(ToString::to_string);
            let update = same.name().to_owned();
            let hash = hash.unwrap_or_else(|| update.rsplit('-').next().unwrap_or_default().to_owned());
            return History { update, hash, ops, collision: false, all };
        }
        let hash = name::template_hash(&template, int(tree, "/status/collisionCount"));
        let update = format!("{}-{hash}", owner.key.name);
        let collision = stream.get(&Key::new(&owner.key.namespace, &update)).is_some();
        let mut ops = vec![];
        if !collision {
            ops.push(make::<O>(owner, template, &update, &hash, hash_label, newest + 1));
        }
        History { update, hash, ops, collision, all }
    }

    /// Deletes the oldest revisions that no pod needs, beyond the limit.
    pub fn truncate(&self, tree: &Tree, live: &[&str]) -> Vec<Op> {
        let limit = int(tree, "/spec/revisionHistoryLimit").unwrap_or(HISTORY_DEFAULT);
        let dead =
            self.all.iter().filter(|revision| !live.contains(&revision.name()) && revision.name() != self.update);
        let dead: Vec<&Revision> = dead.collect();
        let surplus = dead.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        dead.iter().take(surplus).map(|revision| op::delete::<ControllerRevision>(&revision.object)).collect()
    }
}

fn make<O: Resource>(owner: &Object, template: Tree, name: &str, hash: &str, hash_label: &str, number: i64) -> Op {
    let mut labels = template.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}));
    labels[hash_label] = json!(hash);
    let mut data = json!({"spec": {"template": template}});
    data["spec"]["template"]["$patch"] = json!("replace");
    let object = json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": number, "data": data,
        "metadata": {
            "name": name, "namespace": owner.key.namespace, "labels": labels,
            "ownerReferences": [owner::reference::<O>(owner)],
        },
    });
    Op::Create { gvr: gvr_of::<ControllerRevision>(), namespace: owner.key.namespace.clone(), object }
}
