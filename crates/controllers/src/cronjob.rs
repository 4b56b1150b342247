//! CronJobs: one Job per scheduled time, under a name that follows from that time.

use std::str::FromStr;
use std::sync::Arc;

use api::snapshot::gvr_of;
use api::{Index, Key, Object, Op, Plan, Propagation, Snapshot, Tree};
use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::Resource;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use serde_json::json;

use crate::kit::condition::is_true;
use crate::kit::keys;
use crate::kit::value::{flag, int, list, text, time, time_at};
use crate::kit::{op, owner};
use crate::{Controller, Ctx, Watch};

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
const SUCCESSFUL_KEPT: i64 = 3;
const FAILED_KEPT: i64 = 1;

pub fn controller() -> Controller {
    Controller {
        name: "cronjob",
        component: "cronjob-controller",
        watches: vec![
            Watch { gvr: gvr_of::<CronJob>(), indexes: vec![] },
            Watch { gvr: gvr_of::<Job>(), indexes: vec![Index::CONTROLLER] },
        ],
        every_kind: false,
        enqueue: |gvr, old, new, _| {
            if *gvr == gvr_of::<CronJob>() { keys::own(old, new) } else { keys::controllers("CronJob", old, new) }
        },
        plan,
        workers: 5,
    }
}

/// When a schedule fires.
enum Schedule {
    Cron(Box<Cron>, TimeZone),
    /// `@every 90s`, counted from the last time.
    Every(SignedDuration),
}

impl Schedule {
    fn parse(tree: &Tree) -> Result<Schedule, String> {
        let text_of = text(tree, "/spec/schedule").trim();
        let zone = match text(tree, "/spec/timeZone") {
            "" => TimeZone::UTC,
            name => TimeZone::get(name).map_err(|_| format!("unknown time zone {name}"))?,
        };
        if let Some(span) = text_of.strip_prefix("@every ") {
            let span: SignedDuration =
                span.trim().parse().map_err(|_| format!("failed to parse duration {text_of}"))?;
            return Ok(Schedule::Every(span.max(SignedDuration::from_secs(1))));
        }
        let cron = Cron::from_str(text_of).map_err(|error| format!("{error}"))?;
        Ok(Schedule::Cron(Box::new(cron), zone))
    }

    /// The latest time in `(after, now]`.
    fn latest(&self, after: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let found = match self {
            Schedule::Cron(cron, zone) => {
                cron.find_previous_occurrence(&now.to_zoned(zone.clone()), true).ok()?.timestamp()
            }
            Schedule::Every(span) => {
                let passed = now.duration_since(after).as_secs() / span.as_secs();
                after + SignedDuration::from_secs(passed * span.as_secs())
            }
        };
        (found > after && found <= now).then_some(found)
    }

    fn next(&self, after: Timestamp, now: Timestamp) -> Option<Timestamp> {
        match self {
            Schedule::Cron(cron, zone) => {
                Some(cron.find_next_occurrence(&now.to_zoned(zone.clone()), false).ok()?.timestamp())
            }
            Schedule::Every(span) => {
                let passed = now.duration_since(after).as_secs() / span.as_secs();
                Some(after + SignedDuration::from_secs((passed + 1) * span.as_secs()))
            }
        }
    }
}

fn plan(_: &Ctx, snapshot: &Snapshot, key: &Key, now: Timestamp) -> Plan {
    let crons = snapshot.of::<CronJob>();
    let Some(object) = crons.get(key) else { return Plan::NOTHING };
    let tree = object.tree();
    if object.header.deletion.is_some() {
        return Plan::NOTHING;
    }
    let jobs = snapshot.of::<Job>();
    let owned: Vec<(Arc<Object>, Tree)> =
        jobs.by(Index::CONTROLLER.name, &object.header.uid).map(|job| (job.clone(), job.tree())).collect();
    let mut status = tree.get("status").cloned().unwrap_or_else(|| json!({}));
    observe(&owned, &mut status);
    let tidy = history(&tree, &owned);
    let write = |status: &Tree| op::status::<CronJob>(object, &tree, status);
    let rest = |status: &Tree| Plan::step(write(status).into_iter().chain(tidy.clone()).collect());
    if flag(&tree, "/spec/suspend") {
        return rest(&status);
    }
    let schedule = match Schedule::parse(&tree) {
        Ok(schedule) => schedule,
        Err(why) => {
            let reason = if why.starts_with("unknown time zone") { "UnknownTimeZone" } else { "UnparseableSchedule" };
            let message = format!("unparseable schedule {:?}: {why}", text(&tree, "/spec/schedule"));
            return rest(&status).then(vec![op::warning::<CronJob>(object, reason, message)]);
        }
    };
    let created = object.header.created.unwrap_or(now);
    let last = time_at(&tree, "/status/lastScheduleTime").unwrap_or(created);
    let starting = int(&tree, "/spec/startingDeadlineSeconds").map(SignedDuration::from_secs);
    let earliest = starting.map_or(last, |deadline| last.max(now - deadline));
    let again = schedule.next(last, now);
    let plan = match schedule.latest(earliest, now) {
        Some(at) => fire(&Firing { object, tree: &tree, snapshot, owned: &owned, at }, &mut status, &tidy),
        None => rest(&status),
    };
    match again {
        Some(at) => plan.again_at(at),
        None => plan,
    }
}

