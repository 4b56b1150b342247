//! Scale: one small object in front of every kind that has replicas, built-in or custom.

use api::convert::in_form;
use api::{Kind, PatchType, Status, Tree};
use serde_json::json;

use crate::causes::{At, Causes};
use crate::context::{Cx, Gathered, MODIFIED, Old, bad_request};
use crate::pipeline::{Draft, Outcome, finish, to_stored};
use crate::ports::{Reader, storage_of};
use crate::request::WriteVerb;
use crate::{Place, apply, doc, patch};

/// Where a kind keeps what Scale shows.
struct Paths {
    replicas: String,
    observed: String,
    selector: String,
}

/// The Scale of an object, as `GET .../scale` answers it. None for a kind without one.
pub fn scale_of(kind: &Kind, object: &Tree, reader: &dyn Reader) -> Option<Tree> {
    let paths = paths_of(kind, reader)?;
    let mut scale = json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {},
        "spec": {}, "status": {"replicas": doc::int(object, &paths.observed).unwrap_or(0)},
    });
    // Zero is not written, as upstream's type has it.
    if let Some(replicas) = doc::int(object, &paths.replicas).filter(|replicas| *replicas != 0) {
        doc::set(&mut scale, "spec.replicas", replicas);
    }
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        doc::copy(object, &mut scale, &format!("metadata.{field}"));
    }
    let selector = match doc::get(object, &paths.selector) {
        Tree::String(text) => text.clone(),
        selector if kind.custom => selector.as_str().unwrap_or_default().to_owned(),
        selector => selector_text(selector),
    };
    if !selector.is_empty() {
        doc::set(&mut scale, "status.selector", selector);
    }
    Some(scale)
}

/// A selector as the text of a query: of a LabelSelector, or of the plain map of a ReplicationController.
fn selector_text(selector: &Tree) -> String {
    let plain = !doc::has(selector, "matchLabels") && !doc::has(selector, "matchExpressions");
    let wrapped = if plain { json!({"matchLabels": selector}) } else { selector.clone() };
    api::LabelSelector::from_tree(&wrapped).map(|selector| selector.to_string()).unwrap_or_default()
}

fn paths_of(kind: &Kind, reader: &dyn Reader) -> Option<Paths> {
    kind.subresource("scale")?;
    if !kind.custom {
        let path = |text: &str| text.to_owned();
        return Some(Paths {
            replicas: path("spec.replicas"),
            observed: path("status.replicas"),
            selector: path("spec.selector"),
        });
    }
    let key = api::Key::cluster(&format!("{}.{}", kind.resource, kind.gvk.group));
    let place = Place { storage: storage_of("apiextensions.k8s.io", "customresourcedefinitions"), key };
    let crd = reader.get(&place)?.tree();
    let mut versions = doc::items(&crd, "spec.versions").iter();
    let version = versions.find(|version| doc::text(version, "name") == kind.gvk.version)?;
    let path = |name: &str| {
        let path = doc::text(version, &format!("subresources.scale.{name}"));
        path.trim_start_matches('.').to_owned()
    };
    Some(Paths {
        replicas: path("specReplicasPath"),
        observed: path("statusReplicasPath"),
        selector: path("labelSelectorPath"),
    })
}

pub(crate) async fn write(cx: &Cx<'_>, old: Option<Old>) -> Result<Outcome, Status> {
    let old = old.ok_or_else(|| cx.not_found(&cx.request.name))?;
    let reader = cx.ports.reader;
    let paths = paths_of(cx.asked, reader).ok_or_else(|| cx.not_found(&cx.request.name))?;
    let live = in_form(&old.tree, cx.asked).into_owned();
    let current = scale_of(cx.asked, &live, reader).ok_or_else(|| cx.not_found(&cx.request.name))?;
    let wanted = wanted(cx, &current)?;
    let replicas = doc::int(&wanted, "spec.replicas").unwrap_or(0);
    check(cx, &wanted, &current, replicas)?;
    let mut tree = live;
    doc::set(&mut tree, &paths.replicas, replicas);
    let tree = to_stored(cx, tree);
    let mut draft = Draft { tree, causes: Causes::default(), applied: None };
    if let WriteVerb::Patch { patch: PatchType::Apply { force }, body } = &cx.request.verb {
        let named = doc::has(&body.tree, "spec.replicas").then_some(paths.replicas.as_str());
        draft.applied = Some(apply::resolve_scale(cx, &old, &draft.tree, named, *force)?);
    }
    let mut outcome = finish(cx, Some(old), draft, Gathered::default()).await?;
    let object = in_form(&outcome.object, cx.asked).into_owned();
    outcome.object = scale_of(cx.asked, &object, reader).unwrap_or(object);
    Ok(outcome)
}

fn wanted(cx: &Cx<'_>, current: &Tree) -> Result<Tree, Status> {
    let schema = || crate::vocabulary::schema("io.k8s.api.autoscaling.v1.Scale");
    let mut wanted = match &cx.request.verb {
        WriteVerb::Create(body) | WriteVerb::Update(body) => body.tree.clone(),
        WriteVerb::Patch { patch: PatchType::Json, body } => patch::json(current, &body.tree)?,
        WriteVerb::Patch { patch: PatchType::Strategic, body } => match schema() {
            Some(schema) => patch::strategic(&schema, current, &body.tree)?,
            None => patch::merge(current, &body.tree)?,
        },
        WriteVerb::Patch { body, .. } => patch::merge(current, &body.tree)?,
        WriteVerb::Delete { .. } => return Err(Status::internal("scale is not deleted")),
    };
    if let Some(schema) = schema() {
        crate::decode::fit(&schema, false, &mut wanted).map_err(bad_request)?;
    }
    Ok(wanted)
}

fn check(cx: &Cx<'_>, wanted: &Tree, current: &Tree, replicas: i64) -> Result<(), Status> {
    let name = cx.request.name.as_str();
    for (field, path) in [("name", "metadata.name"), ("namespace", "metadata.namespace")] {
        let (sent, have) = (doc::text(wanted, path), doc::text(current, path));
        if !sent.is_empty() && sent != have {
            return Err(bad_request(format!(
                "the {field} of the object ({sent}) does not match the {field} on the URL ({have})"
            )));
        }
    }
    let sent = doc::text(wanted, "metadata.resourceVersion");
    if !sent.is_empty() && sent != doc::text(current, "metadata.resourceVersion") {
        return Err(cx.conflict(name, MODIFIED));
    }
    if replicas < 0 {
        let mut causes = Causes::default();
        causes.invalid(&At::of("spec.replicas"), &json!(replicas), "must be greater than or equal to 0");
        return Err(Status::invalid("autoscaling", "Scale", name, causes.into_vec()));
    }
    Ok(())
}
