//! GET of a subresource: the parent itself, or its `Scale`.

use admit::{Place, Reader, storage_of};
use api::{Key, LabelSelector, Status, Subresource, Tree};
use http::{Response, StatusCode};
use serde_json::{Map, json};

use crate::answer;
use crate::body::Body;
use crate::codec;
use crate::context::{Routed, method_not_allowed};
use crate::media::Accept;
use crate::rest::read;
use crate::rest::render::Renderer;

pub(super) async fn get(routed: &Routed, sub: &Subresource) -> Result<Response<Body>, Status> {
    let accept = Accept::of(&routed.cx.headers)?;
    let object = read::current(routed).await?;
    if sub.gvk == routed.kind.gvk {
        let renderer = Renderer::new(routed, accept)?;
        return Ok(answer::document(StatusCode::OK, renderer.media_type(), renderer.document(&object)?));
    }
    if sub.name != "scale" {
        return Err(method_not_allowed());
    }
    let paths = if routed.kind.custom { paths_of_custom(routed) } else { Paths::default() };
    let scale = scale(&object.tree(), &paths, &sub.gvk.api_version());
    let bytes = codec::encode_gvk(accept.encoding, &sub.gvk, &scale)?;
    Ok(answer::document(StatusCode::OK, accept.encoding.media_type(), bytes))
}

/// Where a kind keeps its replicas.
struct Paths {
    spec: String,
    status: String,
    /// Custom kinds keep a selector as text; built-in ones as an object below `spec.selector`.
    selector: Option<String>,
}

impl Default for Paths {
    fn default() -> Paths {
        Paths { spec: "/spec/replicas".into(), status: "/status/replicas".into(), selector: None }
    }
}

fn paths_of_custom(routed: &Routed) -> Paths {
    let name = routed.kind.qualified_resource();
    let storage = storage_of("apiextensions.k8s.io", "customresourcedefinitions");
    let crd = routed.cx.shared.reader.get(&Place { storage, key: Key::cluster(&name) });
    let crd = crd.map(|crd| crd.tree()).unwrap_or_default();
    let versions = crd["spec"]["versions"].as_array().cloned().unwrap_or_default();
    let version = versions.into_iter().find(|version| version["name"] == routed.kind.gvk.version.as_str());
    let scale = version.map(|mut version| version["subresources"]["scale"].take()).unwrap_or_default();
    let pointer = |name: &str| scale[name].as_str().map(|path| path.replace('.', "/"));
    let default = Paths::default();
    Paths {
        spec: pointer("specReplicasPath").unwrap_or(default.spec),
        status: pointer("statusReplicasPath").unwrap_or(default.status),
        selector: Some(pointer("labelSelectorPath").unwrap_or_default()),
    }
}

/// The `Scale` that stands for an object.
fn scale(object: &Tree, paths: &Paths, api_version: &str) -> Tree {
    let mut metadata = Map::new();
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(key) {
            metadata.insert(key.into(), value.clone());
        }
    }
    let mut spec = Map::new();
    if let Some(replicas) = object.pointer(&paths.spec).filter(|replicas| **replicas != json!(0)) {
        spec.insert("replicas".into(), replicas.clone());
    }
    let mut status = Map::new();
    status.insert("replicas".into(), object.pointer(&paths.status).cloned().unwrap_or(json!(0)));
    let selector = match &paths.selector {
        Some(path) => object.pointer(path).and_then(Tree::as_str).unwrap_or_default().to_owned(),
        None => selector_text(&object["spec"]["selector"]),
    };
    if !selector.is_empty() {
        status.insert("selector".into(), json!(selector));
    }
    json!({"kind": "Scale", "apiVersion": api_version, "metadata": metadata, "spec": spec, "status": status})
}

/// A selector object as text; a plain map (ReplicationController) counts as `matchLabels`.
fn selector_text(selector: &Tree) -> String {
    let structured = selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some();
    let whole = if structured { selector.clone() } else { json!({ "matchLabels": selector }) };
    LabelSelector::from_tree(&whole).map(|selector| selector.to_string()).unwrap_or_default()
}
