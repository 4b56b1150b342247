//! Custom resources: from CRD objects to rows of the registry, and the life of a definition itself.
//!
//! A task watches the definitions. Each change makes a new registry, swapped in whole. The same task accepts names,
//! establishes, and, for a definition that is being deleted, deletes its objects before it lets it go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use admit::{Identified, Options, Reader, Request, User, WriteVerb, storage_of};
use api::{Gvr, Kind, Object, Preconditions, Registry, Tree};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, StatusCode};
use serde_json::{Map, json};
use tracing::{debug, warn};

use crate::body;
use crate::rest;
use crate::server::Server;

const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// After a failed step the definitions are looked at again.
const RETRY: Duration = Duration::from_secs(1);

fn storage() -> base::SmolStr {
    storage_of("apiextensions.k8s.io", "customresourcedefinitions")
}

/// The registry with every definition whose names are free; the conflicts beside it, by definition name.
pub(crate) fn with_custom_kinds(
    builtin: &Registry,
    reader: &dyn Reader,
    _generation: u64,
) -> (Registry, Vec<Conflict>) {
    let mut registry = builtin.clone();
    let mut conflicts = Vec::new();
    let mut definitions = reader.list(&storage(), None);
    // Who came first keeps the name.
    definitions.sort_by_key(|crd| (crd.header.created, crd.key.clone()));
    for definition in definitions {
        let crd = definition.tree();
        if let Some(conflict) = conflict_of(&registry, &definition, &crd) {
            conflicts.push(conflict);
            continue;
        }
        for kind in kinds_of(&definition, &crd) {
            registry.insert(Arc::new(kind));
        }
    }
    (registry, conflicts)
}

/// A name of a definition that somebody else in its group has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub definition: String,
    pub reason: &'static str,
    pub message: String,
}

fn conflict_of(registry: &Registry, definition: &Object, crd: &Tree) -> Option<Conflict> {
    let group = text(&crd["spec"]["group"]);
    let names = &crd["spec"]["names"];
    let plural = text(&names["plural"]);
    let others = || registry.iter().filter(|kind| kind.gvk.group == group && kind.resource != plural);
    let mut words: BTreeSet<&str> = BTreeSet::new();
    for kind in others() {
        words.extend([kind.resource.as_str(), kind.singular.as_str()]);
        words.extend(kind.short_names.iter().map(|name| name.as_str()));
    }
    let kinds: BTreeSet<&str> = others()
        .flat_map(|kind| [kind.gvk.kind.as_str(), kind.list_kind.as_str()])
        .filter(|kind| !kind.is_empty())
        .collect();
    let taken = |reason: &'static str, name: &str| Conflict {
        definition: definition.key.name.to_string(),
        reason,
        message: format!("{name:?} is already in use"),
    };
    let builtin = registry.iter().any(|kind| !kind.custom && kind.gvk.group == group && kind.resource == plural);
    if builtin || words.contains(plural) {
        return Some(taken("PluralConflict", plural));
    }
    let singular = text(&names["singular"]);
    if words.contains(singular) && !singular.is_empty() {
        return Some(taken("SingularConflict", singular));
    }
    let short =
        names["shortNames"].as_array().into_iter().flatten().filter_map(Tree::as_str).find(|name| words.contains(name));
    if let Some(short) = short {
        return Some(taken("ShortNamesConflict", short));
    }
    let kind = text(&names["kind"]);
    kinds.contains(kind).then(|| taken("KindConflict", kind))
}

fn kinds_of(definition: &Object, crd: &Tree) -> Vec<Kind> {
    let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
    let served = versions.filter(|version| version["served"] == true).map(|version| text(&version["name"]));
    let made = served.filter_map(|version| match api::crd::kind_of(crd, version, definition.revision.0) {
        Ok(kind) => Some(kind),
        Err(causes) => {
            warn!(crd = %definition.key, version, ?causes, "schema");
            None
        }
    });
    made.collect()
}

fn text(tree: &Tree) -> &str {
    tree.as_str().unwrap_or_default()
}

/// Who the server itself is.
pub(crate) fn own_user() -> User {
    User { name: "system:apiserver".into(), groups: vec![crate::authn::MASTERS.into()], ..User::default() }
}

