//! HorizontalPodAutoscalers: as many replicas as keep the pods' measured usage at its target.
//!
//! Pod and container resource metrics are computed from the usage port; other metric sources have nobody to ask and say
//! so in `ScalingActive`.

use api::snapshot::gvr_of;
use api::{Gvr, Key, LabelSelector, Object, Op, PatchType, Plan, Preconditions, Quantity, Snapshot, Tree};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use serde_json::json;
use std::sync::Arc;

use crate::config::Usage;
use crate::kit::condition::{self, Condition};
use crate::kit::keys;
use crate::kit::op;
use crate::kit::pod::PodRef;
use crate::kit::value::{int, list, text, time, time_at};
use crate::{Controller, Ctx, Watch};

/// Between two looks at the measurements.
const PERIOD: SignedDuration = SignedDuration::from_secs(15);
/// Deviations from the target, in percent, that move nothing.
const TOLERANCE_PERCENT: i64 = 10;
const STABILIZATION_DEFAULT: i64 = 300;

pub fn controller() -> Controller {
    Controller {
        name: "horizontalpodautoscaler",
        component: "horizontal-pod-autoscaler",
        watches: vec![
            Watch { gvr: gvr_of::<HorizontalPodAutoscaler>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Deployment>(), indexes: vec![] },
            Watch { gvr: gvr_of::<ReplicaSet>(), indexes: vec![] },
            Watch { gvr: gvr_of::<StatefulSet>(), indexes: vec![] },
            Watch { gvr: gvr_of::<ReplicationController>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Pod>(), indexes: vec![] },
        ],
        every_kind: false,
        // Usage moves without a change of any object: the plan asks for its next look itself.
        enqueue: |gvr, old, new, snapshot| {
            if *gvr == gvr_of::<HorizontalPodAutoscaler>() {
                let same = old.zip(new).is_some_and(|(old, new)| old.header.generation == new.header.generation);
                return if same { vec![] } else { keys::own(old, new) };
            }
            let Some(object) = new.or(old).filter(|_| *gvr != gvr_of::<Pod>()) else { return vec![] };
            if old.map(|old| old.header.generation) == new.map(|new| new.header.generation) {
                return vec![];
            }
            let scalers = snapshot.of::<HorizontalPodAutoscaler>();
            let of = scalers.in_namespace(&object.key.namespace);
            of.filter(|scaler| text(&scaler.tree(), "/spec/scaleTargetRef/name") == object.key.name)
                .map(|scaler| scaler.key.clone())
                .collect()
        },
        plan,
        workers: 2,
    }
}

/// What is scaled.
struct Target {
    gvr: Gvr,
    object: Arc<Object>,
    replicas: i64,
    selector: LabelSelector,
}

/// What one metric wants.
struct Proposal {
    replicas: i64,
    /// The entry of `status.currentMetrics`.
    current: Tree,
}

fn target(snapshot: &Snapshot, namespace: &str, reference: &Tree) -> Option<Target> {
    let gvr = match text(reference, "/kind") {
        "Deployment" => gvr_of::<Deployment>(),
        "ReplicaSet" => gvr_of::<ReplicaSet>(),
        "StatefulSet" => gvr_of::<StatefulSet>(),
        "ReplicationController" => gvr_of::<ReplicationController>(),
        _ => return None,
    };
    let object = snapshot.stream(&gvr).get(&Key::new(namespace, text(reference, "/name")))?.clone();
    let tree = object.tree();
    let parse = if gvr.group.is_empty() { keys::map_selector } else { keys::label_selector };
    let selector = tree.pointer("/spec/selector").and_then(parse)?;
    Some(Target { gvr, object, replicas: int(&tree, "/spec/replicas").unwrap_or(1), selector })
}

