//! The hooks that pods carry, and which pod of an application is asked.

use std::collections::BTreeMap;
use std::fmt;

use api::Tree;
use serde::{Deserialize, Serialize};
use serde_json::json;

const TAKE: &str = "backup.evenkeel.io/take";
const MEASURE: &str = "backup.evenkeel.io/measure";
const PROVE: &str = "backup.evenkeel.io/prove";
const CONTAINER: &str = "backup.evenkeel.io/container";
const NAME: &str = "backup.evenkeel.io/name";
/// Applications with a hook; those beyond are told of and left out.
const APPS_MAX: usize = 64;
/// As long as a label may be: the name becomes part of a file's.
const NAME_BYTES_MAX: usize = 63;

/// What an application is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct App {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An application's hook, in the pod that is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Hook {
    pub app: App,
    pub pod: String,
    pub container: String,
    pub take: String,
    pub measure: Option<String>,
    pub prove: Option<String>,
    /// The pod as it is: a proof runs in one like it.
    pub tree: Tree,
}

/// An application, with its hook or with why it cannot be asked.
pub struct Found {
    pub app: App,
    pub hook: Result<Hook, String>,
}

/// The applications of these pods that have hooks.
pub fn hooks(pods: &[Tree]) -> Vec<Found> {
    let mut apps: BTreeMap<App, Result<Hook, String>> = BTreeMap::new();
    for pod in pods {
        let Some(take) = annotation(pod, TAKE) else { continue };
        let Some(app) = app(pod) else { continue };
        let hook = if is_ready(pod) { hook(&app, pod, take) } else { Err("no pod of it is ready".to_owned()) };
        let better = match (apps.get(&app), &hook) {
            (None, _) | (Some(Err(_)), Ok(_)) => true,
            (Some(Ok(known)), Ok(hook)) => hook.pod < known.pod,
            (Some(_), Err(_)) => false,
        };
        if better {
            apps.insert(app, hook);
        }
    }
    let beyond = |at: usize, hook| if at < APPS_MAX { hook } else { Err(format!("more than {APPS_MAX} have hooks")) };
    apps.into_iter().enumerate().map(|(at, (app, hook))| Found { app, hook: beyond(at, hook) }).collect()
}

fn hook(app: &App, pod: &Tree, take: &str) -> Result<Hook, String> {
    let text = |key: &str| annotation(pod, key).map(str::to_owned);
    let containers = pod.pointer("/spec/containers").and_then(Tree::as_array).into_iter().flatten();
    let mut names = containers.filter_map(|container| container["name"].as_str());
    let container = match annotation(pod, CONTAINER) {
        Some(wanted) => names.find(|name| *name == wanted).ok_or_else(|| format!("it has no container {wanted}"))?,
        None => names.next().ok_or("it has no container")?,
    };
    Ok(Hook {
        app: app.clone(),
        pod: metadata(pod, "name").unwrap_or_default().to_owned(),
        container: container.to_owned(),
        take: take.to_owned(),
        measure: text(MEASURE),
        prove: text(PROVE),
        tree: pod.clone(),
    })
}

fn app(pod: &Tree) -> Option<App> {
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Tree::as_array).into_iter().flatten();
    let mut controllers = owners.filter(|owner| owner["controller"] == json!(true));
    let owner = controllers.next().and_then(|owner| owner["name"].as_str());
    let name = annotation(pod, NAME).or(owner).or_else(|| metadata(pod, "name"))?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    // What is no plain name is cut to one.
    let name: String = name.bytes().filter(|byte| plain(*byte)).take(NAME_BYTES_MAX).map(char::from).collect();
    Some(App { namespace: metadata(pod, "namespace")?.to_owned(), name }).filter(|app| !app.name.is_empty())
}

fn is_ready(pod: &Tree) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Tree::as_array).into_iter().flatten();
    let ready = conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
    ready && pod.pointer("/metadata/deletionTimestamp").is_none()
}

fn annotation<'a>(pod: &'a Tree, key: &str) -> Option<&'a str> {
    pod.pointer("/metadata/annotations")?.get(key)?.as_str()
}

fn metadata<'a>(pod: &'a Tree, field: &str) -> Option<&'a str> {
    pod.get("metadata")?.get(field)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::{Found, hooks};
    use api::Tree;
    use serde_json::json;

    fn pod(name: &str, owner: &str, ready: &str) -> Tree {
        json!({
            "metadata": {
                "name": name, "namespace": "shop", "annotations": {"backup.evenkeel.io/take": "dump"},
                "ownerReferences": [{"name": owner, "controller": true}],
            },
            "spec": {"containers": [{"name": "sql"}, {"name": "side"}]},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        })
    }

    fn asked(found: &[Found]) -> Vec<(String, Result<String, String>)> {
        let pod = |found: &Found| found.hook.as_ref().map(|hook| hook.pod.clone()).map_err(Clone::clone);
        found.iter().map(|found| (found.app.to_string(), pod(found))).collect()
    }

    #[test]
    fn one_ready_pod_of_each_application_is_asked() {
        let mut bare = pod("bare", "x", "True");
        bare["metadata"]["annotations"] = json!({});
        let pods = [
            pod("sql-2", "sql", "True"),
            pod("sql-0", "sql", "False"),
            pod("sql-1", "sql", "True"),
            pod("down-0", "down", "False"),
            bare,
        ];
        let wanted = [
            ("shop/down".to_owned(), Err("no pod of it is ready".to_owned())),
            ("shop/sql".to_owned(), Ok("sql-1".to_owned())),
        ];
        assert_eq!(asked(&hooks(&pods)), wanted);
    }

    #[test]
    fn a_container_that_is_named_must_be_there() {
        let mut named = pod("sql-0", "sql", "True");
        named["metadata"]["annotations"]["backup.evenkeel.io/container"] = json!("side");
        assert_eq!(hooks(&[named.clone()])[0].hook.as_ref().unwrap().container, "side");
        named["metadata"]["annotations"]["backup.evenkeel.io/container"] = json!("none");
        assert_eq!(hooks(&[named])[0].hook, Err("it has no container none".to_owned()));
    }

    #[test]
    fn a_name_is_fit_for_a_file() {
        let mut named = pod("sql-0", "sql", "True");
        named["metadata"]["annotations"]["backup.evenkeel.io/name"] = json!("../Main.db");
        assert_eq!(hooks(&[named])[0].app.name, "aindb");
    }
}
