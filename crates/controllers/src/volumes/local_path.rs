//! Volumes on a node's own disk: a folder under one path, made where the first pod of the claim goes.

use api::local_path::{FINALIZER, PROVISIONED_BY, PROVISIONER, folder};
use api::snapshot::gvr_of;
use api::{Key, Object, Plan, Snapshot, Tree};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::json;

use super::protection::VOLUME;
use super::{SELECTED_NODE, class_of};
use crate::kit::value::{annotation, text};
use crate::kit::{keys, op};
use crate::{Controller, Ctx, Watch};

const CLASS: &str = "local-path";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Keeps the class `local-path`; the default class where no other is.
pub fn classes() -> Controller {
    Controller {
        name: "local-path-class",
        component: "local-path-provisioner",
        watches: vec![
            Watch { gvr: gvr_of::<StorageClass>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Node>(), indexes: vec![] },
        ],
        every_kind: false,
        // A node's arrival is the first moment that a class makes sense.
        enqueue: |_, old, new, _| if old.is_none() || new.is_none() { vec![Key::cluster(CLASS)] } else { vec![] },
        plan: plan_class,
        workers: 1,
    }
}

fn plan_class(_: &Ctx, snapshot: &Snapshot, key: &Key, _: Timestamp) -> Plan {
    let classes = snapshot.of::<StorageClass>();
    if classes.get(key).is_some() {
        return Plan::NOTHING;
    }
    let default = !classes.iter().any(|class| annotation(&class.tree(), DEFAULT_CLASS) == Some("true"));
    let object = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {DEFAULT_CLASS: default.to_string()}},
        "provisioner": PROVISIONER, "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer",
    });
    Plan::step(vec![op::create::<StorageClass>("", object)])
}

pub fn provisioner() -> Controller {
    Controller {
        name: "local-path-provisioner",
        component: "local-path-provisioner",
        watches: vec![
            Watch { gvr: gvr_of::<PersistentVolumeClaim>(), indexes: vec![] },
            Watch { gvr: gvr_of::<PersistentVolume>(), indexes: vec![] },
            Watch { gvr: gvr_of::<StorageClass>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Node>(), indexes: vec![] },
        ],
        every_kind: false,
        enqueue: |gvr, old, new, _| {
            if *gvr == gvr_of::<PersistentVolumeClaim>() { keys::own(old, new) } else { vec![] }
        },
        plan,
        workers: 2,
    }
}

pub fn made_by_us(volume: &Tree) -> bool {
    annotation(volume, PROVISIONED_BY) == Some(PROVISIONER)
}

fn plan(ctx: &Ctx, snapshot: &Snapshot, key: &Key, _: Timestamp) -> Plan {
    let Some(base) = ctx.config.local_path.as_deref() else { return Plan::NOTHING };
    let claims = snapshot.of::<PersistentVolumeClaim>();
    let Some(claim) = claims.get(key).filter(|claim| claim.header.deletion.is_none()) else { return Plan::NOTHING };
    let tree = claim.tree();
    if !text(&tree, "/spec/volumeName").is_empty() {
        return Plan::NOTHING;
    }
    let class = class_of(&tree).and_then(|name| snapshot.of::<StorageClass>().get(&keys::cluster(&name)).cloned());
    let Some(class) = class.map(|class| class.tree()).filter(|class| text(class, "/provisioner") == PROVISIONER) else {
        return Plan::NOTHING;
    };
    let name = format!("pvc-{}", claim.header.uid);
    let nodes = snapshot.of::<Node>();
    let selected = annotation(&tree, SELECTED_NODE).map(Key::cluster);
    // Classes that bind at once leave the choice to us: the first node by name.
    let immediate = text(&class, "/volumeBindingMode") != "WaitForFirstConsumer";
    let first = || nodes.iter().next().filter(|_| immediate).map(|node| node.key.clone());
    let Some(node) = selected.or_else(first).and_then(|key| nodes.get(&key).cloned()) else { return Plan::NOTHING };
    if snapshot.of::<PersistentVolume>().get(&Key::cluster(&name)).is_some() {
        return Plan::NOTHING;
    }
    let message = format!("Successfully provisioned volume {name}");
    let volume = volume(claim, &tree, &class, &node, &name, base);
    let create = op::create::<PersistentVolume>("", volume);
    Plan::step(vec![create]).then(vec![op::event::<PersistentVolumeClaim>(claim, "ProvisioningSucceeded", message)])
}

fn volume(claim: &Object, tree: &Tree, class: &Tree, node: &Object, name: &str, base: &str) -> Tree {
    let hostname = node.header.labels.get(HOSTNAME).unwrap_or(&node.key.name);
    let path = format!("{base}/{}", folder(name, &claim.key.namespace, &claim.key.name));
    let terms = json!([{"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": [hostname]}]}]);
    let part = |pointer: &str, fallback: Tree| tree.pointer(pointer).cloned().unwrap_or(fallback);
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {
            "name": name, "annotations": {PROVISIONED_BY: PROVISIONER, SELECTED_NODE: node.key.name},
            "finalizers": [VOLUME, FINALIZER],
        },
        "spec": {
            "capacity": {"storage": part("/spec/resources/requests/storage", json!("0"))},
            "accessModes": part("/spec/accessModes", json!(["ReadWriteOnce"])),
            "volumeMode": part("/spec/volumeMode", json!("Filesystem")),
            "persistentVolumeReclaimPolicy": class.get("reclaimPolicy").cloned().unwrap_or_else(|| json!("Delete")),
            "storageClassName": class["metadata"]["name"],
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.key.namespace,
                "name": claim.key.name, "uid": claim.header.uid,
            },
            "hostPath": {"path": path, "type": "DirectoryOrCreate"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
        },
    })
}
