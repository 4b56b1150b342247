//! Deletion: now, later (grace), or when others are done (finalizers).

use api::{Preconditions, Propagation, Reason, Status, Tree};
use jiff::SignedDuration;
use serde_json::json;

use crate::context::{Cx, Gathered, Old, delete as remove, put, stamp};
use crate::pipeline::{Outcome, admitted, review};
use crate::request::WriteVerb;
use crate::{Change, Place, admission, allocate, doc, meta};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// Grace of a pod whose spec does not say.
const POD_GRACE_SECONDS: i64 = 30;

/// How far a deletion gets in one step.
pub(crate) enum Step {
    Gone,
    /// Marked: grace runs, or finalizers are pending.
    Begun(Tree),
    /// Was already under way and this request changes nothing.
    Pending,
}

/// What a deletion is asked to be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) propagation: Option<Propagation>,
    pub(crate) grace_seconds: Option<i64>,
}

pub(crate) async fn delete(cx: &Cx<'_>, old: Option<Old>) -> Result<Outcome, Status> {
    let WriteVerb::Delete { when, propagation, grace_seconds } = &cx.request.verb else {
        return Err(Status::internal("not a deletion"));
    };
    let old = old.ok_or_else(|| cx.not_found(&cx.request.name))?;
    preconditions(cx, when, &old)?;
    let mut gathered = Gathered::default();
    admission::validate(cx, None, Some(&old.tree), &mut gathered)?;
    let review = review(cx, Some(&old.tree), &cx.request.name);
    gathered.warnings.extend(cx.ports.hooks.validate(&review, None).await?);
    let wish = Wish { propagation: *propagation, grace_seconds: *grace_seconds };
    if wish.grace_seconds.is_some_and(|seconds| seconds < 0) {
        return outcome(cx, old, Wish { grace_seconds: Some(1), ..wish }, gathered);
    }
    outcome(cx, old, wish, gathered)
}

/// Runs one step of a deletion into a batch; whatever was gathered before goes with it.
pub(crate) fn outcome(cx: &Cx<'_>, old: Old, wish: Wish, gathered: Gathered) -> Result<Outcome, Status> {
    let Gathered { warnings, mut changes } = gathered;
    let place = cx.place(doc::text(&old.tree, "metadata.name"));
    let (object, deleted) = match step(cx, &old.tree, wish) {
        Step::Gone => {
            changes.extend(removal(cx, place, &old));
            (answer(cx, &old.tree), true)
        }
        Step::Begun(tree) => {
            changes.insert(0, put(place, Some(old.revision), &tree));
            let mut object = tree;
            doc::remove(&mut object, "metadata.resourceVersion");
            (object, false)
        }
        Step::Pending => (old.tree, false),
    };
    Ok(Outcome { admitted: admitted(cx, changes), object, created: false, deleted, warnings })
}

/// # Errors
/// 409 where the state is not the one that the client meant.
pub(crate) fn preconditions(cx: &Cx<'_>, when: &Preconditions, old: &Old) -> Result<(), Status> {
    let name = doc::text(&old.tree, "metadata.name");
    let have = doc::text(&old.tree, "metadata.uid");
    if let Some(uid) = when.uid.as_ref().filter(|uid| *uid != have) {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {have}");
        return Err(cx.conflict(name, &why));
    }
    if let Some(revision) = when.revision.filter(|revision| *revision != old.revision) {
        let have = old.revision;
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {revision}, ResourceVersion in object meta: {have}"
        );
        return Err(cx.conflict(name, &why));
    }
    Ok(())
}

/// Decides one step. Pure but for the time and whether the kind counts generations.
pub(crate) fn step(cx: &Cx<'_>, old: &Tree, wish: Wish) -> Step {
    let mut tree = old.clone();
    settle_finalizers(&mut tree, wish.propagation);
    let waits = doc::has(old, "metadata.deletionTimestamp");
    let seconds = grace(cx, old, wish.grace_seconds);
    let held = !doc::items(&tree, "metadata.finalizers").is_empty() || is_held_namespace(cx, &tree);
    if waits {
        let left = doc::int(old, "metadata.deletionGracePeriodSeconds").unwrap_or(0);
        if seconds < left || (seconds == 0 && left == 0) {
            if seconds == 0 && !held {
                return Step::Gone;
            }
            if seconds < left {
                shorten(&mut tree, seconds);
            }
        }
    } else {
        if seconds == 0 && !held {
            return Step::Gone;
        }
        mark(cx, &mut tree, seconds);
    }
    if tree == *old { Step::Pending } else { Step::Begun(tree) }
}

