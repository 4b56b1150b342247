//! Namespaces on their way out: delete all they hold, then let them go.

use api::snapshot::gvr_of;
use api::{Gvr, Key, Object, Op, Plan, Snapshot, Tree};
use base::SmolStr;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use serde_json::json;
use std::collections::BTreeMap;

use crate::kinds::every_kind;
use crate::kit::condition::{self, Condition, word};
use crate::kit::value::list;
use crate::kit::{keys, op};
use crate::{Controller, Ctx, Watch};

const FINALIZER: &str = "kubernetes";
/// Deletions of one plan; the rest follows in the next.
const DELETIONS_MAX: usize = 500;
/// After this long a stream that heard nothing has nothing to say: admission refuses creations in the namespace.
const SETTLE: SignedDuration = SignedDuration::from_secs(5);

pub fn controller() -> Controller {
    Controller {
        name: "namespace",
        component: "namespace-controller",
        watches: vec![Watch { gvr: gvr_of::<Namespace>(), indexes: vec![] }],
        every_kind: true,
        enqueue,
        plan,
        workers: 5,
    }
}

fn enqueue(gvr: &Gvr, old: Option<&Object>, new: Option<&Object>, snapshot: &Snapshot) -> Vec<Key> {
    if *gvr == gvr_of::<Namespace>() {
        return keys::own(old, new);
    }
    let Some(object) = new.or(old).filter(|object| !object.key.namespace.is_empty()) else { return vec![] };
    let key = keys::cluster(&object.key.namespace);
    let leaving = snapshot.of::<Namespace>().get(&key).is_some_and(|namespace| namespace.header.deletion.is_some());
    if leaving { vec![key] } else { vec![] }
}

/// What is left in the namespace, as its conditions tell it.
#[derive(Default)]
struct Left {
    /// `pods.` -> how many.
    kinds: BTreeMap<String, usize>,
    finalizers: BTreeMap<SmolStr, usize>,
    /// Streams that may not have seen the last creation yet.
    behind: bool,
}

fn plan(ctx: &Ctx, snapshot: &Snapshot, key: &Key, now: Timestamp) -> Plan {
    let namespaces = snapshot.of::<Namespace>();
    let Some(namespace) = namespaces.get(key) else { return Plan::NOTHING };
    let Some(since) = namespace.header.deletion else { return Plan::NOTHING };
    let settled = since + SETTLE;
    let mut left = Left::default();
    let mut ops = vec![];
    for kind in every_kind(&ctx.registry).into_iter().filter(|kind| kind.is_namespaced()) {
        let gvr = kind.gvr();
        let stream = snapshot.stream(&gvr);
        left.behind |= !stream.synced || (stream.revision < namespace.revision && now < settled);
        for object in stream.in_namespace(&key.name) {
            *left.kinds.entry(format!("{}.{}", gvr.resource, gvr.group)).or_default() += 1;
            for finalizer in &object.header.finalizers {
                *left.finalizers.entry(finalizer.clone()).or_default() += 1;
            }
            if object.header.deletion.is_none() && ops.len() < DELETIONS_MAX {
                ops.push(op::delete_gvr(&gvr, object, None));
            }
        }
    }
    let tree = namespace.tree();
    if left.kinds.is_empty() {
        if left.behind {
            return Plan::NOTHING.again_at(settled.max(now + SignedDuration::from_secs(1)));
        }
        return finalize(namespace, &tree);
    }
    let conditions = conditions(&tree, &left, now);
    ops.extend(op::status::<Namespace>(namespace, &tree, &json!({"phase": "Terminating", "conditions": conditions})));
    Plan::step(ops)
}

fn finalize(namespace: &Object, tree: &Tree) -> Plan {
    let finalizers = list(tree, "/spec/finalizers");
    let rest: Vec<&Tree> = finalizers.iter().filter(|name| name.as_str() != Some(FINALIZER)).collect();
    if rest.len() == finalizers.len() {
        return Plan::NOTHING;
    }
    let mut body = tree.clone();
    body["spec"]["finalizers"] = json!(rest);
    let gvr = gvr_of::<Namespace>();
    let subresource = SmolStr::new_static("finalize");
    Plan::step(vec![Op::Put { gvr, key: namespace.key.clone(), subresource, body }])
}

fn conditions(tree: &Tree, left: &Left, now: Timestamp) -> Vec<Tree> {
    let mut all = list(tree, "/status/conditions").to_vec();
    let kinds: Vec<String> =
        left.kinds.iter().map(|(kind, count)| format!("{kind} has {count} resource instances")).collect();
    let remaining = format!("Some resources are remaining: {}", kinds.join(", "));
    let holds: Vec<String> =
        left.finalizers.iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
    let held = format!("Some content in the namespace has finalizers remaining: {}", holds.join(", "));
    let finalizing = !left.finalizers.is_empty();
    let told = [
        ("NamespaceDeletionDiscoveryFailure", false, "ResourcesDiscovered", "All resources successfully discovered"),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            false,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        ("NamespaceContentRemaining", true, "SomeResourcesRemain", remaining.as_str()),
        if finalizing {
            ("NamespaceFinalizersRemaining", true, "SomeFinalizersRemain", held.as_str())
        } else {
            (
                "NamespaceFinalizersRemaining",
                false,
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            )
        },
    ];
    for (r#type, truth, reason, message) in told {
        condition::set(&mut all, Condition { r#type, status: word(truth), reason, message }, now);
    }
    all
}
