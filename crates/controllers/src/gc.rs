//! The garbage collector: dependents follow their owners, in the order that was asked for.
//!
//! Reads headers only, of every kind. An owner counts as absent only when its stream has got at least as far as the
//! dependent's version: a stream that lags must not cost anybody an object.

use api::{Gvk, Gvr, Key, Object, OwnerRef, Plan, Propagation, Snapshot};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::sync::Arc;

use crate::kinds::stream_of;
use crate::kit::op;
use crate::{Controller, Ctx};
use api::Index;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// Until a lagging stream is looked at again.
const LAG: SignedDuration = SignedDuration::from_secs(1);

pub fn controller() -> Controller {
    Controller {
        name: "garbage-collector",
        component: "garbage-collector-controller",
        watches: vec![],
        every_kind: true,
        enqueue,
        plan,
        workers: 10,
    }
}

/// `apps/v1/deployments:name` in the object's namespace.
fn key_in(gvr: &Gvr, key: &Key) -> Key {
    Key::new(&key.namespace, &format!("{}/{}/{}:{}", gvr.group, gvr.version, gvr.resource, key.name))
}

fn parse(key: &Key) -> Option<(Gvr, Key)> {
    let (gvr, name) = key.name.split_once(':')?;
    let mut parts = gvr.split('/');
    let gvr = Gvr::new(parts.next()?, parts.next()?, parts.next()?);
    Some((gvr, Key::new(&key.namespace, name)))
}

fn enqueue(gvr: &Gvr, old: Option<&Object>, new: Option<&Object>, snapshot: &Snapshot) -> Vec<Key> {
    let mut keys = vec![];
    let Some(object) = new.or(old) else { return keys };
    if new.is_some_and(|new| !new.header.owners.is_empty() || new.header.deletion.is_some()) {
        keys.push(key_in(gvr, &object.key));
    }
    let leaving = |object: &Object| object.header.deletion.is_some();
    let turned = old.is_some_and(|old| !leaving(old)) && new.is_some_and(leaving);
    if new.is_none() || turned {
        keys.extend(dependents(snapshot, object).into_iter().map(|(gvr, dependent)| key_in(&gvr, &dependent.key)));
    }
    // An owner that waits for its dependents looks again when one goes or lets go.
    let lost = old.into_iter().flat_map(|old| &old.header.owners);
    for owner in lost.filter(|owner| new.is_none_or(|new| new.header.owners.iter().all(|kept| kept.uid != owner.uid))) {
        for (gvr, stream) in snapshot.streams() {
            keys.extend(stream.by(Index::UID.name, &owner.uid).map(|owner| key_in(gvr, &owner.key)));
        }
    }
    keys
}

/// Everything that names this object as an owner.
fn dependents(snapshot: &Snapshot, owner: &Object) -> Vec<(Gvr, Arc<Object>)> {
    let mut found = vec![];
    for (gvr, stream) in snapshot.streams() {
        found.extend(stream.by(Index::OWNER.name, &owner.header.uid).map(|object| (gvr.clone(), object.clone())));
    }
    found
}

fn plan(ctx: &Ctx, snapshot: &Snapshot, key: &Key, now: Timestamp) -> Plan {
    let Some((gvr, key)) = parse(key) else { return Plan::NOTHING };
    let stream = snapshot.stream(&gvr);
    let Some(object) = stream.get(&key) else { return Plan::NOTHING };
    let has = |name: &str| object.header.finalizers.iter().any(|finalizer| finalizer == name);
    if object.header.deletion.is_some() {
        if has(ORPHAN) {
            return orphan(snapshot, &gvr, object);
        }
        return if has(FOREGROUND) { foreground(snapshot, &gvr, object) } else { Plan::NOTHING };
    }
    if object.header.owners.is_empty() {
        return Plan::NOTHING;
    }
    follow_owners(ctx, snapshot, &gvr, object, now)
}

