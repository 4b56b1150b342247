//! Every kind of live discovery, every verb it names, every media type: one walk for all, and each cell asserts state.
//!
//! The kinds are those the server announces, and (when the reference is at hand) those an upstream server announces: a
//! kind that is missing here fails there.

mod samples;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use e2e::{Answer, Call, Case, Cluster, Connection, Endpoint, eventually};
use serde_json::{Value, json};

pub const CASES: [Case<Cluster>; 2] =
    [Case { name: "uniform_kind_verb_media", run: walk }, Case { name: "uniform_kinds_of_reference", run: reference }];

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const NAMESPACE: &str = "uniform";
/// How long a controller may go on writing the status of what was just made.
const RACE_BOUND: Duration = Duration::from_secs(10);
/// Verbs an ordinary resource has; what has fewer is a review or is made by the system alone.
const FULL: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// A resource as aggregated discovery announces it.
#[derive(Debug)]
struct Resource {
    group: String,
    version: String,
    kind: String,
    name: String,
    namespaced: bool,
    verbs: BTreeSet<String>,
}

fn walk(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.kubectl().ok(&format!("create namespace {NAMESPACE}"))?;
    let endpoint = Endpoint::of(&cluster.kubectl())?;
    let mut connection = endpoint.connect()?;
    let resources = discover(&mut connection)?;
    let mut cells = 0;
    let mut failures = Vec::new();
    for resource in resources.iter().filter(|resource| FULL.iter().all(|verb| resource.verbs.contains(*verb))) {
        for media in [JSON, YAML, PROTOBUF] {
            // A custom resource has no protobuf form.
            if media == PROTOBUF && resource.group.contains("evenkeel") {
                continue;
            }
            match life(&endpoint, &mut connection, resource, media) {
                Ok(count) => cells += count,
                Err(error) => failures.push(format!("{} {media}: {error:#}", resource.name)),
            }
        }
    }
    println!("{cells} cells held");
    ensure!(failures.is_empty(), "{} of the walks failed:\n{}", failures.len(), failures.join("\n"));
    cluster.kubectl().ok(&format!("delete namespace {NAMESPACE} --timeout=60s")).map(drop)
}

/// One object's life in one media type. Returns how many cells were asserted.
fn life(endpoint: &Endpoint, connection: &mut Connection, resource: &Resource, media: &str) -> anyhow::Result<usize> {
    let tag = match media {
        JSON => "json",
        YAML => "yaml",
        _ => "protobuf",
    };
    let name = samples::name(&resource.kind, tag);
    let Some(object) = samples::object(&resource.group, &resource.version, &resource.kind, &name) else {
        bail!("there is no sample of this kind");
    };
    let walk = &mut Walk { endpoint, connection, resource, media, collection: resource.collection(), name };
    let before = walk.revision()?;
    walk.create_dry(&object)?;
    let made = walk.create(&object)?;
    ensure!(revision_of(&made)? > before, "the revision did not grow");
    walk.read(&made)?;
    walk.watched(before)?;
    let updated = walk.update()?;
    walk.patch()?;
    ensure!(revision_of(&walk.get()?)? > revision_of(&updated)?, "patches changed nothing");
    walk.delete()?;
    walk.delete_collection(&object)?;
    Ok(FULL.len() + 5)
}

struct Walk<'a> {
    endpoint: &'a Endpoint,
    connection: &'a mut Connection,
    resource: &'a Resource,
    media: &'a str,
    collection: String,
    name: String,
}

