//! What a pod's volumes ask of nodes: where bound volumes are, what can be bound or made there.

use std::sync::Arc;

use api::fit::{NodeTerm, any_term, parse_selector};
use api::snapshot::gvr_of;
use api::{Key, Object, Op, PatchType, Preconditions, Snapshot};
use base::SmolStr;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::json;

use crate::cache::Cache;
use crate::message::Refusal;
use crate::row::{NodeRow, PodRow};
use crate::rules::selector;

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
const RWOP_TAKEN: &str = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";

/// The pod's claims, and what each still needs.
pub struct Volumes<'a> {
    snapshot: &'a Snapshot,
    claims: Vec<Claim>,
    /// Some other pod uses a claim that only one pod may use.
    taken: bool,
}

struct Claim {
    object: Arc<Object>,
    need: Need,
}

enum Need {
    /// Bound: the nodes its volume can be used on.
    Bound(Option<Vec<NodeTerm>>),
    /// Volumes that could be bound to it, the smallest first.
    Match(Vec<(Arc<Object>, Option<Vec<NodeTerm>>)>),
    /// A volume will be made where the pod goes: on the node already chosen, or where the class allows.
    Make { selected: Option<SmolStr>, allowed: Option<Vec<NodeTerm>> },
}

impl<'a> Volumes<'a> {
    /// # Errors
    /// What keeps the pod from every node.
    pub fn of(pod: &PodRow, snapshot: &'a Snapshot, cache: &Cache) -> Result<Volumes<'a>, String> {
        let claims = snapshot.of::<PersistentVolumeClaim>();
        let mut volumes = Volumes { snapshot, claims: vec![], taken: false };
        for name in &pod.claims {
            let key = Key { namespace: pod.key.namespace.clone(), name: name.clone() };
            let Some(object) = claims.get(&key) else {
                return Err(format!("persistentvolumeclaim {:?} not found", name.as_str()));
            };
            if object.header.deletion.is_some() {
                return Err(format!("persistentvolumeclaim {:?} is being deleted", name.as_str()));
            }
            let typed = claims.typed::<PersistentVolumeClaim>(&key);
            let spec = typed.and_then(|claim| claim.spec.clone()).unwrap_or_default();
            if spec.access_modes.iter().flatten().any(|mode| mode == "ReadWriteOncePod") {
                let uses = |other: &PodRow| {
                    let placed = !other.node.is_empty() || cache.is_assumed(&other.uid);
                    placed && !other.finished && other.uid != pod.uid && other.claims.contains(name)
                };
                volumes.taken |=
                    cache.pods.values().any(|other| other.key.namespace == pod.key.namespace && uses(other));
            }
            let need = volumes.need(object, &spec)?;
            volumes.claims.push(Claim { object: object.clone(), need });
        }
        Ok(volumes)
    }

    fn need(
        &self,
        object: &Object,
        spec: &k8s_openapi::api::core::v1::PersistentVolumeClaimSpec,
    ) -> Result<Need, String> {
        let volumes = self.snapshot.of::<PersistentVolume>();
        if let Some(name) = spec.volume_name.as_deref().filter(|name| !name.is_empty()) {
            let volume = volumes.typed::<PersistentVolume>(&Key::cluster(name));
            let Some(volume) = volume else { return Err(format!("persistentvolume {name:?} not found")) };
            return Ok(Need::Bound(terms(&volume)));
        }
        let class_name = spec.storage_class_name.clone().unwrap_or_default();
        let class = self.snapshot.of::<StorageClass>().typed::<StorageClass>(&Key::cluster(&class_name));
        let late = class.as_ref().filter(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
        let Some(class) = late else { return Err("pod has unbound immediate PersistentVolumeClaims".to_owned()) };
        let fitting = self.fitting(object, spec, &class_name);
        if !fitting.is_empty() {
            return Ok(Need::Match(fitting));
        }
        if class.provisioner == NO_PROVISIONER {
            return Ok(Need::Match(vec![]));
        }
        let tree = object.tree();
        let selected = tree.pointer("/metadata/annotations").and_then(|notes| notes.get(SELECTED_NODE)?.as_str());
        let allowed = class.allowed_topologies.as_ref().filter(|all| !all.is_empty()).map(|all| {
            let term = |one: &k8s_openapi::api::core::v1::TopologySelectorTerm| {
                let expressions = one
                    .match_label_expressions
                    .iter()
                    .flatten()
                    .map(|each| json!({"key": each.key, "operator": "In", "values": each.values}));
                let tree = json!({"matchExpressions": expressions.collect::<Vec<_>>()});
                NodeTerm::parse(&serde_json::from_value(tree).unwrap_or_default())
            };
            all.iter().map(term).collect()
        });
        Ok(Need::Make { selected: selected.map(SmolStr::from), allowed })
    }

    /// Free volumes that suit a claim.
    fn fitting(
        &self,
        claim: &Object,
        spec: &k8s_openapi::api::core::v1::PersistentVolumeClaimSpec,
        class: &str,
    ) -> Vec<(Arc<Object>, Option<Vec<NodeTerm>>)> {
        let size = |quantity: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>| {
            quantity.and_then(|quantity| api::Quantity::parse(&quantity.0).ok()).map(|size| size.value_ceil())
        };
        let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let wanted = size(requests.and_then(|all| all.get("storage"))).unwrap_or_default();
        let labels = selector(spec.selector.as_ref());
        let volumes = self.snapshot.of::<PersistentVolume>();
        let mut found: Vec<(i64, Arc<Object>, Option<Vec<NodeTerm>>)> = vec![];
        for object in volumes.iter().filter(|object| object.header.deletion.is_none()) {
            let Ok(volume) = object.typed::<PersistentVolume>() else { continue };
            let Some(offer) = &volume.spec else { continue };
            let reserved = offer.claim_ref.as_ref();
            let ours = reserved.is_none_or(|other| {
                other.name.as_deref() == Some(&claim.key.name)
                    && other.namespace.as_deref() == Some(&claim.key.namespace)
                    && other.uid.as_deref().is_none_or(|uid| uid.is_empty() || uid == claim.header.uid)
            });
            let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Available");
            let free = ours && (reserved.is_some() || phase == "Available");
            let modes = spec.access_modes.iter().flatten();
            let mut modes = modes.map(|mode| offer.access_modes.iter().flatten().any(|offered| offered == mode));
            let same_class = offer.storage_class_name.as_deref().unwrap_or_default() == class;
            let same_mode = mode(offer.volume_mode.as_deref()) == mode(spec.volume_mode.as_deref());
            let capacity = size(offer.capacity.as_ref().and_then(|all| all.get("storage"))).unwrap_or_default();
            let chosen = labels.as_ref().is_none_or(|labels| labels.matches(&object.header.labels));
            if free && same_class && same_mode && capacity >= wanted && chosen && modes.all(|held| held) {
                found.push((capacity, object.clone(), terms(&volume)));
            }
        }
        found.sort_by(|a, b| (a.0, &a.1.key).cmp(&(b.0, &b.1.key)));
        found.into_iter().map(|(_, object, terms)| (object, terms)).collect()
    }

    pub fn check(&self, node: &NodeRow) -> Result<(), Refusal> {
        if self.taken {
            return Err(Refusal::curable(RWOP_TAKEN));
        }
        let mut used: Vec<&Key> = vec![];
        for claim in &self.claims {
            match &claim.need {
                Need::Bound(terms) if any_term(terms.as_ref(), &node.name, &node.labels) => {}
                Need::Bound(_) => {
                    return Err(Refusal::lasting("node(s) didn't match PersistentVolume's node affinity"));
                }
                Need::Match(volumes) => match pick(volumes, node, &used) {
                    Some(volume) => used.push(&volume.key),
                    None => {
                        return Err(Refusal::lasting("node(s) didn't find available persistent volumes to bind"));
                    }
                },
                Need::Make { selected, allowed } => {
                    let here = selected.as_ref().is_none_or(|selected| *selected == node.name);
                    if !here || !any_term(allowed.as_ref(), &node.name, &node.labels) {
                        return Err(Refusal::lasting("node(s) didn't find available persistent volumes to bind"));
                    }
                }
            }
        }
        Ok(())
    }

    /// What must happen before the pod can be bound to the node; empty where every claim is bound.
    pub fn prepare(&self, node: &NodeRow) -> Option<Vec<Op>> {
        let mut ops = vec![];
        let mut used: Vec<&Key> = vec![];
        let mut unbound = false;
        for claim in &self.claims {
            match &claim.need {
                Need::Bound(_) => {}
                Need::Match(volumes) => {
                    unbound = true;
                    if let Some(volume) = pick(volumes, node, &used) {
                        used.push(&volume.key);
                        ops.extend(reserve(volume, &claim.object));
                    }
                }
                Need::Make { selected, .. } => {
                    unbound = true;
                    if selected.is_none() {
                        let body = json!({"metadata": {"annotations": {SELECTED_NODE: node.name}}});
                        ops.push(merge(gvr_of::<PersistentVolumeClaim>(), &claim.object, body));
                    }
                }
            }
        }
        unbound.then_some(ops)
    }
}

fn pick<'v>(
    volumes: &'v [(Arc<Object>, Option<Vec<NodeTerm>>)],
    node: &NodeRow,
    used: &[&Key],
) -> Option<&'v Arc<Object>> {
    let here = |(_, terms): &&(Arc<Object>, Option<Vec<NodeTerm>>)| any_term(terms.as_ref(), &node.name, &node.labels);
    volumes.iter().filter(here).map(|(volume, _)| volume).find(|volume| !used.contains(&&volume.key))
}