/// Takes the owner off every dependent, then lets the owner go.
fn orphan(snapshot: &Snapshot, gvr: &Gvr, object: &Object) -> Plan {
    let freed = dependents(snapshot, object);
    let ops =
        freed.iter().map(|(gvr, dependent)| without_owners(gvr, dependent, |owner| owner.uid == object.header.uid));
    Plan::step(ops.collect()).then(op::remove_finalizer(gvr, object, ORPHAN).into_iter().collect())
}

/// Lets the owner go once no dependent blocks it; their own keys see to their deletion.
fn foreground(snapshot: &Snapshot, gvr: &Gvr, object: &Object) -> Plan {
    let blocks = |dependent: &Object| {
        let mut owners = dependent.header.owners.iter();
        owners.any(|owner| owner.uid == object.header.uid && owner.block_owner_deletion)
    };
    if dependents(snapshot, object).iter().any(|(_, dependent)| blocks(dependent)) {
        return Plan::NOTHING;
    }
    Plan::step(op::remove_finalizer(gvr, object, FOREGROUND).into_iter().collect())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Solid,
    /// Deleted in the foreground: waits for its dependents.
    Waiting,
    Absent,
    /// Cannot be told yet.
    Unknown,
}

fn follow_owners(ctx: &Ctx, snapshot: &Snapshot, gvr: &Gvr, object: &Arc<Object>, now: Timestamp) -> Plan {
    let states: Vec<State> = object.header.owners.iter().map(|owner| state(ctx, snapshot, object, owner)).collect();
    let any = |wanted: State| states.contains(&wanted);
    if any(State::Unknown) {
        return Plan::NOTHING.again_at(now + LAG);
    }
    if any(State::Solid) {
        if !any(State::Absent) && !any(State::Waiting) {
            return Plan::NOTHING;
        }
        let gone: Vec<_> =
            object.header.owners.iter().zip(&states).filter(|(_, state)| **state != State::Solid).collect();
        let drop = |owner: &OwnerRef| gone.iter().any(|(gone, _)| gone.uid == owner.uid);
        return Plan::step(vec![without_owners(gvr, object, drop)]);
    }
    let waited_for = any(State::Waiting) && !dependents(snapshot, object).is_empty();
    let propagation = if waited_for { Propagation::Foreground } else { Propagation::Background };
    let mut delete = op::delete_gvr(gvr, object, Some(propagation));
    if let api::Op::Delete { when, .. } = &mut delete {
        // Owners may have been added since: only this very version may go.
        *when = op::same_version(object);
    }
    Plan::step(vec![delete])
}

fn state(ctx: &Ctx, snapshot: &Snapshot, object: &Object, owner: &OwnerRef) -> State {
    let Some(gvk) = Gvk::parse(&owner.api_version, &owner.kind) else { return State::Solid };
    // A kind that is not served cannot be judged; the object stays until it is.
    let Some((gvr, namespaced)) = stream_of(&ctx.registry, &gvk) else { return State::Solid };
    if namespaced && object.key.namespace.is_empty() {
        return State::Solid;
    }
    let namespace = if namespaced { object.key.namespace.as_str() } else { "" };
    let stream = snapshot.stream(&gvr);
    match stream.get(&Key::new(namespace, &owner.name)).filter(|found| found.header.uid == owner.uid) {
        Some(found) => {
            let waiting =
                found.header.deletion.is_some() && found.header.finalizers.iter().any(|name| name == FOREGROUND);
            if waiting { State::Waiting } else { State::Solid }
        }
        None if stream.synced && stream.revision >= object.revision => State::Absent,
        None => State::Unknown,
    }
}

fn without_owners(gvr: &Gvr, object: &Object, drop: impl Fn(&OwnerRef) -> bool) -> api::Op {
    let kept = object.header.owners.iter().filter(|owner| !drop(owner)).map(|owner| {
        let mut tree = json!({
            "apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid,
        });
        for (name, set) in [("controller", owner.controller), ("blockOwnerDeletion", owner.block_owner_deletion)] {
            if set {
                tree[name] = json!(true);
            }
        }
        tree
    });
    let kept: Vec<_> = kept.collect();
    let kept = if kept.is_empty() { serde_json::Value::Null } else { json!(kept) };
    op::merge_if_unchanged(gvr, object, json!({"metadata": {"ownerReferences": kept}}))
}