impl Walk<'_> {
    fn path(&self) -> String {
        format!("{}/{}", self.collection, self.name)
    }

    /// A request in JSON whose answer must have one of these codes.
    fn json(&mut self, method: &str, path: &str, content: &str, body: &Value, codes: &[u16]) -> anyhow::Result<Value> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = self.connection.perform(&Call { method, path, content, accept: JSON, body: &body })?;
        expect(&answer, method, path, codes)?;
        serde_json::from_slice(&answer.body).with_context(|| format!("{method} {path}"))
    }

    fn get(&mut self) -> anyhow::Result<Value> {
        let path = self.path();
        self.json("GET", &path, JSON, &Value::Null, &[200])
    }

    fn revision(&mut self) -> anyhow::Result<u64> {
        let path = format!("{}?limit=1", self.collection);
        let list = self.json("GET", &path, JSON, &Value::Null, &[200])?;
        revision_of(&list)
    }

    /// The body in the media type of this walk: YAML is JSON too; protobuf comes from the server's own dry run.
    fn encoded(&mut self, object: &Value) -> anyhow::Result<Vec<u8>> {
        if self.media != PROTOBUF {
            return Ok(object.to_string().into_bytes());
        }
        let path = format!("{}?dryRun=All", self.collection);
        let body = object.to_string();
        let call = Call { method: "POST", path: &path, content: JSON, accept: PROTOBUF, body: body.as_bytes() };
        let answer = self.connection.perform(&call)?;
        expect(&answer, "POST", &path, &[201])?;
        ensure!(answer.body.starts_with(b"k8s\0"), "the answer is not protobuf but {}", answer.content);
        Ok(answer.body)
    }

    fn create_dry(&mut self, object: &Value) -> anyhow::Result<()> {
        let path = format!("{}?dryRun=All", self.collection);
        self.json("POST", &path, JSON, object, &[201])?;
        let path = self.path();
        self.json("GET", &path, JSON, &Value::Null, &[404]).context("a dry run left the object").map(drop)
    }

    fn create(&mut self, object: &Value) -> anyhow::Result<Value> {
        let body = self.encoded(object)?;
        let (collection, media) = (self.collection.clone(), self.media);
        let call = Call { method: "POST", path: &collection, content: media, accept: media, body: &body };
        let answer = self.connection.perform(&call)?;
        expect(&answer, "POST", &collection, &[201])?;
        ensure!(answer.content.starts_with(media), "asked for {media}, got {}", answer.content);
        self.json("POST", &collection, JSON, object, &[409]).context("a second creation")?;
        self.get()
    }

    /// The object, the list and the table, in this media type, hold what was made.
    fn read(&mut self, made: &Value) -> anyhow::Result<()> {
        ensure!(made["metadata"]["uid"].is_string() && made["kind"] == self.resource.kind.as_str(), "{made}");
        let (path, collection, media) = (self.path(), self.collection.clone(), self.media);
        for path in [&path, &collection] {
            let call = Call { method: "GET", path, content: JSON, accept: media, body: b"" };
            let answer = self.connection.perform(&call)?;
            expect(&answer, "GET", path, &[200])?;
            ensure!(answer.content.starts_with(media), "asked for {media}, got {}", answer.content);
            let found = answer.body.windows(self.name.len()).any(|window| window == self.name.as_bytes());
            ensure!(found, "{path} does not hold {}", self.name);
        }
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let call = Call { method: "GET", path: &collection, content: JSON, accept: table, body: b"" };
        let answer = self.connection.perform(&call)?;
        let tree: Value = serde_json::from_slice(&answer.body)?;
        let columns = tree["columnDefinitions"].as_array().context("a table has columns")?;
        let named = columns.iter().any(|column| column["name"] == "Name");
        ensure!(tree["kind"] == "Table" && named, "no table: {tree}");
        Ok(())
    }

    /// A watch from before the creation shows it; then the connection is dropped.
    fn watched(&mut self, before: u64) -> anyhow::Result<()> {
        let path = format!("{}?watch=1&timeoutSeconds=10&resourceVersion={before}", self.collection);
        let mut watcher = self.endpoint.connect()?;
        watcher.watch_as(&path, self.media)?;
        let mut seen = Vec::new();
        while let Some(chunk) = watcher.chunk()? {
            seen.extend(chunk);
            if seen.windows(self.name.len()).any(|window| window == self.name.as_bytes()) {
                return Ok(());
            }
        }
        bail!("the watch did not see {}", self.name)
    }

    fn update(&mut self) -> anyhow::Result<Value> {
        let path = self.path();
        // Controllers write the status of a new object: an update may come second, as everybody's.
        let (mut stale, updated) = eventually("an update of the newest version", RACE_BOUND, || {
            let mut stale = self.get()?;
            stale["metadata"]["labels"] = json!({"walk": "updated"});
            let updated = self.json("PUT", &path, JSON, &stale, &[200])?;
            Ok((stale, updated))
        })?;
        ensure!(updated["metadata"]["labels"]["walk"] == "updated", "the update is not in the answer");
        stale["metadata"]["labels"] = json!({"walk": "again"});
        self.json("PUT", &path, JSON, &stale, &[409]).context("an update of an old version")?;
        eventually("writing back what was read", RACE_BOUND, || self.write_back())?;
        Ok(updated)
    }

    /// What was read in this media type is written back in it and is no change.
    fn write_back(&mut self) -> anyhow::Result<()> {
        let (path, media) = (self.path(), self.media);
        let before = revision_of(&self.get()?)?;
        let call = Call { method: "GET", path: &path, content: JSON, accept: media, body: b"" };
        let read = self.connection.perform(&call)?;
        let call = Call { method: "PUT", path: &path, content: media, accept: JSON, body: &read.body };
        let answer = self.connection.perform(&call)?;
        expect(&answer, "PUT", &path, &[200])?;
        let after = revision_of(&serde_json::from_slice(&answer.body)?)?;
        ensure!(after == before, "writing back {before} made {after}");
        Ok(())
    }

    fn patch(&mut self) -> anyhow::Result<()> {
        let path = self.path();
        let merge = json!({"metadata": {"annotations": {"merge": "1"}}});
        self.json("PATCH", &path, "application/merge-patch+json", &merge, &[200])?;
        let json_patch = json!([{"op": "add", "path": "/metadata/annotations/json", "value": "1"}]);
        self.json("PATCH", &path, "application/json-patch+json", &json_patch, &[200])?;
        let strategic = json!({"metadata": {"annotations": {"strategic": "1"}}});
        self.json("PATCH", &path, "application/strategic-merge-patch+json", &strategic, &[200])?;
        let Resource { group, version, kind, .. } = self.resource;
        let api_version = samples::api_version(group, version);
        let apply = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": self.name,
            "annotations": {"apply": "1"}}});
        let at = format!("{path}?fieldManager=walk");
        let applied = self.json("PATCH", &at, "application/apply-patch+yaml", &apply, &[200])?;
        for word in ["merge", "json", "strategic", "apply"] {
            ensure!(applied["metadata"]["annotations"][word] == "1", "the {word} patch is not in {applied}");
        }
        Ok(())
    }

    fn delete(&mut self) -> anyhow::Result<()> {
        let path = self.path();
        let dry = format!("{path}?dryRun=All");
        self.json("DELETE", &dry, JSON, &Value::Null, &[200, 202])?;
        self.get().context("a dry run deleted the object")?;
        let wrong = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "other"}});
        self.json("DELETE", &path, JSON, &wrong, &[409])?;
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
        self.json("DELETE", &path, JSON, &options, &[200, 202])?;
        self.gone()
    }

    /// Gone, or going where something else must finish the deletion (a namespace, a protected volume).
    fn gone(&mut self) -> anyhow::Result<()> {
        let path = self.path();
        let answer =
            self.connection.perform(&Call { method: "GET", path: &path, content: JSON, accept: JSON, body: b"" })?;
        let tree: Value = serde_json::from_slice(&answer.body)?;
        let going = tree["metadata"]["deletionTimestamp"].is_string();
        ensure!(answer.code == 404 || going, "{path} is still there");
        Ok(())
    }

    fn delete_collection(&mut self, object: &Value) -> anyhow::Result<()> {
        let mut object = object.clone();
        let name = samples::name(&self.resource.kind, "many");
        if self.resource.kind == "CustomResourceDefinition" {
            return Ok(());
        }
        object["metadata"]["name"] = json!(name);
        object["metadata"]["labels"]["walk"] = json!("many");
        let collection = self.collection.clone();
        self.json("POST", &collection, JSON, &object, &[201, 409])?;
        self.json("DELETE", &format!("{collection}?labelSelector=walk%3Dmany"), JSON, &Value::Null, &[200])?;
        self.name = name;
        self.gone()
    }
}

