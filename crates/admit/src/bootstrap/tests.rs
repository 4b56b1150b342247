//! Our tables against what upstream creates at its first start.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use api::Tree;

use crate::{Config, doc};

fn reference(name: &str) -> Option<Vec<Tree>> {
    let root = std::env::var("EVENKEEL_REFERENCE").map(PathBuf::from);
    let root =
        root.unwrap_or_else(|_| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference")));
    let path = root.join(format!("upstream-1.36/boot-{name}.json"));
    let Ok(bytes) = std::fs::read(&path) else {
        eprintln!("skipped: no reference at {}", path.display());
        return None;
    };
    let list: Tree = serde_json::from_slice(&bytes).unwrap();
    Some(doc::items(&list, "items").to_vec())
}

/// One line per verb, group, resource and name that a role grants.
fn grants(role: &Tree) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let words = |rule: &Tree, name: &str| -> Vec<String> {
        doc::items(rule, name).iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    for rule in doc::items(role, "rules") {
        let names = words(rule, "resourceNames").join("|");
        for verb in words(rule, "verbs") {
            for url in words(rule, "nonResourceURLs") {
                lines.insert(format!("{verb} {url}"));
            }
            for group in words(rule, "apiGroups") {
                for resource in words(rule, "resources") {
                    lines.insert(format!("{verb} {group}/{resource} {names}"));
                }
            }
        }
    }
    lines
}

fn compare<T: PartialEq + std::fmt::Debug>(reference_name: &str, kind: &str, view: impl Fn(&Tree) -> T) -> Vec<String> {
    let Some(theirs) = reference(reference_name) else { return Vec::new() };
    let name = |tree: &Tree| format!("{}/{}", doc::text(tree, "metadata.namespace"), doc::text(tree, "metadata.name"));
    let objects = super::objects(&Config::default());
    let ours: BTreeMap<String, &Tree> =
        objects.iter().filter(|tree| doc::text(tree, "kind") == kind).map(|tree| (name(tree), tree)).collect();
    // Things that came with the reference machine, not with upstream.
    let foreign =
        |name: &str| name.contains("coredns") || name.contains("preemption") || name.contains("deployment-2593");
    let mut wrong = Vec::new();
    for their in theirs.iter().filter(|tree| !foreign(&name(tree))) {
        match ours.get(&name(their)) {
            None => wrong.push(format!("{kind} {} is missing", name(their))),
            Some(our) if view(our) != view(their) => {
                wrong.push(format!("{kind} {}\n  ours {:?}\n  want {:?}", name(their), view(our), view(their)));
            }
            Some(_) => {}
        }
    }
    wrong
}

#[test]
fn roles_grant_what_upstream_grants() {
    let Some(theirs) = reference("clusterroles") else { return };
    let mut wrong = Vec::new();
    let roles = reference("roles").unwrap();
    let objects = super::objects(&Config::default());
    for their in theirs.iter().chain(&roles).filter(|role| !doc::text(role, "metadata.name").contains("coredns")) {
        let same = |tree: &&Tree| {
            ["kind", "metadata.name", "metadata.namespace", "metadata.labels", "aggregationRule"]
                .iter()
                .all(|path| doc::get(tree, path) == doc::get(their, path))
        };
        let name = format!("{} {}", doc::text(their, "metadata.namespace"), doc::text(their, "metadata.name"));
        let Some(our) = objects.iter().find(same) else {
            wrong.push(format!("{name} is missing"));
            continue;
        };
        let (have, want) = (grants(our), grants(their));
        wrong.extend(want.difference(&have).map(|line| format!("{name} lacks {line}")));
        wrong.extend(have.difference(&want).map(|line| format!("{name} should not have {line}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_rest_is_as_upstream_has_it() {
    let subjects = |tree: &Tree| {
        let subjects: BTreeSet<String> = doc::items(tree, "subjects").iter().map(ToString::to_string).collect();
        (doc::get(tree, "roleRef").clone(), subjects, doc::get(tree, "metadata.labels").clone())
    };
    let mut wrong = compare("clusterrolebindings", "ClusterRoleBinding", subjects);
    wrong.extend(compare("rolebindings", "RoleBinding", subjects));
    wrong.extend(compare("flowschemas", "FlowSchema", |tree| doc::get(tree, "spec").clone()));
    wrong.extend(compare("prioritylevelconfigurations", "PriorityLevelConfiguration", |tree| {
        doc::get(tree, "spec").clone()
    }));
    wrong.extend(compare("namespaces", "Namespace", |tree| doc::get(tree, "metadata.labels").clone()));
    wrong.extend(compare("priorityclasses", "PriorityClass", |tree| {
        ["value", "globalDefault", "preemptionPolicy", "description"].map(|path| doc::get(tree, path).clone())
    }));
    wrong.extend(compare("servicecidrs", "ServiceCIDR", |tree| doc::get(tree, "metadata.name").clone()));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