struct Firing<'a> {
    object: &'a Object,
    tree: &'a Tree,
    snapshot: &'a Snapshot,
    owned: &'a [(Arc<Object>, Tree)],
    at: Timestamp,
}

/// Starts the Job of one scheduled time, as the concurrency policy allows.
fn fire(firing: &Firing<'_>, status: &mut Tree, tidy: &[Op]) -> Plan {
    let Firing { object, tree, snapshot, owned, at } = firing;
    let write = |status: &Tree| op::status::<CronJob>(object, tree, status).into_iter().collect::<Vec<Op>>();
    let name = format!("{}-{}", object.key.name, at.as_second() / 60);
    let active: Vec<&(Arc<Object>, Tree)> = owned.iter().filter(|(_, job)| !finished(job)).collect();
    let exists = snapshot.of::<Job>().get(&Key::new(&object.key.namespace, &name)).is_some();
    let policy = text(tree, "/spec/concurrencyPolicy");
    let mut first = tidy.to_vec();
    let mut events = vec![];
    if !exists {
        if policy == "Forbid" && !active.is_empty() {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            events.push(op::event::<CronJob>(object, "JobAlreadyActive", message));
            first.extend(write(status));
            return Plan::step(first).then(events);
        }
        if policy == "Replace" {
            for (job, _) in &active {
                first.push(op::delete_gvr(&gvr_of::<Job>(), job, Some(Propagation::Background)));
                events.push(op::event::<CronJob>(object, "SuccessfulDelete", format!("Deleted job {}", job.key.name)));
            }
        }
        events.push(op::event::<CronJob>(object, "SuccessfulCreate", format!("Created job {name}")));
    }
    let create = if exists { vec![] } else { vec![op::create::<Job>(&object.key.namespace, job(firing, &name))] };
    status["lastScheduleTime"] = json!(time(*at));
    Plan::step(first).then(create).then(write(status)).then(events)
}

fn job(firing: &Firing<'_>, name: &str) -> Tree {
    let template = firing.tree.pointer("/spec/jobTemplate").cloned().unwrap_or_default();
    let mut meta = json!({
        "name": name, "namespace": firing.object.key.namespace,
        "ownerReferences": [owner::reference::<CronJob>(firing.object)],
        "annotations": template.pointer("/metadata/annotations").cloned().unwrap_or_else(|| json!({})),
    });
    meta["annotations"][SCHEDULED_AT] = json!(time(firing.at));
    if let Some(labels) = template.pointer("/metadata/labels").filter(|labels| !labels.is_null()) {
        meta["labels"] = labels.clone();
    }
    let spec = template.get("spec").cloned().unwrap_or_default();
    json!({"apiVersion": Job::API_VERSION, "kind": Job::KIND, "metadata": meta, "spec": spec})
}

fn ended(job: &Tree, how: &str) -> bool {
    is_true(list(job, "/status/conditions"), how)
}

fn finished(job: &Tree) -> bool {
    ended(job, "Complete") || ended(job, "Failed")
}

/// Running Jobs and the latest success, as the status tells them.
fn observe(owned: &[(Arc<Object>, Tree)], status: &mut Tree) {
    let active: Vec<Tree> = owned
        .iter()
        .filter(|(_, job)| !finished(job))
        .map(|(object, _)| {
            json!({
                "apiVersion": Job::API_VERSION, "kind": Job::KIND, "namespace": object.key.namespace,
                "name": object.key.name, "uid": object.header.uid, "resourceVersion": object.revision.to_string(),
            })
        })
        .collect();
    // A running Job's revision changes often; the reference is renewed only when the set of Jobs changes.
    let uids = |all: &[Tree]| all.iter().map(|one| text(one, "/uid").to_owned()).collect::<Vec<_>>();
    if uids(&active) != uids(list(status, "/active")) {
        status["active"] = if active.is_empty() { Tree::Null } else { json!(active) };
    }
    let ends =
        owned.iter().filter(|(_, job)| ended(job, "Complete")).map(|(_, job)| text(job, "/status/completionTime"));
    let latest = ends.max().unwrap_or_default();
    if latest > text(status, "/lastSuccessfulTime") {
        status["lastSuccessfulTime"] = json!(latest);
    }
}