fn plan(ctx: &Ctx, snapshot: &Snapshot, key: &Key, now: Timestamp) -> Plan {
    let scalers = snapshot.of::<HorizontalPodAutoscaler>();
    let Some(scaler) = scalers.get(key).filter(|scaler| scaler.header.deletion.is_none()) else { return Plan::NOTHING };
    let tree = scaler.tree();
    let mut conditions = list(&tree, "/status/conditions").to_vec();
    let mut say = |r#type: &str, status: &str, reason: &str, message: &str| {
        condition::set(&mut conditions, Condition { r#type, status, reason, message }, now);
    };
    let found = tree.pointer("/spec/scaleTargetRef").and_then(|target_| target(snapshot, &key.namespace, target_));
    let Some(target) = found else {
        say(
            "AbleToScale",
            "False",
            "FailedGetScale",
            "the HPA controller was unable to get the target's current scale",
        );
        return finish(scaler, &tree, None, conditions, vec![], vec![], now);
    };
    say("AbleToScale", "True", "SucceededGetScale", "the HPA controller was able to get the target's current scale");
    let again = ctx.usage.as_ref().map(|_| now + PERIOD);
    if target.replicas == 0 {
        say(
            "ScalingActive",
            "False",
            "ScalingDisabled",
            "scaling is disabled since the replica count of the target is zero",
        );
        return finish(scaler, &tree, Some((&target, 0)), conditions, vec![], vec![], now);
    }
    let (proposals, problem) = proposals(ctx, snapshot, &tree, &target);
    let best = proposals.iter().map(|proposal| proposal.replicas).max();
    match (&best, &problem) {
        (_, None) => say(
            "ScalingActive",
            "True",
            "ValidMetricFound",
            "the HPA was able to successfully calculate a replica count",
        ),
        (_, Some((reason, message))) => say("ScalingActive", "False", reason, message),
    }
    // With one metric unknown only growth is safe.
    let best = best.filter(|best| problem.is_none() || *best > target.replicas).unwrap_or(target.replicas);
    let (wanted, reason, message) = bounded(&tree, target.replicas, best);
    say("ScalingLimited", if reason == "DesiredWithinRange" { "False" } else { "True" }, reason, message);
    let wanted = settle(&tree, target.replicas, wanted, now);
    let current: Vec<Tree> = proposals.into_iter().map(|proposal| proposal.current).collect();
    let scale: Vec<Op> = (wanted != target.replicas).then(|| scale_op(&target, wanted)).into_iter().collect();
    let plan = finish(scaler, &tree, Some((&target, wanted)), conditions, current, scale, now);
    match again {
        Some(at) => plan.again_at(at),
        None => plan,
    }
}

fn scale_op(target: &Target, replicas: i64) -> Op {
    Op::Patch {
        gvr: target.gvr.clone(),
        key: target.object.key.clone(),
        subresource: Some("scale".into()),
        patch: PatchType::Merge,
        body: json!({"spec": {"replicas": replicas}}),
        when: Preconditions { uid: Some(target.object.header.uid.clone()), revision: None },
    }
}

fn finish(
    scaler: &Object,
    tree: &Tree,
    scaled: Option<(&Target, i64)>,
    conditions: Vec<Tree>,
    current: Vec<Tree>,
    scale: Vec<Op>,
    now: Timestamp,
) -> Plan {
    let mut status = tree.get("status").cloned().unwrap_or_else(|| json!({}));
    let mut events = vec![];
    status["observedGeneration"] = json!(scaler.header.generation);
    status["conditions"] = json!(conditions);
    if !current.is_empty() {
        status["currentMetrics"] = json!(current);
    }
    if let Some((target, wanted)) = scaled {
        status["currentReplicas"] = json!(target.replicas);
        status["desiredReplicas"] = json!(wanted);
        if wanted != target.replicas {
            status["lastScaleTime"] = json!(time(now));
            let message = format!("New size: {wanted}; reason: usage differs from the target");
            events.push(op::event::<HorizontalPodAutoscaler>(scaler, "SuccessfulRescale", message));
        }
    }
    let write = op::status::<HorizontalPodAutoscaler>(scaler, tree, &status);
    Plan::step(scale).then(write.into_iter().collect()).then(events)
}

type Problem = (&'static str, String);

fn proposals(ctx: &Ctx, snapshot: &Snapshot, tree: &Tree, target: &Target) -> (Vec<Proposal>, Option<Problem>) {
    let namespace = target.object.key.namespace.clone();
    let pods = snapshot.of::<Pod>();
    let of = pods.in_namespace(&namespace).filter(|pod| target.selector.matches(&pod.header.labels));
    let pods: Vec<PodRef> = of.filter_map(PodRef::of).filter(|pod| pod.active()).collect();
    let (mut found, mut problem) = (vec![], None);
    for metric in list(tree, "/spec/metrics") {
        let (source, container, failed) = match text(metric, "/type") {
            "Resource" => ("resource", "", "FailedGetResourceMetric"),
            "ContainerResource" => {
                ("containerResource", text(metric, "/containerResource/container"), "FailedGetContainerResourceMetric")
            }
            "Pods" => ("", "", "FailedGetPodsMetric"),
            "Object" => ("", "", "FailedGetObjectMetric"),
            _ => ("", "", "FailedGetExternalMetric"),
        };
        let measured = ctx.usage.as_deref().filter(|_| !source.is_empty());
        let Some(usage) = measured else {
            problem =
                Some((failed, "the HPA was unable to compute the replica count: no metrics are available".to_owned()));
            continue;
        };
        match propose(usage, metric, source, container, &pods, target.replicas) {
            Ok(proposal) => found.push(proposal),
            Err(why) => problem = Some((failed, format!("the HPA was unable to compute the replica count: {why}"))),
        }
    }
    (found, problem)
}

fn propose(
    usage: &dyn Usage,
    metric: &Tree,
    source: &str,
    container: &str,
    pods: &[PodRef],
    replicas: i64,
) -> Result<Proposal, String> {
    let name = text(metric, &format!("/{source}/name"));
    let (mut used, mut requested, mut ready, mut missing) = (0_i64, 0_i64, 0_i64, 0_i64);
    for pod in pods {
        let measured = usage.of_pod(&pod.object.key).filter(|_| pod.ready() || name != "cpu");
        let Some(measured) = measured else {
            missing += 1;
            continue;
        };
        ready += 1;
        let of = |(part, _): &(&base::SmolStr, &std::collections::BTreeMap<base::SmolStr, i64>)| {
            container.is_empty() || part.as_str() == container
        };
        used += measured.iter().filter(of).filter_map(|(_, amounts)| amounts.get(name)).sum::<i64>();
        requested += requests(pod, name, container)?;
    }
    if ready == 0 {
        return Err(format!(
            "unable to get metrics for resource {name}: no metrics returned from resource metrics API"
        ));
    }
    let goal = format!("/{source}/target");
    let (ratio, current) = match int(metric, &format!("{goal}/averageUtilization")) {
        Some(percent) => {
            if requested == 0 {
                return Err(format!("missing request for {name}"));
            }
            let now = used * 100 / requested;
            (
                (used * 100, requested * percent),
                json!({"averageUtilization": now, "averageValue": amount(name, used / ready)}),
            )
        }
        None => {
            let wanted = Quantity::parse(text(metric, &format!("{goal}/averageValue"))).unwrap_or_default();
            let wanted = if name == "cpu" { wanted.milli_ceil() } else { wanted.value_ceil() };
            ((used, wanted * ready), json!({"averageValue": amount(name, used / ready)}))
        }
    };
    let (have, goal) = (ratio.0, ratio.1.max(1));
    let near = (have - goal).abs() * 100 <= goal * TOLERANCE_PERCENT;
    // Pods without a measurement count as at their goal when shrinking and as idle when growing.
    let counted = if have < goal { ready + missing } else { ready };
    let exact = (counted * have + goal - 1) / goal;
    let wanted = match near {
        true => replicas,
        false if have > goal => exact.max(replicas),
        false => exact.min(replicas),
    };
    let mut entry = json!({"type": metric["type"], source: {"name": name, "current": current}});
    if !container.is_empty() {
        entry[source]["container"] = json!(container);
    }
    Ok(Proposal { replicas: wanted, current: entry })
}

fn amount(name: &str, value: i64) -> String {
    if name == "cpu" { format!("{value}m") } else { value.to_string() }
}

fn requests(pod: &PodRef, name: &str, container: &str) -> Result<i64, String> {
    let spec = pod.pod.spec.as_ref();
    let containers = spec.into_iter().flat_map(|spec| &spec.containers);
    let mut sum = 0;
    for one in containers.filter(|one| container.is_empty() || one.name == container) {
        let request = one.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get(name));
        let Some(request) = request else {
            return Err(format!("missing request for {name} in container {} of Pod {}", one.name, pod.object.key.name));
        };
        let parsed = Quantity::parse(&request.0).unwrap_or_default();
        sum += if name == "cpu" { parsed.milli_ceil() } else { parsed.value_ceil() };
    }
    Ok(sum)
}

/// Within the range, and no faster up than double or four more at a time.
fn bounded(tree: &Tree, current: i64, wanted: i64) -> (i64, &'static str, &'static str) {
    let least = int(tree, "/spec/minReplicas").unwrap_or(1);
    let most = int(tree, "/spec/maxReplicas").unwrap_or(least);
    let step = (current * 2).max(current + 4);
    if wanted > most {
        return (most, "TooManyReplicas", "the desired replica count is more than the maximum replica count");
    }
    if wanted < least {
        return (least, "TooFewReplicas", "the desired replica count is less than the minimum replica count");
    }
    if wanted > step {
        return (
            step.min(most),
            "ScaleUpLimit",
            "the desired replica count is increasing faster than the maximum scale rate",
        );
    }
    (wanted, "DesiredWithinRange", "the desired count is within the acceptable range")
}

/// Shrinks only when the last change is old enough, so that a dip does not cost pods that are needed again at once.
fn settle(tree: &Tree, current: i64, wanted: i64, now: Timestamp) -> i64 {
    let window = int(tree, "/spec/behavior/scaleDown/stabilizationWindowSeconds").unwrap_or(STABILIZATION_DEFAULT);
    let disabled = text(tree, "/spec/behavior/scaleDown/selectPolicy") == "Disabled";
    let last = time_at(tree, "/status/lastScaleTime").or_else(|| time_at(tree, "/metadata/creationTimestamp"));
    let young = last.is_some_and(|last| last + SignedDuration::from_secs(window) > now);
    if wanted < current && (disabled || young) { current } else { wanted }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UsageOf;
    use crate::testing::World;

    struct Fixed(i64);

    impl Usage for Fixed {
        fn of_pod(&self, _: &Key) -> Option<UsageOf> {
            Some(UsageOf::from([("c".into(), [("cpu".into(), self.0)].into_iter().collect())]))
        }
    }

    fn world(usage: Option<i64>) -> World {
        let mut world = World::new(&["horizontalpodautoscaler"]);
        world.ctx.usage = usage.map(|milli| Arc::new(Fixed(milli)) as Arc<dyn Usage>);
        world.put(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "a"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}}}));
        for name in ["p1", "p2"] {
            world.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a", "labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}));
        }
        let target = json!({"type": "Utilization", "averageUtilization": 50});
        world.put(json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web", "namespace": "a"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 5,
                     "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]}}));
        world.converge();
        world
    }

    fn replicas(world: &World) -> Tree {
        world.get("apps/v1", "Deployment", "a/web")["spec"]["replicas"].clone()
    }

    #[test]
    fn grows_with_usage_and_shrinks_late() {
        assert_eq!(replicas(&world(Some(100))), 4);
        assert_eq!(replicas(&world(Some(52))), 2, "within tolerance");
        let mut idle = world(Some(10));
        assert_eq!(replicas(&idle), 2);
        idle.pass(301);
        assert_eq!(replicas(&idle), 1);
    }

    #[test]
    fn without_measurements_it_says_so() {
        let world = world(None);
        let conditions =
            world.get("autoscaling/v2", "HorizontalPodAutoscaler", "a/web")["status"]["conditions"].clone();
        let active = conditions.as_array().unwrap().iter().find(|one| one["type"] == "ScalingActive").unwrap();
        assert_eq!((&active["status"], &active["reason"]), (&json!("False"), &json!("FailedGetResourceMetric")));
        assert_eq!(replicas(&world), 2);
    }
}
