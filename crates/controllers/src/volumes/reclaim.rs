//! A `local-path` volume goes only after its folder: its node is asked to remove it, whenever that node is back.

use std::collections::BTreeSet;
use std::path::Path;

use api::local_path::{self, FINALIZER, RECLAIM, RECLAIM_FOLDERS_MAX, RECLAIMED};
use api::snapshot::gvr_of;
use api::{Gvr, Index, Key, Object, Plan, Snapshot, Tree};
use base::SmolStr;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use serde_json::json;

use super::SELECTED_NODE;
use super::protection::VOLUME;
use crate::kit::value::{annotation, text};
use crate::kit::{keys, op};
use crate::{Controller, Ctx, Watch};

/// Volumes that wait for their folder's end, by the node whose disk it is on.
const BY_DISK: Index =
    Index { name: "disk", words: |object| waits(object).then(|| disk(object)).into_iter().collect() };

pub fn reclaimer() -> Controller {
    Controller {
        name: "local-path-reclaimer",
        component: "local-path-provisioner",
        watches: vec![
            Watch { gvr: gvr_of::<PersistentVolume>(), indexes: vec![BY_DISK] },
            Watch { gvr: gvr_of::<Node>(), indexes: vec![] },
        ],
        every_kind: false,
        enqueue,
        plan,
        workers: 1,
    }
}

/// Its claim is gone, and only the folder is left.
fn waits(volume: &Object) -> bool {
    let held = |name: &str| volume.header.finalizers.iter().any(|finalizer| finalizer == name);
    volume.header.deletion.is_some() && held(FINALIZER) && !held(VOLUME)
}

fn disk(volume: &Object) -> SmolStr {
    annotation(&volume.tree(), SELECTED_NODE).unwrap_or_default().into()
}

fn enqueue(gvr: &Gvr, old: Option<&Object>, new: Option<&Object>, _: &Snapshot) -> Vec<Key> {
    if *gvr == gvr_of::<PersistentVolume>() {
        let both = [old, new].into_iter().flatten();
        return both.filter(|volume| waits(volume)).map(|volume| keys::cluster(&disk(volume))).collect();
    }
    let said = |node: Option<&Object>| {
        let tree = node.map(Object::tree)?;
        Some([RECLAIM, RECLAIMED].map(|name| annotation(&tree, name).map(str::to_owned)))
    };
    if said(old) == said(new) { vec![] } else { keys::own(old, new) }
}

fn plan(_: &Ctx, snapshot: &Snapshot, key: &Key, _: Timestamp) -> Plan {
    let nodes = snapshot.of::<Node>();
    let node = nodes.get(key);
    let tree = node.map(|node| node.tree());
    let said = |name: &str| local_path::folders(tree.as_ref().and_then(|tree| annotation(tree, name)));
    let gone = said(RECLAIMED);
    let (mut wanted, mut free) = (BTreeSet::new(), vec![]);
    for volume in snapshot.of::<PersistentVolume>().by(BY_DISK.name, &key.name) {
        let offer = volume.tree();
        let folder = folder(&offer);
        let kept = text(&offer, "/spec/persistentVolumeReclaimPolicy") != "Delete";
        // A node that was taken out of the cluster took its disk along.
        let lost = kept || node.is_none();
        if lost || gone.contains(&folder) {
            free.extend(op::remove_finalizer(&gvr_of::<PersistentVolume>(), volume, FINALIZER));
        }
        // What is gone stays asked for until its volume is gone as well: the node forgets what nobody asks for.
        if !lost && wanted.len() < RECLAIM_FOLDERS_MAX {
            wanted.insert(folder);
        }
    }
    let ask = node.filter(|_| wanted != said(RECLAIM)).map(|node| {
        op::merge::<Node>(node, json!({"metadata": {"annotations": {RECLAIM: local_path::annotation(&wanted)}}}))
    });
    Plan::step(free).then(ask.into_iter().collect())
}

fn folder(volume: &Tree) -> String {
    let path = Path::new(text(volume, "/spec/hostPath/path"));
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
