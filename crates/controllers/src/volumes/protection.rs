//! Finalizers that keep a claim while pods use it and a volume while it is bound.

use api::snapshot::gvr_of;
use api::{Gvr, Key, Object, Op, Plan, Snapshot};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};

use super::{BY_CLAIM, reserved_for};
use crate::kit::pod::PodRef;
use crate::kit::{keys, op};
use crate::{Controller, Ctx, Watch};

const CLAIM: &str = "kubernetes.io/pvc-protection";
/// Stays on a volume while it is bound.
pub(super) const VOLUME: &str = "kubernetes.io/pv-protection";

pub fn claim_protection() -> Controller {
    Controller {
        name: "persistentvolumeclaim-protection",
        component: "pvc-protection-controller",
        watches: vec![
            Watch { gvr: gvr_of::<PersistentVolumeClaim>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Pod>(), indexes: vec![] },
        ],
        every_kind: false,
        enqueue: enqueue_claims,
        plan: plan_claim,
        workers: 2,
    }
}

pub fn volume_protection() -> Controller {
    Controller {
        name: "persistentvolume-protection",
        component: "pv-protection-controller",
        watches: vec![
            Watch { gvr: gvr_of::<PersistentVolume>(), indexes: vec![BY_CLAIM] },
            Watch { gvr: gvr_of::<PersistentVolumeClaim>(), indexes: vec![] },
        ],
        every_kind: false,
        enqueue: |gvr, old, new, snapshot| {
            if *gvr == gvr_of::<PersistentVolume>() {
                return keys::own(old, new);
            }
            let Some(claim) = old.filter(|_| new.is_none()) else { return vec![] };
            let volumes = snapshot.of::<PersistentVolume>();
            volumes.by(BY_CLAIM.name, &claim.key.to_string()).map(|volume| volume.key.clone()).collect()
        },
        plan: plan_volume,
        workers: 2,
    }
}

/// Claims of a pod's volumes, generic ephemeral ones too.
fn used_by(pod: &PodRef) -> Vec<Key> {
    let namespace = &pod.object.key.namespace;
    let volumes = pod.pod.spec.as_ref().and_then(|spec| spec.volumes.clone()).unwrap_or_default();
    let one = |volume: &k8s_openapi::api::core::v1::Volume| {
        if let Some(claim) = &volume.persistent_volume_claim {
            return Some(Key::new(namespace, &claim.claim_name));
        }
        volume.ephemeral.as_ref().map(|_| Key::new(namespace, &format!("{}-{}", pod.object.key.name, volume.name)))
    };
    volumes.iter().filter_map(one).collect()
}

fn enqueue_claims(gvr: &Gvr, old: Option<&Object>, new: Option<&Object>, snapshot: &Snapshot) -> Vec<Key> {
    if *gvr == gvr_of::<PersistentVolumeClaim>() {
        return keys::own(old, new);
    }
    // Only a pod that ends can free a claim.
    let Some(object) = new.or(old) else { return vec![] };
    let pod = snapshot.of::<Pod>().get(&object.key).and_then(PodRef::of);
    if pod.as_ref().is_some_and(|pod| !pod.finished()) {
        return vec![];
    }
    let claims = snapshot.of::<PersistentVolumeClaim>();
    let leaving = claims.in_namespace(&object.key.namespace).filter(|claim| claim.header.deletion.is_some());
    leaving.map(|claim| claim.key.clone()).collect()
}

fn protect(gvr: &Gvr, object: &Object, finalizer: &str, used: impl FnOnce() -> bool) -> Plan {
    let op: Option<Op> = if object.header.deletion.is_none() {
        op::add_finalizer(gvr, object, finalizer)
    } else if used() {
        None
    } else {
        op::remove_finalizer(gvr, object, finalizer)
    };
    Plan::step(op.into_iter().collect())
}

fn plan_claim(_: &Ctx, snapshot: &Snapshot, key: &Key, _: Timestamp) -> Plan {
    let claims = snapshot.of::<PersistentVolumeClaim>();
    let Some(claim) = claims.get(key) else { return Plan::NOTHING };
    protect(&gvr_of::<PersistentVolumeClaim>(), claim, CLAIM, || {
        let pods = snapshot.of::<Pod>();
        let live = pods.in_namespace(&key.namespace).filter_map(PodRef::of);
        live.filter(|pod| !pod.finished() && !pod.node().is_empty()).any(|pod| used_by(&pod).contains(key))
    })
}

fn plan_volume(_: &Ctx, snapshot: &Snapshot, key: &Key, _: Timestamp) -> Plan {
    let volumes = snapshot.of::<PersistentVolume>();
    let Some(volume) = volumes.get(key) else { return Plan::NOTHING };
    protect(&gvr_of::<PersistentVolume>(), volume, VOLUME, || {
        let claim = reserved_for(&volume.tree());
        let claims = snapshot.of::<PersistentVolumeClaim>();
        claim.is_some_and(|(key, uid)| claims.get(&key).is_some_and(|claim| uid.is_empty() || claim.header.uid == uid))
    })
}
