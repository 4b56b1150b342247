//! Whole writes through all stages.

mod apply;
mod properties;
mod subresources;
mod versions;

use api::{PatchType, Tree};
use serde_json::json;

use crate::testing::{World, body};
use crate::{FieldValidation, WriteVerb, doc};

fn world() -> World {
    let world = World::new(api::builtin::registry());
    world.seed(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}));
    world.seed(
        &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}}),
    );
    world
}

fn map(name: &str, data: Tree) -> Tree {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn deployment(replicas: i64) -> Tree {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "a", "image": "x:1", "ports": [{"containerPort": 80}]}]}}}})
}

#[test]
fn a_life_from_create_to_delete() {
    let world = world();
    let made = world.create(&deployment(2)).unwrap();
    assert!(made.created);
    assert_eq!(made.object["metadata"]["generation"], 1);
    assert_eq!(made.object["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
    assert_eq!(world.create(&deployment(2)).unwrap_err().message, "deployments.apps \"web\" already exists");

    let mut scaled = made.object.clone();
    scaled["spec"]["replicas"] = json!(3);
    scaled["status"] = json!({"replicas": 9});
    let updated = world.update(&scaled).unwrap().object;
    assert_eq!(updated["metadata"]["generation"], 2);
    assert_eq!(updated["status"], json!({}));
    let stale = world.update(&scaled).unwrap_err();
    assert_eq!(
        stale.message,
        "Operation cannot be fulfilled on deployments.apps \"web\": the object has been modified; please apply your changes to the latest version and try again"
    );
    let same = world.update(&updated).unwrap();
    assert_eq!(same.object["metadata"]["resourceVersion"], updated["metadata"]["resourceVersion"]);

    let gone = world.delete(&updated).unwrap();
    assert!(gone.deleted);
    assert_eq!(gone.object["status"], "Success");
    assert_eq!(world.delete(&updated).unwrap_err().message, "deployments.apps \"web\" not found");
}

#[test]
fn generate_name_and_finalizers() {
    let world = world();
    let mut tree = map("", json!({}));
    tree["metadata"] = json!({"generateName": "job-", "finalizers": ["example.com/hold"]});
    let made = world.create(&tree).unwrap().object;
    assert_eq!(doc::text(&made, "metadata.name").len(), 9);
    let begun = world.delete(&made).unwrap();
    assert!(!begun.deleted && doc::has(&begun.object, "metadata.deletionTimestamp"));
    let freed = world.patch(&made, PatchType::Merge, &json!({"metadata": {"finalizers": null}})).unwrap();
    assert!(freed.deleted);
    assert!(world.objects.lock().unwrap().values().all(|object| object.key != begun_key(&made)));
}

fn begun_key(tree: &Tree) -> api::Key {
    api::Key::new("default", doc::text(tree, "metadata.name"))
}

#[test]
fn unknown_fields_warn_or_fail() {
    let world = world();
    let mut tree = deployment(1);
    tree["spec"]["foo"] = json!(1);
    tree["spec"]["template"]["spec"]["containers"][0]["bar"] = json!(1);
    let warned = world.create(&tree).unwrap();
    assert_eq!(
        warned.warnings,
        ["unknown field \"spec.foo\"", "unknown field \"spec.template.spec.containers[0].bar\""]
    );
    let mut strict = world.request(&tree, "", WriteVerb::Create(body(&tree)));
    strict.options.field_validation = FieldValidation::Strict;
    let refused = world.run(strict).unwrap_err();
    assert_eq!(refused.code, 400);
    assert_eq!(
        refused.message,
        "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \"spec.foo\", unknown field \"spec.template.spec.containers[0].bar\""
    );
    let mut wrong = deployment(1);
    wrong["spec"]["replicas"] = json!("two");
    assert_eq!(
        world.create(&wrong).unwrap_err().message,
        "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
    );
}

#[test]
fn strategic_merge_knows_keys_and_directives() {
    let world = world();
    let made = world.create(&deployment(1)).unwrap().object;
    let patch = |patch: Tree| world.patch(&made, PatchType::Strategic, &patch).unwrap().object;
    let added = patch(json!({"spec": {"template": {"spec": {
        "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
        "containers": [{"name": "b", "image": "y:1"}, {"name": "a", "image": "x:2"}]}}}}));
    let names = |tree: &Tree| -> Vec<String> {
        doc::items(tree, "spec.template.spec.containers").iter().map(|c| doc::text(c, "name").to_owned()).collect()
    };
    assert_eq!(names(&added), ["b", "a"]);
    assert_eq!(added["spec"]["template"]["spec"]["containers"][1]["ports"][0]["containerPort"], 80);
    let removed = patch(json!({"spec": {"template": {"spec": {"containers": [{"name": "b", "$patch": "delete"}]}}}}));
    assert_eq!(names(&removed), ["a"]);
    let recreate = patch(json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}));
    assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[test]
fn an_update_as_it_was_created_changes_nothing() {
    let world = world();
    let template = json!({"spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}});
    let job =
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": template}});
    let made = world.create(&job).unwrap().object;
    assert_eq!(made["metadata"]["labels"]["job-name"], "j");
    assert!(world.update(&made).unwrap().admitted.is_none());
    let revision =
        json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r"}, "revision": 1});
    let made = world.create(&revision).unwrap().object;
    assert!(made.get("status").is_none(), "{made}");
}
