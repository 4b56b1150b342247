//! Binds claims to volumes. The volume's `claimRef` is the decision; everything else follows from it and is written
//! until both sides say the same.

use api::snapshot::gvr_of;
use api::{Gvr, Index, Key, LabelSelector, Object, Op, Plan, Quantity, Snapshot, Tree};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::json;
use std::sync::Arc;

use super::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, BY_CLAIM, SELECTED_NODE, class_of, default_class, is_reserved_for,
    reserved_for,
};
use crate::kit::value::{annotation, list, merge_diff, text, words};
use crate::kit::{keys, op};
use crate::{Controller, Ctx, Watch};

fn watches() -> Vec<Watch> {
    vec![
        Watch { gvr: gvr_of::<PersistentVolume>(), indexes: vec![BY_CLAIM] },
        Watch { gvr: gvr_of::<PersistentVolumeClaim>(), indexes: vec![Index::UID] },
        Watch { gvr: gvr_of::<StorageClass>(), indexes: vec![] },
    ]
}

pub fn claims() -> Controller {
    Controller {
        name: "persistentvolumeclaim-binder",
        component: "persistentvolume-controller",
        watches: watches(),
        every_kind: false,
        enqueue: enqueue_claims,
        plan: plan_claim,
        // Two claims must not choose one volume in parallel; the revision precondition would only make one of them retry.
        workers: 1,
    }
}

pub fn volumes() -> Controller {
    Controller {
        name: "persistentvolume-binder",
        component: "persistentvolume-controller",
        watches: watches(),
        every_kind: false,
        enqueue: enqueue_volumes,
        plan: plan_volume,
        workers: 2,
    }
}

fn enqueue_claims(gvr: &Gvr, old: Option<&Object>, new: Option<&Object>, snapshot: &Snapshot) -> Vec<Key> {
    if *gvr == gvr_of::<PersistentVolumeClaim>() {
        return keys::own(old, new);
    }
    // A changed volume or class concerns the claims it is for and all that still look for one.
    let both = [old, new].into_iter().flatten().map(Object::tree);
    let mut keys: Vec<Key> = both.filter_map(|tree| reserved_for(&tree)).map(|(key, _)| key).collect();
    let free = *gvr == gvr_of::<StorageClass>() || new.is_some_and(|new| reserved_for(&new.tree()).is_none());
    if free {
        let claims = snapshot.of::<PersistentVolumeClaim>();
        let unbound = claims.iter().filter(|claim| text(&claim.tree(), "/spec/volumeName").is_empty());
        keys.extend(unbound.map(|claim| claim.key.clone()));
    }
    keys
}

fn enqueue_volumes(gvr: &Gvr, old: Option<&Object>, new: Option<&Object>, snapshot: &Snapshot) -> Vec<Key> {
    if *gvr == gvr_of::<PersistentVolume>() {
        return keys::own(old, new);
    }
    if *gvr != gvr_of::<PersistentVolumeClaim>() {
        return vec![];
    }
    let Some(claim) = new.or(old) else { return vec![] };
    let volumes = snapshot.of::<PersistentVolume>();
    volumes.by(BY_CLAIM.name, &claim.key.to_string()).map(|volume| volume.key.clone()).collect()
}

fn plan_claim(_: &Ctx, snapshot: &Snapshot, key: &Key, _: Timestamp) -> Plan {
    let claims = snapshot.of::<PersistentVolumeClaim>();
    let Some(claim) = claims.get(key) else { return Plan::NOTHING };
    let tree = claim.tree();
    let volumes = snapshot.of::<PersistentVolume>();
    let named = text(&tree, "/spec/volumeName");
    if named.is_empty() {
        return seek(snapshot, claim, &tree);
    }
    let Some(volume) = volumes.get(&Key::cluster(named)) else {
        let lost = annotation(&tree, BIND_COMPLETED).is_some();
        let phase = if lost { "Lost" } else { "Pending" };
        let mut plan = Plan::step(phase_op(claim, &tree, phase).into_iter().collect());
        if lost && !plan.is_empty() {
            let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
            plan = plan.then(vec![op::warning::<PersistentVolumeClaim>(claim, "ClaimLost", message)]);
        }
        return plan;
    };
    let offer = volume.tree();
    if reserved_for(&offer).is_none() {
        return Plan::step(vec![reserve(volume, claim)]);
    }
    if !is_reserved_for(&offer, claim) {
        let ops = phase_op(claim, &tree, "Pending").into_iter().collect();
        return Plan::step(ops);
    }
    bind(claim, &tree, volume, &offer)
}