impl Resource {
    fn collection(&self) -> String {
        let root = if self.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", self.group) };
        let space = if self.namespaced { format!("/namespaces/{NAMESPACE}") } else { String::new() };
        format!("{root}/{}{space}/{}", self.version, self.name)
    }
}

fn expect(answer: &Answer, method: &str, path: &str, codes: &[u16]) -> anyhow::Result<()> {
    let said: String = String::from_utf8_lossy(&answer.body).chars().take(600).collect();
    ensure!(codes.contains(&answer.code), "{method} {path} answered {}: {said}", answer.code);
    Ok(())
}

fn revision_of(object: &Value) -> anyhow::Result<u64> {
    object["metadata"]["resourceVersion"].as_str().context("no resourceVersion")?.parse().context("resourceVersion")
}

fn discover(connection: &mut Connection) -> anyhow::Result<Vec<Resource>> {
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let mut found = Vec::new();
    for path in ["/api", "/apis"] {
        let answer = connection.perform(&Call { method: "GET", path, content: JSON, accept, body: b"" })?;
        expect(&answer, "GET", path, &[200])?;
        found.extend(read_discovery(&serde_json::from_slice(&answer.body)?));
    }
    ensure!(found.len() > 50, "discovery names only {} resources", found.len());
    Ok(found)
}

