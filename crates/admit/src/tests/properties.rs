//! What holds for every write, whatever is in it.

use api::{PatchType, Tree};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{deployment, map, world};
use crate::doc;

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z/~0-9$-]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-z$]{1,6}", inner, 0..5).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn any_patch() -> impl Strategy<Value = Value> {
    let op = prop_oneof!["add", "remove", "replace", "move", "copy", "test", "x"].prop_map(|op| op.to_string());
    let path = prop_oneof![Just("/data/a".to_owned()), Just("/metadata".to_owned()), "(/[a-z0-9~-]{0,4}){0,4}"];
    let step = (op, path.clone(), path, prop::option::of(any_json())).prop_map(|(op, path, from, value)| {
        let mut step = json!({"op": op, "path": path, "from": from});
        if let Some(value) = value {
            step["value"] = value;
        }
        step
    });
    prop::collection::vec(step, 0..6).prop_map(Value::from)
}

fn any_data() -> impl Strategy<Value = Tree> {
    prop::collection::btree_map("[a-e]", "[x-z]{0,2}", 0..5).prop_map(|data| json!(data))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_patch_panics(patch in prop_oneof![any_patch(), any_json()]) {
        let world = world();
        let of = world.create(&map("m", json!({"a": "b"}))).unwrap().object;
        for kind in [PatchType::Json, PatchType::Merge, PatchType::Strategic] {
            let _ = world.patch(&of, kind, &patch);
        }
        let _ = world.create(&patch_as_kind(&patch));
    }

    #[test]
    fn apply_is_idempotent(first in any_data(), second in any_data()) {
        let world = world();
        world.apply(&map("m", first), "ann", true).unwrap();
        let once = world.apply(&map("m", second.clone()), "bob", true).unwrap().object;
        let twice = world.apply(&map("m", second.clone()), "bob", false).unwrap().object;
        prop_assert_eq!(once, twice.clone());
        for (key, value) in doc::entries(&json!({"d": second}), "d") {
            prop_assert_eq!(&twice["data"][key], value);
        }
    }

    #[test]
    fn strategic_merge_reaches_what_it_says(names in prop::collection::btree_set("[a-f]", 1..5), image in "[a-z]{1,5}") {
        let world = world();
        let made = world.create(&deployment(1)).unwrap().object;
        let containers: Vec<Tree> = names.iter().map(|name| json!({"name": name, "image": image})).collect();
        let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
        let patched = world.patch(&made, PatchType::Strategic, &patch).unwrap().object;
        let found = doc::items(&patched, "spec.template.spec.containers");
        for name in &names {
            let container = found.iter().find(|container| doc::text(container, "name") == name).unwrap();
            prop_assert_eq!(doc::text(container, "image"), image.as_str());
        }
        let again = world.patch(&made, PatchType::Strategic, &patch).unwrap().object;
        prop_assert_eq!(patched, again);
    }
}

/// Arbitrary JSON as the spec of a Deployment.
fn patch_as_kind(spec: &Value) -> Tree {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": spec})
}