/// True when nothing holds an object back whose deletion was asked for.
pub(crate) fn is_done(cx: &Cx<'_>, tree: &Tree) -> bool {
    doc::has(tree, "metadata.deletionTimestamp")
        && doc::items(tree, "metadata.finalizers").is_empty()
        && doc::int(tree, "metadata.deletionGracePeriodSeconds").unwrap_or(0) == 0
        && !is_held_namespace(cx, tree)
}

/// The object goes, and with it what it had claimed.
pub(crate) fn removal(cx: &Cx<'_>, place: Place, old: &Old) -> Vec<Change> {
    let mut changes = vec![remove(place, old.revision)];
    changes.extend(allocate::release(cx, &old.tree));
    changes.extend(admission::quota_on_removal(cx, &old.tree));
    changes
}

fn is_held_namespace(cx: &Cx<'_>, tree: &Tree) -> bool {
    cx.is("", "Namespace") && !doc::items(tree, "spec.finalizers").is_empty()
}

/// Seconds of grace; only pods have any.
fn grace(cx: &Cx<'_>, pod: &Tree, asked: Option<i64>) -> i64 {
    if !cx.is("", "Pod") {
        return 0;
    }
    let finished = matches!(doc::text(pod, "status.phase"), "Succeeded" | "Failed");
    if doc::text(pod, "spec.nodeName").is_empty() || finished {
        return 0;
    }
    let seconds = asked.or_else(|| doc::int(pod, "spec.terminationGracePeriodSeconds")).unwrap_or(POD_GRACE_SECONDS);
    if seconds < 0 { 1 } else { seconds }
}

fn mark(cx: &Cx<'_>, tree: &mut Tree, seconds: i64) {
    let at = cx.now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(cx.now);
    doc::set(tree, "metadata.deletionTimestamp", stamp(at));
    doc::set(tree, "metadata.deletionGracePeriodSeconds", seconds);
    if let Some(generation) = doc::int(tree, "metadata.generation").filter(|_| meta::has_generation(cx)) {
        doc::set(tree, "metadata.generation", generation + 1);
    }
    if cx.is("", "Namespace") {
        doc::set(tree, "status.phase", "Terminating");
    }
}

/// A later request may shorten the grace of an earlier one, never lengthen it.
fn shorten(tree: &mut Tree, seconds: i64) {
    let left = doc::int(tree, "metadata.deletionGracePeriodSeconds").unwrap_or(0);
    if let Ok(at) = doc::text(tree, "metadata.deletionTimestamp").parse::<jiff::Timestamp>() {
        let sooner = at.checked_sub(SignedDuration::from_secs(left - seconds)).unwrap_or(at);
        doc::set(tree, "metadata.deletionTimestamp", stamp(sooner));
    }
    doc::set(tree, "metadata.deletionGracePeriodSeconds", seconds);
}

/// The garbage collector's finalizers follow the propagation policy; without one they stay as they are.
fn settle_finalizers(tree: &mut Tree, propagation: Option<Propagation>) {
    let want = match propagation {
        None => return,
        Some(Propagation::Orphan) => Some(ORPHAN),
        Some(Propagation::Foreground) => Some(FOREGROUND),
        Some(Propagation::Background) => None,
    };
    let mut finalizers: Vec<Tree> = doc::items(tree, "metadata.finalizers").to_vec();
    finalizers.retain(|name| Some(name.as_str().unwrap_or_default()) == want || (name != ORPHAN && name != FOREGROUND));
    if let Some(want) = want.filter(|want| !finalizers.contains(&json!(want))) {
        finalizers.push(json!(want));
    }
    if finalizers.is_empty() {
        doc::remove(tree, "metadata.finalizers");
    } else {
        doc::set(tree, "metadata.finalizers", finalizers);
    }
}

/// What a finished deletion answers: the object for the kinds that upstream returns, else a `Status`.
fn answer(cx: &Cx<'_>, old: &Tree) -> Tree {
    const RETURNED: [&str; 7] = [
        "Pod",
        "Service",
        "ServiceAccount",
        "ResourceQuota",
        "PodTemplate",
        "PersistentVolume",
        "PersistentVolumeClaim",
    ];
    let gvk = &cx.kind.gvk;
    if gvk.group.is_empty() && RETURNED.contains(&gvk.kind.as_str()) {
        let mut tree = old.clone();
        doc::remove(&mut tree, "metadata.resourceVersion");
        return tree;
    }
    let mut details = json!({
        "name": doc::text(old, "metadata.name"), "kind": cx.kind.resource.as_str(), "uid": doc::text(old, "metadata.uid"),
    });
    if !gvk.group.is_empty() {
        doc::set(&mut details, "group", gvk.group.as_str());
    }
    success(details)
}

/// A `Status` that says it worked.
pub(crate) fn success(details: Tree) -> Tree {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// The answer to a deletion that another rule forbids for now.
pub(crate) fn too_many_requests(message: &str) -> Status {
    Status::new(Reason::TooManyRequests, message)
}
