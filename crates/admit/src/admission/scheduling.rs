//! What scheduling needs on a new pod or node: priority, tolerations, overhead, the first taint.

use api::{Status, Tree};
use serde_json::json;

use crate::context::Cx;
use crate::doc;

/// How long a pod stays on a node that is not ready or not reachable, unless it says otherwise.
const TOLERATED_SECONDS: i64 = 300;
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// The priority of a pod is its class's; people name classes, never numbers.
pub(super) fn priority(cx: &Cx<'_>, pod: &mut Tree) -> Result<(), Status> {
    let name = doc::text(pod, "metadata.name").to_owned();
    let class = match doc::text(pod, "spec.priorityClassName") {
        "" => default_class(cx),
        class => match cx.read("scheduling.k8s.io", "priorityclasses", "", class) {
            Some(object) => Some(object.tree()),
            None => return Err(cx.forbidden(&name, &format!("no PriorityClass with name {class} was found"))),
        },
    };
    let value = class.as_ref().and_then(|class| doc::int(class, "value")).unwrap_or(0);
    let policy = class.as_ref().map_or("", |class| doc::text(class, "preemptionPolicy"));
    let policy = if policy.is_empty() { "PreemptLowerPriority" } else { policy };
    if let Some(given) = doc::int(pod, "spec.priority").filter(|given| *given != value) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        );
        return Err(cx.forbidden(&name, &why));
    }
    let given = doc::text(pod, "spec.preemptionPolicy");
    if !given.is_empty() && given != policy {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        );
        return Err(cx.forbidden(&name, &why));
    }
    if let Some(class) = &class {
        doc::copy_field(class, "metadata.name", pod, "spec.priorityClassName");
    }
    doc::set(pod, "spec.priority", value);
    doc::set(pod, "spec.preemptionPolicy", policy);
    Ok(())
}

/// Of several defaults the lowest counts.
fn default_class(cx: &Cx<'_>) -> Option<Tree> {
    let classes = cx.list("scheduling.k8s.io", "priorityclasses", None);
    let defaults = classes.iter().map(|class| class.tree()).filter(|class| doc::is_true(class, "globalDefault"));
    defaults.min_by_key(|class| doc::int(class, "value").unwrap_or(0))
}

pub(super) fn only_default(cx: &Cx<'_>, class: &Tree) -> Result<(), Status> {
    if !doc::is_true(class, "globalDefault") {
        return Ok(());
    }
    match default_class(cx) {
        Some(other) => {
            let other = doc::text(&other, "metadata.name");
            let why = format!("PriorityClass {other} is already marked as default. Only one default can exist");
            Err(cx.forbidden(doc::text(class, "metadata.name"), &why))
        }
        None => Ok(()),
    }
}

pub(super) fn tolerations(pod: &mut Tree) {
    let tolerates = |pod: &Tree, key: &str| {
        doc::items(pod, "spec.tolerations").iter().any(|toleration| {
            let (effect, have) = (doc::text(toleration, "effect"), doc::text(toleration, "key"));
            (effect.is_empty() || effect == "NoExecute") && (have.is_empty() || have == key)
        })
    };
    for key in [NOT_READY, UNREACHABLE] {
        if !tolerates(pod, key) {
            doc::list_mut(pod, "spec.tolerations").push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATED_SECONDS,
            }));
        }
    }
}

/// A runtime class may cost something and bind to some nodes.
pub(super) fn overhead(cx: &Cx<'_>, pod: &mut Tree) -> Result<(), Status> {
    let class = doc::text(pod, "spec.runtimeClassName").to_owned();
    if class.is_empty() {
        return Ok(());
    }
    let name = doc::text(pod, "metadata.name").to_owned();
    let Some(object) = cx.read("node.k8s.io", "runtimeclasses", "", &class) else {
        return Err(cx.forbidden(&name, &format!("pod rejected: RuntimeClass {class:?} not found")));
    };
    let tree = object.tree();
    if doc::has(&tree, "overhead.podFixed") {
        doc::copy_field(&tree, "overhead.podFixed", pod, "spec.overhead");
    }
    for (key, value) in doc::entries(&tree, "scheduling.nodeSelector") {
        let selector = doc::object_mut(pod, "spec.nodeSelector");
        if selector.get(key).is_some_and(|have| have != value) {
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}]"
            );
            return Err(cx.forbidden(&name, &why));
        }
        selector.insert(key.clone(), value.clone());
    }
    for toleration in doc::items(&tree, "scheduling.tolerations") {
        let list = doc::list_mut(pod, "spec.tolerations");
        if !list.contains(toleration) {
            list.push(toleration.clone());
        }
    }
    Ok(())
}

/// A node is not ready before its agent has said so.
pub(super) fn not_ready_taint(node: &mut Tree) {
    let taints = doc::list_mut(node, "spec.taints");
    let has = |taint: &Tree| doc::text(taint, "key") == NOT_READY && doc::text(taint, "effect") == "NoSchedule";
    if !taints.iter().any(has) {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
}
