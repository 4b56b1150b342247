//! What every namespace holds from its first second: the ServiceAccount `default` and the CA of the API.

use api::snapshot::gvr_of;
use api::{Gvr, Key, Object, Plan, Snapshot};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use serde_json::json;

use crate::kit::{keys, op};
use crate::{Controller, Ctx, Watch};

const ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const SYSTEM: &str = "kube-system";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                           endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                           guaranteed across distributions of Kubernetes clusters.";

pub fn accounts() -> Controller {
    Controller {
        name: "serviceaccount",
        component: "serviceaccount-controller",
        watches: vec![
            Watch { gvr: gvr_of::<Namespace>(), indexes: vec![] },
            Watch { gvr: gvr_of::<ServiceAccount>(), indexes: vec![] },
        ],
        every_kind: false,
        enqueue: |gvr, old, new, _| enqueue(gvr, &gvr_of::<ServiceAccount>(), ACCOUNT, old, new),
        plan: plan_account,
        workers: 2,
    }
}

pub fn root_ca() -> Controller {
    Controller {
        name: "root-ca",
        component: "root-ca-certificate-publisher",
        watches: vec![
            Watch { gvr: gvr_of::<Namespace>(), indexes: vec![] },
            Watch { gvr: gvr_of::<ConfigMap>(), indexes: vec![] },
        ],
        every_kind: false,
        enqueue: |gvr, old, new, snapshot| {
            let found = enqueue(gvr, &gvr_of::<ConfigMap>(), ROOT_CA, old, new);
            // The system's own copy changes when the authorities do.
            match found.first().is_some_and(|namespace| namespace.name == SYSTEM && *gvr == gvr_of::<ConfigMap>()) {
                true => snapshot.of::<Namespace>().iter().map(|namespace| namespace.key.clone()).collect(),
                false => found,
            }
        },
        plan: plan_root_ca,
        workers: 2,
    }
}

/// The namespace of a changed namespace or of the one object that matters in it.
fn enqueue(gvr: &Gvr, held: &Gvr, name: &str, old: Option<&Object>, new: Option<&Object>) -> Vec<Key> {
    let Some(object) = new.or(old) else { return vec![] };
    if gvr == held {
        return if object.key.name == name { vec![keys::cluster(&object.key.namespace)] } else { vec![] };
    }
    vec![object.key.clone()]
}

fn is_live(snapshot: &Snapshot, key: &Key) -> bool {
    snapshot.of::<Namespace>().get(key).is_some_and(|namespace| namespace.header.deletion.is_none())
}

fn plan_account(_: &Ctx, snapshot: &Snapshot, key: &Key, _: Timestamp) -> Plan {
    if !is_live(snapshot, key) || snapshot.of::<ServiceAccount>().get(&Key::new(&key.name, ACCOUNT)).is_some() {
        return Plan::NOTHING;
    }
    let object =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": key.name}});
    Plan::step(vec![op::create::<ServiceAccount>(&key.name, object)])
}

fn plan_root_ca(ctx: &Ctx, snapshot: &Snapshot, key: &Key, _: Timestamp) -> Plan {
    if !is_live(snapshot, key) || ctx.config.root_ca.is_empty() {
        return Plan::NOTHING;
    }
    let data = json!({"ca.crt": ctx.config.root_ca});
    let Some(object) = snapshot.of::<ConfigMap>().get(&Key::new(&key.name, ROOT_CA)).cloned() else {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": data,
            "metadata": {"name": ROOT_CA, "namespace": key.name, "annotations": {"kubernetes.io/description": DESCRIPTION}},
        });
        return Plan::step(vec![op::create::<ConfigMap>(&key.name, object)]);
    };
    let before = object.tree().get("data").cloned().unwrap_or_else(|| json!({}));
    match crate::kit::value::merge_diff(&before, &data) {
        Some(change) => Plan::step(vec![op::merge::<ConfigMap>(&object, json!({ "data": change }))]),
        None => Plan::NOTHING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn a_namespace_gets_both_and_keeps_them() {
        let mut world = World::new(&["serviceaccount", "root-ca"]);
        world.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}));
        world.converge();
        assert!(world.get("v1", "ServiceAccount", "a/default").is_object());
        world.edit("v1", "ConfigMap", "a/kube-root-ca.crt", json!({"data": {"ca.crt": "evil", "more": "x"}}));
        world.converge();
        assert_eq!(world.get("v1", "ConfigMap", "a/kube-root-ca.crt")["data"], json!({"ca.crt": "PEM"}));
        world.delete("v1", "ServiceAccount", "a/default", None);
        world.converge();
        assert!(world.get("v1", "ServiceAccount", "a/default").is_object());
    }
}