/// Deletes the oldest finished Jobs beyond the limits.
fn history(tree: &Tree, owned: &[(Arc<Object>, Tree)]) -> Vec<Op> {
    let mut ops = vec![];
    let limits = [
        ("Complete", int(tree, "/spec/successfulJobsHistoryLimit").unwrap_or(SUCCESSFUL_KEPT)),
        ("Failed", int(tree, "/spec/failedJobsHistoryLimit").unwrap_or(FAILED_KEPT)),
    ];
    for (how, limit) in limits {
        let mut of: Vec<_> = owned.iter().filter(|(_, job)| ended(job, how)).collect();
        of.sort_by_key(|(object, job)| (time_at(job, "/status/startTime"), object.key.clone()));
        let surplus = of.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        let doomed = of.into_iter().take(surplus).filter(|(object, _)| object.header.deletion.is_none());
        ops.extend(doomed.map(|(job, _)| op::delete_gvr(&gvr_of::<Job>(), job, Some(Propagation::Background))));
    }
    ops
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    fn put(world: &mut World, schedule: &str, more: Tree) {
        let mut cron = json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c", "namespace": "a"},
            "spec": {"schedule": schedule, "jobTemplate": {"spec": {"template": {"spec": {}}}}},
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            cron["spec"][name] = value.clone();
        }
        world.put(cron);
        world.converge();
    }

    fn complete(world: &mut World) {
        for job in world.list("batch/v1", "Job") {
            let status = json!({"conditions": [{"type": "Complete", "status": "True"}], "startTime": time(world.now), "completionTime": time(world.now)});
            let name = format!("a/{}", job["metadata"]["name"].as_str().unwrap());
            if job["status"].is_null() {
                world.edit("batch/v1", "Job", &name, json!({ "status": status }));
            }
        }
    }

    fn names(world: &World) -> Vec<String> {
        world.list("batch/v1", "Job").iter().map(|job| job["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn fires_on_time_and_keeps_a_short_history() {
        let mut world = World::new(&["cronjob"]);
        world.agent = complete;
        put(&mut world, "*/10 * * * *", json!({}));
        world.pass(599);
        assert!(names(&world).is_empty());
        world.pass(1);
        assert_eq!(names(&world), ["c-29453770"]);
        world.pass(6000);
        assert_eq!(names(&world).len(), 3);
        let status = world.get("batch/v1", "CronJob", "a/c")["status"].clone();
        assert_eq!(status["lastScheduleTime"], "2026-01-01T01:50:00Z");
        assert_eq!(status["lastSuccessfulTime"], "2026-01-01T01:50:00Z");
    }

    #[test]
    fn concurrency_policies() {
        let mut world = World::new(&["cronjob"]);
        put(&mut world, "* * * * *", json!({"concurrencyPolicy": "Forbid"}));
        world.pass(200);
        assert_eq!(names(&world).len(), 1);
        put(&mut world, "* * * * *", json!({"concurrencyPolicy": "Replace"}));
        world.pass(60);
        assert_eq!(names(&world).len(), 1);
        assert!(world.events.iter().any(|event| event.contains("Deleted job")), "{:?}", world.events);
        put(&mut world, "* * * * *", json!({"concurrencyPolicy": "Allow"}));
        world.pass(120);
        assert_eq!(names(&world).len(), 3);
    }

    #[test]
    fn time_zones_and_late_starts() {
        let mut world = World::new(&["cronjob"]);
        put(&mut world, "30 1 * * *", json!({"timeZone": "Europe/Berlin"}));
        world.pass(1799);
        assert!(names(&world).is_empty());
        world.pass(1);
        assert_eq!(names(&world).len(), 1, "01:30 in Berlin is 00:30 UTC in winter");
        put(&mut world, "0 0 1 1 *", json!({"timeZone": "Mars/Olympus"}));
        assert!(world.events.iter().any(|event| event.contains("UnknownTimeZone")));
    }
}
