//! Roles and bindings, read from `rbac.txt`.
//!
//! ```text
//! role NAME [in NAMESPACE] [labels k=v,..] [collects k=v,..]   a Role or ClusterRole
//!   VERBS GROUPS RESOURCES [NAMES]                             `-` is the core group
//!   VERBS URLS                                                 starts with `/`
//! controller NAME                                              a ClusterRole with its binding to an account
//! bind NAME [in NAMESPACE] ROLE SUBJECT..                      u:user g:group s:namespace/account; `role/` for a Role
//! ```

use api::Tree;
use serde_json::{Map, json};

const GROUP: &str = "rbac.authorization.k8s.io";
const TABLE: &str = include_str!("rbac.txt");
const CONTROLLER_PREFIX: &str = "system:controller:";

pub(super) fn cluster_roles() -> Vec<Tree> {
    let mut roles = roles_where(|namespace| namespace.is_none());
    roles.push(all_controllers(&roles));
    aggregate(&mut roles);
    roles
}

/// Gives aggregated roles the rules that their controller keeps. One collects another, so until nothing changes.
fn aggregate(roles: &mut [Tree]) {
    loop {
        let before = roles.to_vec();
        for role in roles.iter_mut() {
            let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array().cloned().unwrap_or_default();
            let wanted = |other: &&Tree| {
                selectors.iter().any(|selector| {
                    let mut labels = selector["matchLabels"].as_object().into_iter().flatten();
                    labels.all(|(key, value)| other["metadata"]["labels"][key] == *value)
                })
            };
            if selectors.is_empty() {
                continue;
            }
            let mut rules: Vec<Tree> = Vec::new();
            for rule in before.iter().filter(wanted).filter_map(|other| other["rules"].as_array()).flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
            role["rules"] = json!(rules);
        }
        if *roles == *before {
            return;
        }
    }
}

/// The loops of one process share one identity; it may do what upstream's accounts may do together.
fn all_controllers(roles: &[Tree]) -> Tree {
    let is_controller =
        |role: &&Tree| role["metadata"]["name"].as_str().is_some_and(|n| n.starts_with(CONTROLLER_PREFIX));
    let mut rules: Vec<Tree> = Vec::new();
    for rule in roles.iter().filter(is_controller).filter_map(|role| role["rules"].as_array()).flatten() {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    let mut role = object("ClusterRole", "evenkeel:controllers", &Head::default());
    role["rules"] = json!(rules);
    role
}

pub(super) fn roles() -> Vec<Tree> {
    roles_where(|namespace| namespace.is_some())
}

pub(super) fn cluster_role_bindings() -> Vec<Tree> {
    bindings_where(|namespace| namespace.is_none())
}

pub(super) fn role_bindings() -> Vec<Tree> {
    bindings_where(|namespace| namespace.is_some())
}

fn roles_where(wanted: fn(Option<&str>) -> bool) -> Vec<Tree> {
    let mut found = Vec::new();
    let mut lines = TABLE.lines().peekable();
    while let Some(line) = lines.next() {
        let controller = line.strip_prefix("controller ").map(|name| format!("{CONTROLLER_PREFIX}{name}"));
        let Some(head) = line.strip_prefix("role ").or(controller.as_deref()) else { continue };
        let mut rules = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with("  ")) {
            rules.push(rule(line.trim()));
        }
        let (name, words) = head.split_once(' ').unwrap_or((head, ""));
        let head = Head::parse(words);
        if !wanted(head.namespace) {
            continue;
        }
        let kind = if head.namespace.is_some() { "Role" } else { "ClusterRole" };
        let mut role = object(kind, name, &head);
        if head.collects.is_empty() {
            role["rules"] = json!(rules);
        } else {
            let selectors: Vec<Tree> =
                head.collects.iter().map(|(key, value)| json!({"matchLabels": {*key: value}})).collect();
            role["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
            role["rules"] = json!([]);
        }
        found.push(role);
    }
    found
}

fn bindings_where(wanted: fn(Option<&str>) -> bool) -> Vec<Tree> {
    let mut found = Vec::new();
    let controllers = TABLE.lines().filter_map(|line| line.strip_prefix("controller "));
    let controllers = controllers
        .map(|name| format!("{CONTROLLER_PREFIX}{name} {CONTROLLER_PREFIX}{name} s:kube-system/{name}"))
        .collect::<Vec<_>>();
    let lines = TABLE.lines().filter_map(|line| line.strip_prefix("bind "));
    for line in lines.chain(controllers.iter().map(String::as_str)) {
        let mut words = line.split(' ').peekable();
        let name = words.next().unwrap_or_default();
        let namespace = words.next_if_eq(&"in").and_then(|_| words.next());
        if !wanted(namespace) {
            continue;
        }
        let head = Head { namespace, ..Head::default() };
        let role = words.next().unwrap_or_default();
        let (role_kind, role) = role.strip_prefix("role/").map_or(("ClusterRole", role), |role| ("Role", role));
        let kind = if namespace.is_some() { "RoleBinding" } else { "ClusterRoleBinding" };
        let mut binding = object(kind, name, &head);
        binding["roleRef"] = json!({"apiGroup": GROUP, "kind": role_kind, "name": role});
        let subjects: Vec<Tree> = words.map(subject).collect();
        if !subjects.is_empty() {
            binding["subjects"] = json!(subjects);
        }
        found.push(binding);
    }
    found
}

/// The words after a role's name.
#[derive(Default)]
struct Head<'a> {
    namespace: Option<&'a str>,
    labels: Vec<(&'a str, &'a str)>,
    collects: Vec<(&'a str, &'a str)>,
}

