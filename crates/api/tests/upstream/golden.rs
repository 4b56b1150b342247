//! The protobuf transcoder against upstream's golden files, where a lane has them: EVENKEEL_GOLDEN names the folder with
//! `apps.v1.Deployment.json` and `.pb`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use api::codec::{json, protobuf};
use api::{Gvk, Schema, Tree, builtin, meta};

fn find(gvk: &Gvk) -> Option<Schema> {
    builtin::schema_of(&gvk.group, &gvk.version, &gvk.kind)
}

#[test]
fn golden_objects_transcode() {
    let Some(folder) = env::var_os("EVENKEEL_GOLDEN").map(PathBuf::from) else {
        println!("skipped: EVENKEEL_GOLDEN is not set");
        return;
    };
    let mut checked = 0;
    let mut wrong = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            checked += usize::from(check(&path, &mut wrong));
        }
    }
    assert!(wrong.is_empty(), "{} of {checked} differ: {wrong:#?}", wrong.len());
    assert!(checked > 70, "only {checked} golden kinds are known");
}

fn check(path: &Path, wrong: &mut Vec<String>) -> bool {
    let tree = json::parse(&fs::read(path).unwrap()).unwrap().tree;
    let Some(gvk) = meta::gvk(&tree) else { return false };
    let Some(schema) = find(&gvk) else { return false };
    let golden = fs::read(path.with_extension("pb")).unwrap();
    let (_, decoded) = protobuf::decode(find, &golden).unwrap_or_else(|error| panic!("{gvk}: {error}"));
    difference(&gvk.to_string(), &without_nulls(&tree), &decoded, wrong);
    let encoded = protobuf::encode(&schema, &gvk, &tree).unwrap_or_else(|error| panic!("{gvk}: {error}"));
    let (_, again) = protobuf::decode(find, &encoded).unwrap();
    difference(&format!("{gvk} again"), &decoded, &again, wrong);
    if encoded != golden && env::var_os("EVENKEEL_GOLDEN_BYTES").is_some() {
        let at = encoded.iter().zip(&golden).position(|(ours, theirs)| ours != theirs);
        wrong.push(format!("{gvk}: bytes differ at {at:?} of {} and {}", encoded.len(), golden.len()));
    }
    true
}

fn without_nulls(tree: &Tree) -> Tree {
    match tree {
        Tree::Object(members) => {
            let kept = members.iter().filter(|(_, value)| !value.is_null());
            Tree::Object(kept.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        Tree::Array(items) => Tree::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

fn difference(path: &str, theirs: &Tree, ours: &Tree, wrong: &mut Vec<String>) {
    match (theirs, ours) {
        (Tree::Object(theirs), Tree::Object(ours)) => {
            for name in theirs.keys().chain(ours.keys().filter(|name| !theirs.contains_key(*name))) {
                let absent = Tree::Null;
                let (left, right) = (theirs.get(name).unwrap_or(&absent), ours.get(name).unwrap_or(&absent));
                difference(&format!("{path}.{name}"), left, right, wrong);
            }
        }
        (Tree::Array(theirs), Tree::Array(ours)) if theirs.len() == ours.len() => {
            for (at, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
                difference(&format!("{path}[{at}]"), theirs, ours, wrong);
            }
        }
        (theirs, ours) if theirs == ours => {}
        (theirs, ours) => wrong.push(format!("{path}: theirs {theirs}, ours {ours}")),
    }
}
