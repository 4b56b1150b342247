//! Jobs in an in-memory world: accounting, indexes, policies, deadlines.

use api::Tree;
use serde_json::json;

use crate::testing::World;

fn job(spec: Tree) -> Tree {
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "a"},
        "spec": {"template": {"metadata": {"labels": {}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}},
    });
    for (name, value) in spec.as_object().into_iter().flatten() {
        job["spec"][name] = value.clone();
    }
    job
}

fn finish(world: &mut World, pod: &Tree, phase: &str, code: i64) {
    let mut pod = pod.clone();
    let ended = json!({"exitCode": code, "finishedAt": crate::kit::value::time(world.now)});
    pod["status"] = json!({"phase": phase, "containerStatuses": [
        {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": ended}}]});
    world.put(pod);
}

/// Ends every running pod: failed where its index or the failing flag says so.
fn end_all(world: &mut World, phase: &str, code: i64) {
    for pod in world.list("v1", "Pod").iter().filter(|pod| pod["status"].is_null()) {
        finish(world, pod, phase, code);
    }
    world.converge();
}

fn remove_deleted(world: &mut World) {
    for pod in world.list("v1", "Pod") {
        if pod["metadata"].get("deletionTimestamp").is_some() && pod["status"]["phase"].is_null() {
            finish(world, &pod, "Failed", 137);
        }
    }
}

fn status(world: &World) -> String {
    let status = world.get("batch/v1", "Job", "a/j")["status"].clone();
    let mut words: Vec<String> =
        ["active", "succeeded", "failed"].iter().map(|name| status[*name].to_string()).collect();
    for condition in status["conditions"].as_array().into_iter().flatten() {
        words.push(format!("{}={}", condition["type"].as_str().unwrap(), condition["reason"].as_str().unwrap()));
    }
    words.join(" ")
}

fn world(spec: Tree) -> World {
    let mut world = World::new(&["job"]);
    world.put(job(spec));
    world.converge();
    world
}

#[test]
fn runs_to_completion_and_counts_once() {
    let mut world = world(json!({"parallelism": 2, "completions": 3}));
    assert_eq!(status(&world), "2 null null");
    end_all(&mut world, "Succeeded", 0);
    assert_eq!(status(&world), "1 2 null");
    end_all(&mut world, "Succeeded", 0);
    let done = "SuccessCriteriaMet=CompletionsReached Complete=CompletionsReached";
    assert_eq!(status(&world), format!("null 3 null {done}"));
    let pods = world.list("v1", "Pod");
    assert!(pods.iter().all(|pod| pod["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)));
    assert!(world.get("batch/v1", "Job", "a/j")["status"]["completionTime"].is_string());
    assert_eq!(pods.len(), 3);
}

#[test]
fn accounting_survives_lost_replies() {
    let mut world = world(json!({"parallelism": 3, "completions": 3}));
    world.lose_replies = true;
    for pod in world.list("v1", "Pod") {
        finish(&mut world, &pod, "Succeeded", 0);
    }
    for _ in 0..50 {
        for op in world.plan(0, &api::Key::new("a", "j")).steps.iter().flatten() {
            world.apply(op);
            world.apply(op);
        }
    }
    assert!(status(&world).starts_with("null 3 null"), "{}", status(&world));
}

#[test]
fn backs_off_then_gives_up() {
    let mut world = world(json!({"backoffLimit": 1}));
    end_all(&mut world, "Failed", 1);
    assert_eq!(status(&world), "null null 1", "the second waits ten seconds");
    world.pass(11);
    assert_eq!(status(&world), "1 null 1");
    end_all(&mut world, "Failed", 1);
    assert_eq!(status(&world), "null null 2 FailureTarget=BackoffLimitExceeded Failed=BackoffLimitExceeded");
}

#[test]
fn indexes_are_done_one_by_one_and_may_fail_alone() {
    let mut world =
        world(json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 0}));
    for pod in world.list("v1", "Pod") {
        let index =
            pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"].as_str().unwrap().to_owned();
        assert_eq!(pod["spec"]["containers"][0]["env"][0]["name"], "JOB_COMPLETION_INDEX");
        assert_eq!(pod["spec"]["hostname"], format!("j-{index}"));
        finish(&mut world, &pod, if index == "1" { "Failed" } else { "Succeeded" }, 1);
    }
    world.converge();
    assert_eq!(status(&world), "null 2 1 FailureTarget=FailedIndexes Failed=FailedIndexes");
    let told = world.get("batch/v1", "Job", "a/j")["status"].clone();
    assert_eq!((&told["completedIndexes"], &told["failedIndexes"]), (&json!("0,2"), &json!("1")));
}

#[test]
fn policies_decide_by_exit_code() {
    let rules = json!([
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [7]}},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
    ]);
    let mut world = world(json!({"backoffLimit": 0, "podFailurePolicy": {"rules": rules}}));
    end_all(&mut world, "Failed", 7);
    world.pass(15);
    assert_eq!(status(&world), "1 null null");
    end_all(&mut world, "Failed", 42);
    assert_eq!(status(&world), "null null 1 FailureTarget=PodFailurePolicy Failed=PodFailurePolicy");
}

#[test]
fn time_runs_out_and_success_may_come_early() {
    let mut world = world(json!({"activeDeadlineSeconds": 30, "parallelism": 2}));
    world.agent = remove_deleted;
    world.pass(31);
    assert!(status(&world).ends_with("Failed=DeadlineExceeded"), "{}", status(&world));

    let rules = json!([{"succeededIndexes": "0"}]);
    let mut world = self::world(
        json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed", "successPolicy": {"rules": rules}}),
    );
    world.agent = remove_deleted;
    let leader = world.list("v1", "Pod").into_iter().find(|pod| pod["spec"]["hostname"] == "j-0").unwrap();
    finish(&mut world, &leader, "Succeeded", 0);
    world.converge();
    assert!(status(&world).ends_with("SuccessCriteriaMet=SuccessPolicy Complete=SuccessPolicy"), "{}", status(&world));
}

#[test]
fn suspended_jobs_rest() {
    let mut world = world(json!({"suspend": true}));
    assert_eq!(status(&world), "null null null Suspended=JobSuspended");
    world.edit("batch/v1", "Job", "a/j", json!({"spec": {"suspend": false}}));
    world.converge();
    assert_eq!(status(&world), "1 null null Suspended=JobResumed");
}

/// What a Job leaves behind is not held back because another one has its name by now.
#[test]
fn pods_of_an_earlier_job_of_the_name_are_let_go() {
    let mut world = world(json!({"parallelism": 2, "completions": 3}));
    let left: Vec<Tree> = world.list("v1", "Pod").iter().map(|pod| pod["metadata"]["uid"].clone()).collect();
    world.delete("batch/v1", "Job", "a/j", Some(api::Propagation::Background));
    world.put(job(json!({"parallelism": 1, "completions": 1})));
    world.converge();
    let held = |pod: &Tree| pod["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
    let pods = world.list("v1", "Pod");
    let (old, new): (Vec<&Tree>, Vec<&Tree>) = pods.iter().partition(|pod| left.contains(&pod["metadata"]["uid"]));
    assert_eq!((old.iter().filter(|pod| held(pod)).count(), new.iter().filter(|pod| held(pod)).count()), (0, 1));
}