impl<'a> Head<'a> {
    fn parse(words: &'a str) -> Head<'a> {
        let mut head = Head::default();
        let mut words = words.split(' ');
        let pairs = |list: &'a str| list.split(',').filter_map(|pair| pair.split_once('=')).collect();
        while let (Some(word), Some(value)) = (words.next(), words.next()) {
            match word {
                "in" => head.namespace = Some(value),
                "labels" => head.labels = pairs(value),
                _ => head.collects = pairs(value),
            }
        }
        head
    }
}

fn object(kind: &str, name: &str, head: &Head<'_>) -> Tree {
    let mut labels = Map::new();
    labels.insert("kubernetes.io/bootstrapping".into(), json!("rbac-defaults"));
    labels.extend(head.labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))));
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind,
        "metadata": {
            "name": name, "labels": labels, "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
    });
    if let Some(namespace) = head.namespace {
        object["metadata"]["namespace"] = json!(namespace);
    }
    object
}

fn rule(line: &str) -> Tree {
    let words: Vec<&str> = line.split(' ').collect();
    let spelled = |text: &str| text.split(',').flat_map(spell).map(str::to_owned).collect::<Vec<_>>();
    let list = |text: &str| -> Vec<String> { if text == "*" { vec!["*".to_owned()] } else { spelled(text) } };
    match words.as_slice() {
        [verbs, urls] => json!({"verbs": list(verbs), "nonResourceURLs": list(urls)}),
        [verbs, groups, resources] => {
            json!({"verbs": list(verbs), "apiGroups": list(groups), "resources": list(resources)})
        }
        [verbs, groups, resources, names] => json!({
            "verbs": list(verbs), "apiGroups": list(groups), "resources": list(resources), "resourceNames": list(names),
        }),
        _ => Tree::Null,
    }
}

/// Words of the table that stand for others.
fn spell(word: &str) -> Vec<&str> {
    match word {
        "-" => vec![""],
        "R" => vec!["get", "list", "watch"],
        "W" => vec!["create", "delete", "deletecollection", "patch", "update"],
        "RW" => [spell("R"), spell("W")].concat(),
        "EVENT" => vec!["create", "patch", "update"],
        word => vec![word],
    }
}

fn subject(word: &str) -> Tree {
    match word.split_once(':') {
        Some(("u", name)) => json!({"apiGroup": GROUP, "kind": "User", "name": name}),
        Some(("g", name)) => json!({"apiGroup": GROUP, "kind": "Group", "name": name}),
        Some((_, account)) => {
            let (namespace, name) = account.split_once('/').unwrap_or(("", account));
            json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
        }
        None => Tree::Null,
    }
}
