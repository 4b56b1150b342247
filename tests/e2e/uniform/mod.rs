//! Every kind of live discovery, every verb it names, every media type: one walk for all, and each cell asserts state.
//!
//! The kinds are those the server announces, and (when the reference is at hand) those an upstream server announces: a
//! kind that is missing here fails there. A custom resource is one of them.

mod media;
mod walk;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, ensure};
use e2e::{Call, Case, Cluster, Connection, Endpoint, Samples};
use serde_json::Value;

use crate::clients::stage;
use media::{JSON, Media};

pub const CASES: [Case<Cluster>; 2] =
    [Case { name: "uniform_kind_verb_media", run: all }, Case { name: "uniform_kinds_of_reference", run: reference }];

const NAMESPACE: &str = "uniform";

/// A resource as aggregated discovery announces it.
#[derive(Debug)]
struct Resource {
    group: String,
    version: String,
    kind: String,
    name: String,
    namespaced: bool,
    verbs: BTreeSet<String>,
    subresources: Vec<Subresource>,
}

#[derive(Debug)]
struct Subresource {
    name: String,
    kind: String,
    verbs: BTreeSet<String>,
}

fn all(cluster: &Cluster) -> anyhow::Result<()> {
    stage(cluster, NAMESPACE, || every_kind(cluster))
}

fn every_kind(cluster: &Cluster) -> anyhow::Result<()> {
    let endpoint = Endpoint::of(&cluster.kubectl())?;
    let mut connection = endpoint.connect()?;
    let resources = discover(&mut connection)?;
    let custom = resources.iter().filter(|resource| resource.is_custom()).count();
    ensure!(custom == 1, "discovery names {custom} custom resources");
    let mut cells = 0;
    let mut failures = Vec::new();
    for resource in &resources {
        for media in Media::ALL {
            match walk::life(&endpoint, &mut connection, resource, media) {
                Ok(count) => cells += count,
                Err(error) => failures.push(format!("{} {media:?}: {error:#}", resource.name)),
            }
        }
    }
    println!("{cells} cells held over {} resources", resources.len());
    ensure!(failures.is_empty(), "{} of the walks failed:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

impl Resource {
    fn collection(&self) -> String {
        let root = if self.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", self.group) };
        let space = if self.namespaced { format!("/namespaces/{NAMESPACE}") } else { String::new() };
        format!("{root}/{}{space}/{}", self.version, self.name)
    }

    fn has(&self, verb: &str) -> bool {
        self.verbs.contains(verb)
    }

    /// What has no protobuf form and no strategic merge.
    fn is_custom(&self) -> bool {
        self.kind == "Gadget"
    }

    fn sample(&self, tag: u8) -> anyhow::Result<Value> {
        Samples::of(tag, NAMESPACE)?.object(&self.group, &self.version, &self.kind)
    }
}

fn discover(connection: &mut Connection) -> anyhow::Result<Vec<Resource>> {
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let mut found = Vec::new();
    for path in ["/api", "/apis"] {
        let answer = connection.perform(&Call { method: "GET", path, content: JSON, accept, body: b"" })?;
        ensure!(answer.code == 200, "GET {path} answered {}", answer.code);
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
                let subresources = array(&resource["subresources"]).into_iter().map(|sub| Subresource {
                    name: text(&sub["subresource"]),
                    kind: text(&sub["responseKind"]["kind"]),
                    verbs: array(&sub["verbs"]).iter().map(text).collect(),
                });
                found.push(Resource {
                    group: text(&group["metadata"]["name"]),
                    version: text(&version["version"]),
                    kind: text(&resource["responseKind"]["kind"]),
                    name: text(&resource["resource"]),
                    namespaced: resource["scope"] == "Namespaced",
                    verbs: array(&resource["verbs"]).iter().map(text).collect(),
                    subresources: subresources.collect(),
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
            if let Some(difference) = difference(&theirs, found) {
                missing.push(format!("{}/{} {}: {difference}", theirs.group, theirs.version, theirs.name));
            }
        }
    }
    ensure!(missing.is_empty(), "differ from the reference:\n{}", missing.join("\n"));
    Ok(())
}

fn difference(theirs: &Resource, ours: Option<&Resource>) -> Option<String> {
    let Some(ours) = ours else { return Some("is not served".to_owned()) };
    if ours.verbs != theirs.verbs || ours.kind != theirs.kind {
        return Some(format!("is {} with {:?}", ours.kind, ours.verbs));
    }
    let lacks = theirs.subresources.iter().find(|sub| {
        let found = ours.subresources.iter().find(|our| our.name == sub.name);
        found.is_none_or(|our| our.verbs != sub.verbs || our.kind != sub.kind)
    });
    lacks.map(|sub| format!("lacks {sub:?} among {:?}", ours.subresources))
}