/// Looks for a volume, asks for one to be made, or waits.
fn seek(snapshot: &Snapshot, claim: &Arc<Object>, tree: &Tree) -> Plan {
    if claim.header.deletion.is_some() {
        return Plan::NOTHING;
    }
    let volumes = snapshot.of::<PersistentVolume>();
    let word = claim.key.to_string();
    let reserved = volumes.by(BY_CLAIM.name, &word).find(|volume| {
        let offer = volume.tree();
        volume.header.deletion.is_none() && is_reserved_for(&offer, claim)
    });
    if let Some(volume) = reserved {
        return bind(claim, tree, volume, &volume.tree());
    }
    let mut pending: Vec<Op> = phase_op(claim, tree, "Pending").into_iter().collect();
    let class_name = class_of(tree);
    // A claim may be older than the default class.
    if let Some(default) = default_class(snapshot).filter(|_| class_name.is_none()) {
        pending.push(op::merge::<PersistentVolumeClaim>(claim, json!({"spec": {"storageClassName": default}})));
        return Plan::step(pending);
    }
    let class = class_name.as_ref().and_then(|name| snapshot.of::<StorageClass>().get(&keys::cluster(name)).cloned());
    let class = class.map(|class| class.tree());
    let late = class.as_ref().is_some_and(|class| text(class, "/volumeBindingMode") == "WaitForFirstConsumer");
    if late && annotation(tree, SELECTED_NODE).is_none() {
        let message = "waiting for first consumer to be created before binding";
        return Plan::step(pending).then(vec![op::event::<PersistentVolumeClaim>(
            claim,
            "WaitForFirstConsumer",
            message,
        )]);
    }
    if let Some(volume) = smallest_fitting(snapshot, tree).filter(|_| !late) {
        return Plan::step(pending).then(vec![reserve(&volume, claim)]);
    }
    let provisioner = class.as_ref().map_or("", |class| text(class, "/provisioner"));
    if provisioner.is_empty() || provisioner == "kubernetes.io/no-provisioner" {
        let message = match class_name.as_deref() {
            None | Some("") => "no persistent volumes available for this claim and no storage class is set".to_owned(),
            Some(name) if class.is_none() => format!("storageclass.storage.k8s.io {name:?} not found"),
            Some(_) => "no persistent volumes available for this claim".to_owned(),
        };
        let reason = if message.ends_with("not found") { "ProvisioningFailed" } else { "FailedBinding" };
        return Plan::step(pending).then(vec![op::warning::<PersistentVolumeClaim>(claim, reason, message)]);
    }
    ask(claim, tree, provisioner, pending)
}

/// Tells the class's provisioner that a volume is wanted.
fn ask(claim: &Object, tree: &Tree, provisioner: &str, mut ops: Vec<Op>) -> Plan {
    const NEW: &str = "volume.kubernetes.io/storage-provisioner";
    const OLD: &str = "volume.beta.kubernetes.io/storage-provisioner";
    if annotation(tree, NEW) != Some(provisioner) {
        let body = json!({"metadata": {"annotations": {NEW: provisioner, OLD: provisioner}}});
        ops.push(op::merge::<PersistentVolumeClaim>(claim, body));
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
         system administrator. If volume creation is delayed, please verify that the provisioner is running and \
         correctly registered."
    );
    Plan::step(ops).then(vec![op::event::<PersistentVolumeClaim>(claim, "ExternalProvisioning", message)])
}

fn size(tree: &Tree, pointer: &str) -> i64 {
    Quantity::parse(text(tree, pointer)).map(Quantity::value_ceil).unwrap_or_default()
}

fn smallest_fitting(snapshot: &Snapshot, tree: &Tree) -> Option<Arc<Object>> {
    let wanted = size(tree, "/spec/resources/requests/storage");
    let class = class_of(tree).unwrap_or_default();
    let modes = words(list(tree, "/spec/accessModes"));
    let mode = |tree: &Tree| tree.pointer("/spec/volumeMode").and_then(Tree::as_str).unwrap_or("Filesystem").to_owned();
    let selector = tree.pointer("/spec/selector").map(LabelSelector::from_tree);
    let volumes = snapshot.of::<PersistentVolume>();
    let fits = |volume: &&Arc<Object>| {
        let offer = volume.tree();
        let offered = words(list(&offer, "/spec/accessModes"));
        let chosen = match &selector {
            None => true,
            Some(selector) => selector.as_ref().is_ok_and(|selector| selector.matches(&volume.header.labels)),
        };
        let free = reserved_for(&offer).is_none() && volume.header.deletion.is_none();
        let available = matches!(text(&offer, "/status/phase"), "" | "Available" | "Pending");
        free && available
            && chosen
            && text(&offer, "/spec/storageClassName") == class
            && mode(&offer) == mode(tree)
            && modes.iter().all(|mode| offered.contains(mode))
            && size(&offer, "/spec/capacity/storage") >= wanted
    };
    let fitting = volumes.iter().filter(fits);
    fitting.min_by_key(|volume| (size(&volume.tree(), "/spec/capacity/storage"), volume.key.clone())).cloned()
}