/// Reserves a volume for the claim; the binder does the rest.
fn reserve(volume: &Object, claim: &Object) -> Option<Op> {
    let tree = volume.tree();
    if tree.pointer("/spec/claimRef/uid").and_then(api::Tree::as_str) == Some(claim.header.uid.as_str()) {
        return None;
    }
    let reference = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.key.namespace,
        "name": claim.key.name, "uid": claim.header.uid,
    });
    let body = json!({"spec": {"claimRef": reference}});
    Some(Op::Patch {
        gvr: gvr_of::<PersistentVolume>(),
        key: volume.key.clone(),
        subresource: None,
        patch: PatchType::Merge,
        body,
        // Two claims may want one volume: only the first write counts.
        when: Preconditions { uid: Some(volume.header.uid.clone()), revision: Some(volume.revision) },
    })
}

fn merge(gvr: api::Gvr, object: &Object, body: api::Tree) -> Op {
    let when = Preconditions { uid: Some(object.header.uid.clone()), revision: None };
    Op::Patch { gvr, key: object.key.clone(), subresource: None, patch: PatchType::Merge, body, when }
}

fn mode(mode: Option<&str>) -> &str {
    mode.unwrap_or("Filesystem")
}

fn terms(volume: &PersistentVolume) -> Option<Vec<NodeTerm>> {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    parse_selector(affinity.and_then(|affinity| affinity.required.as_ref()))
}

/// The pod's own resource, for operations.
pub fn pods() -> api::Gvr {
    gvr_of::<Pod>()
}