fn read_discovery(list: &Value) -> Vec<Resource> {
    let mut found = Vec::new();
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for group in array(&list["items"]) {
        for version in array(&group["versions"]) {
            for resource in array(&version["resources"]) {
                found.push(Resource {
                    group: text(&group["metadata"]["name"]),
                    version: text(&version["version"]),
                    kind: text(&resource["responseKind"]["kind"]),
                    name: text(&resource["resource"]),
                    namespaced: resource["scope"] == "Namespaced",
                    verbs: array(&resource["verbs"]).iter().map(text).collect(),
                });
            }
        }
    }
    found
}

/// Every resource that an upstream server of this version announces is announced here with the same verbs.
fn reference(cluster: &Cluster) -> anyhow::Result<()> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/reference/upstream-1.36");
    let folder = std::env::var_os("EVENKEEL_REFERENCE").map_or(default, Into::into);
    if !folder.exists() {
        println!("skipped: no reference at {}", folder.display());
        return Ok(());
    }
    let mut connection = Endpoint::of(&cluster.kubectl())?.connect()?;
    let ours = discover(&mut connection)?;
    let mut missing = Vec::new();
    for file in ["discovery-api.json", "discovery-apis.json"] {
        let list = std::fs::read_to_string(folder.join(file)).with_context(|| format!("read {file}"))?;
        for theirs in read_discovery(&serde_json::from_str(&list)?) {
            let found = ours
                .iter()
                .find(|our| our.group == theirs.group && our.version == theirs.version && our.name == theirs.name);
            let same = found.is_some_and(|our| our.verbs == theirs.verbs && our.kind == theirs.kind);
            if !same {
                missing.push(format!("{}/{} {}: ours is {found:?}", theirs.group, theirs.version, theirs.name));
            }
        }
    }
    ensure!(missing.is_empty(), "differ from the reference:\n{}", missing.join("\n"));
    Ok(())
}