impl Server {
    /// The background work of the server: custom resource definitions. Runs until `drain` resolves.
    pub async fn run(&self, drain: impl Future<Output = ()>) {
        let mut drain = std::pin::pin!(drain);
        loop {
            let watching = self.watch_definitions();
            tokio::select! { biased;
                () = &mut drain => return,
                // The history was compacted under the watch: begin again from what there is.
                () = watching => {}
            }
        }
    }

    async fn watch_definitions(&self) {
        let store = &self.shared.deps.store;
        let mut watch = match store.watch(&storage(), store.revision()) {
            Ok(watch) => watch,
            Err(gone) => return debug!(%gone, "definitions"),
        };
        let mut cleanups = tokio::task::JoinSet::new();
        let mut cleaning: BTreeSet<String> = BTreeSet::new();
        loop {
            let again = self.look_at_definitions(&mut cleanups, &mut cleaning).await;
            let pause = if again { RETRY } else { Duration::from_secs(24 * 3600) };
            tokio::select! { biased;
                event = watch.next() => if event.is_err() { return },
                Some(done) = cleanups.join_next() => {
                    if let Ok(name) = done {
                        cleaning.remove(&name);
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One level-triggered pass. True when something failed and shall be tried again.
    async fn look_at_definitions(
        &self,
        cleanups: &mut tokio::task::JoinSet<String>,
        cleaning: &mut BTreeSet<String>,
    ) -> bool {
        let (registry, conflicts) = with_custom_kinds(&api::builtin::registry(), &self.shared.reader, 0);
        self.shared.registry.store(Arc::new(registry));
        let mut failed = false;
        for definition in self.shared.reader.list(&storage(), None) {
            let name = definition.key.name.to_string();
            if definition.header.deletion.is_some() {
                let ours = definition.header.finalizers.iter().any(|finalizer| finalizer == FINALIZER);
                if ours && cleaning.insert(name) {
                    cleanups.spawn(self.clone().clean_up(definition));
                }
                continue;
            }
            let conflict = conflicts.iter().find(|conflict| conflict.definition == name);
            failed |= !self.establish(&definition, conflict).await;
        }
        failed
    }

    /// Writes finalizer and status where they are not what they should be. False when a write failed.
    async fn establish(&self, definition: &Object, conflict: Option<&Conflict>) -> bool {
        let crd = definition.tree();
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{}", definition.key.name);
        let version = definition.revision.to_string();
        if !definition.header.finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            let mut finalizers = definition.header.finalizers.clone();
            finalizers.push(FINALIZER.into());
            let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": version}});
            return self.merge(&path, &patch).await;
        }
        let status =
            wanted_status(&crd, conflict, &self.shared.deps.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        if status == crd["status"] {
            return true;
        }
        let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
        self.merge(&format!("{path}/status"), &patch).await
    }

    /// A merge patch by the server itself. A conflict counts as done: the change that caused it is another event.
    async fn merge(&self, path: &str, patch: &Tree) -> bool {
        let request = http::Request::builder()
            .method(Method::PATCH)
            .uri(path)
            .header("content-type", "application/merge-patch+json")
            .header("user-agent", "apiserver")
            .body(body::full(patch.to_string()))
            .expect("a path of checked names");
        let response = self.call(own_user(), request).await;
        let code = response.status();
        if !code.is_success() {
            let text = body::read(response.into_body(), 1 << 16).await.unwrap_or_default();
            debug!(path, %code, text = %String::from_utf8_lossy(&text), "patch");
        }
        code.is_success() || matches!(code, StatusCode::CONFLICT | StatusCode::NOT_FOUND)
    }

    /// Deletes the objects of a definition that is being deleted, then lets it go. Returns its name.
    fn clean_up(self, definition: Arc<Object>) -> BoxFuture<'static, String> {
        async move { self.clean_up_definition(&definition).await }.boxed()
    }

    async fn clean_up_definition(&self, definition: &Object) -> String {
        let crd = definition.tree();
        let (group, plural) = (text(&crd["spec"]["group"]), text(&crd["spec"]["names"]["plural"]));
        let objects = storage_of(group, plural);
        let registry = self.registry();
        let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
        let rows =
            versions.filter_map(|version| registry.resource(&Gvr::new(group, text(&version["name"]), plural)).cloned());
        let kind = rows.collect::<Vec<_>>().pop();
        let store = &self.shared.deps.store;
        while let Some(kind) = &kind {
            let Ok(mut watch) = store.watch(&objects, store.revision()) else { break };
            let left = self.shared.reader.list(&objects, None);
            if left.is_empty() {
                break;
            }
            for object in left {
                if object.header.deletion.is_none() {
                    self.delete_instance(&registry, kind, &object).await;
                }
            }
            // Objects with finalizers of their own go when their controllers say so.
            if !self.shared.reader.list(&objects, None).is_empty() {
                let _ = tokio::time::timeout(Duration::from_secs(30), watch.next()).await;
            }
        }
        let finalizers = definition.header.finalizers.iter().filter(|finalizer| *finalizer != FINALIZER);
        let finalizers: Vec<&str> = finalizers.map(|finalizer| finalizer.as_str()).collect();
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{}", definition.key.name);
        self.merge(&path, &json!({"metadata": {"finalizers": finalizers}})).await;
        definition.key.name.to_string()
    }

    async fn delete_instance(&self, registry: &Registry, kind: &api::kind::KindRef, object: &Object) {
        let verb = WriteVerb::Delete {
            when: Preconditions { uid: Some(object.header.uid.clone()), revision: None },
            propagation: None,
            grace_seconds: None,
        };
        let request = Request {
            kind: kind.clone(),
            subresource: None,
            namespace: object.key.namespace.clone(),
            name: object.key.name.clone(),
            verb,
            options: Options::default(),
        };
        let identified = Identified { user: own_user(), request };
        if let Err(status) = rest::perform(&self.shared, registry, identified).await {
            debug!(object = %object.key, %status, "delete with its definition");
        }
    }
}

/// `status` as it should be.
fn wanted_status(crd: &Tree, conflict: Option<&Conflict>, now: &str) -> Tree {
    let mut status = crd["status"].as_object().cloned().unwrap_or_default();
    let before = status.get("conditions").and_then(Tree::as_array).cloned().unwrap_or_default();
    let was_established = before.iter().any(|c| c["type"] == "Established" && c["status"] == "True");
    let (names, established) = match conflict {
        None => (
            ("True", "NoConflicts", "no conflicts found"),
            ("True", "InitialNamesAccepted", "the initial names have been accepted"),
        ),
        Some(conflict) => {
            let refused = ("False", conflict.reason, conflict.message.as_str());
            (refused, ("False", "NotAccepted", "not all names are accepted"))
        }
    };
    let mut conditions: Vec<Tree> = before;
    set_condition(&mut conditions, "NamesAccepted", names, now);
    // Once established a definition stays so, whatever happens to its names.
    if conflict.is_none() || !was_established {
        set_condition(&mut conditions, "Established", established, now);
    }
    status.insert("conditions".into(), Tree::Array(conditions));
    if conflict.is_none() {
        status.insert("acceptedNames".into(), accepted_names(&crd["spec"]["names"]));
    } else if !status.contains_key("acceptedNames") {
        status.insert("acceptedNames".into(), json!({"kind": "", "plural": ""}));
    }
    let mut stored: Vec<Tree> = status.get("storedVersions").and_then(Tree::as_array).cloned().unwrap_or_default();
    let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
    for version in versions.filter(|version| version["storage"] == true) {
        if !stored.contains(&version["name"]) {
            stored.push(version["name"].clone());
        }
    }
    status.insert("storedVersions".into(), Tree::Array(stored));
    Tree::Object(status)
}

fn set_condition(conditions: &mut Vec<Tree>, kind: &str, to: (&str, &str, &str), now: &str) {
    let (state, reason, message) = to;
    let mut condition = json!({
        "type": kind, "status": state, "reason": reason, "message": message, "lastTransitionTime": now,
    });
    match conditions.iter_mut().find(|known| known["type"] == kind) {
        Some(known) => {
            if known["status"] == state {
                condition["lastTransitionTime"] = known["lastTransitionTime"].clone();
            }
            *known = condition;
        }
        None => conditions.push(condition),
    }
}

fn accepted_names(names: &Tree) -> Tree {
    let mut accepted: Map<String, Tree> = names.as_object().cloned().unwrap_or_default();
    let kind = text(&names["kind"]).to_owned();
    let absent =
        |accepted: &Map<String, Tree>, name: &str| accepted.get(name).is_none_or(|value| text(value).is_empty());
    if absent(&accepted, "singular") {
        accepted.insert("singular".into(), json!(kind.to_ascii_lowercase()));
    }
    if absent(&accepted, "listKind") {
        accepted.insert("listKind".into(), json!(format!("{kind}List")));
    }
    Tree::Object(accepted)
}