/// The decision. Holds only for this very version of the volume.
fn reserve(volume: &Object, claim: &Object) -> Op {
    let reference = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.key.namespace,
        "name": claim.key.name, "uid": claim.header.uid, "resourceVersion": claim.revision.to_string(),
    });
    let body = json!({
        "metadata": {"annotations": {BOUND_BY_CONTROLLER: "yes"}}, "spec": {"claimRef": reference},
    });
    op::merge_if_unchanged(&gvr_of::<PersistentVolume>(), volume, body)
}

/// Writes what a reserved volume and its claim must say of each other, in the order that survives a stop in between.
fn bind(claim: &Object, tree: &Tree, volume: &Object, offer: &Tree) -> Plan {
    let mut first = vec![];
    if reserved_for(offer).is_some_and(|(_, uid)| uid.is_empty()) {
        first.push(reserve(volume, claim));
    }
    let mut second = vec![];
    let mut change = json!({});
    if text(tree, "/spec/volumeName") != volume.key.name {
        change["spec"]["volumeName"] = json!(volume.key.name);
        change["metadata"]["annotations"][BOUND_BY_CONTROLLER] = json!("yes");
    }
    if annotation(tree, BIND_COMPLETED).is_none() {
        change["metadata"]["annotations"][BIND_COMPLETED] = json!("yes");
    }
    if change != json!({}) {
        second.push(op::merge::<PersistentVolumeClaim>(claim, change));
    }
    let before = tree.get("status").cloned().unwrap_or_else(|| json!({}));
    let mut after = before.clone();
    after["phase"] = json!("Bound");
    after["accessModes"] = offer.pointer("/spec/accessModes").cloned().unwrap_or_default();
    // A grown volume keeps telling its grown size.
    if text(tree, "/status/phase") != "Bound" {
        after["capacity"] = offer.pointer("/spec/capacity").cloned().unwrap_or_default();
    }
    let third = merge_diff(&before, &after).and_then(|_| op::status::<PersistentVolumeClaim>(claim, tree, &after));
    Plan::step(first).then(second).then(third.into_iter().collect())
}

fn phase_op(claim: &Object, tree: &Tree, phase: &str) -> Option<Op> {
    let mut status = tree.get("status").cloned().unwrap_or_else(|| json!({}));
    status["phase"] = json!(phase);
    op::status::<PersistentVolumeClaim>(claim, tree, &status)
}

fn plan_volume(ctx: &Ctx, snapshot: &Snapshot, key: &Key, _: Timestamp) -> Plan {
    let volumes = snapshot.of::<PersistentVolume>();
    let Some(volume) = volumes.get(key) else { return Plan::NOTHING };
    let tree = volume.tree();
    let tell = |phase: &str| {
        let mut status = tree.get("status").cloned().unwrap_or_else(|| json!({}));
        status["phase"] = json!(phase);
        op::status::<PersistentVolume>(volume, &tree, &status)
    };
    let Some((claim_key, uid)) = reserved_for(&tree).filter(|(_, uid)| !uid.is_empty()) else {
        return Plan::step(tell("Available").into_iter().collect());
    };
    let claims = snapshot.of::<PersistentVolumeClaim>();
    let claim = claims.get(&claim_key).filter(|claim| claim.header.uid == uid);
    let Some(claim) = claim else {
        if claims.revision < volume.revision
            && text(&tree, "/status/phase") != "Released"
            && text(&tree, "/status/phase") != "Bound"
        {
            // Fresh from a provisioner: the claim's stream may be behind. Its own change brings this key back.
            return Plan::NOTHING;
        }
        let released = Plan::step(tell("Released").into_iter().collect());
        let ours = ctx.config.local_path.is_some() && super::local_path::made_by_us(&tree);
        let delete = text(&tree, "/spec/persistentVolumeReclaimPolicy") == "Delete" && ours;
        let delete = delete && volume.header.deletion.is_none();
        return if delete { released.then(vec![op::delete::<PersistentVolume>(volume)]) } else { released };
    };
    let bound = text(&claim.tree(), "/spec/volumeName") == key.name;
    Plan::step(if bound { tell("Bound").into_iter().collect() } else { vec![] })
}
