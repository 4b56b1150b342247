//! Server-side apply and the record of who manages which field.
//!
//! Apply merges a configuration by the schema, takes out what its manager applied before and no longer does, and
//! refuses to change what others manage unless forced. Every other write is recorded too, so that an apply meets it.

mod managers;
mod merge;
mod set;
mod typed;
mod versions;

use api::convert::in_form;
use api::status::Details;
use api::{Cause, Kind, Reason, Status, Tree};
use serde_json::json;

use crate::causes::{At, Causes};
use crate::context::{Cx, Gathered, Old, bad_request};
use crate::pipeline::{Draft, to_stored};
use crate::request::Body;
use crate::{decode, doc};
use managers::{Entry, Managers, manager_of};
use set::{Set, field};
use typed::{Differences, Typed, compare, fields_of};
use versions::{Form, Touched};

/// What applying a configuration found.
#[derive(Debug)]
pub(crate) struct Applied {
    managers: Managers,
    /// The object before admission; what admission changes is recorded as an update.
    pub(crate) base: Tree,
}

/// Fields of metadata that nobody manages.
const UNMANAGED_META: [&str; 8] =
    ["name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion"];
/// The manager of everything that was there before the first apply, where nothing was recorded.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// The new object of an apply request, with its managers.
pub(crate) fn resolve(
    cx: &Cx<'_>,
    old: Option<&Old>,
    body: &Body,
    force: bool,
    gathered: &mut Gathered,
) -> Result<Draft, Status> {
    let (config, causes) = configuration(cx, old, body, gathered)?;
    let empty = json!({"apiVersion": config["apiVersion"], "kind": config["kind"], "metadata": {}});
    let live = bare(&in_form(old.map_or(&empty, |old| &old.tree), cx.asked));
    let form = Form::of(cx.asked);
    let typed = form.typed();

    let mut managers = old.map(|old| recorded(cx, typed, &old.tree, &live)).unwrap_or_default();
    let mut entry = entry_of(cx, true);
    entry.set = managed(cx, cx.asked, fields_of(typed, &config));
    let last = managers.find(&entry).cloned();
    managers.put(entry.clone());

    let merged = merge::merge(typed, &live, &config);
    let mut tree = match last {
        Some(last) if !last.set.is_empty() => versions::prune(cx, merged, &last, &managers),
        _ => merged,
    };
    for kept in UNMANAGED_META {
        let path = format!("metadata.{kept}");
        if let Some(value) = doc::at(&live, &path).filter(|_| !doc::has(&tree, &path)) {
            doc::set(&mut tree, &path, value.clone());
        }
    }
    let touched = Touched::of(cx, &managers, &entry, [&live, &tree], &compare(typed, &live, &tree));
    settle(&mut managers, &entry, &touched, force)?;
    Ok(Draft { tree: to_stored(cx, tree), causes, applied: Some(Applied { managers, base: Tree::Null }) })
}

/// An applied Scale: its manager owns the field that it names in the object behind it. `new` is in the stored form.
pub(crate) fn resolve_scale(
    cx: &Cx<'_>,
    old: &Old,
    new: &Tree,
    named: Option<&str>,
    force: bool,
) -> Result<Applied, Status> {
    let form = Form::of(cx.asked);
    let (live, tree) = (bare(&in_form(&old.tree, cx.asked)), bare(&in_form(new, cx.asked)));
    let mut managers = recorded(cx, form.typed(), &old.tree, &live);
    let mut entry = entry_of(cx, true);
    if let Some(path) = named {
        entry.set.insert(&path.split('.').map(field).collect::<Vec<_>>());
    }
    managers.put(entry.clone());
    let touched = Touched::of(cx, &managers, &entry, [&live, &tree], &compare(form.typed(), &live, &tree));
    settle(&mut managers, &entry, &touched, force)?;
    Ok(Applied { managers, base: new.clone() })
}

/// Refuses what others manage, unless forced; then they lose what changed or went.
fn settle(managers: &mut Managers, mine: &Entry, touched: &Touched, force: bool) -> Result<(), Status> {
    if !force {
        check_conflicts(managers, mine, touched)?;
    }
    managers.take_from_others(mine, touched);
    Ok(())
}

/// The body as a configuration of this kind.
fn configuration(
    cx: &Cx<'_>,
    old: Option<&Old>,
    body: &Body,
    gathered: &mut Gathered,
) -> Result<(Tree, Causes), Status> {
    if cx.request.options.field_manager.is_empty() {
        let mut causes = Causes::default();
        causes.required(&At::of("fieldManager"), "is required for apply patch");
        return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", causes.into_vec()));
    }
    let mut tree = body.tree.clone();
    for name in ["apiVersion", "kind"] {
        if doc::text(&tree, name).is_empty() {
            return Err(bad_request("invalid object type: /, Kind="));
        }
    }
    let said = api::Gvk::parse(doc::text(&tree, "apiVersion"), doc::text(&tree, "kind"));
    if said.as_ref() != Some(&cx.asked.gvk) {
        let (want, have) = (&cx.asked.gvk, doc::text(&tree, "apiVersion"));
        return Err(bad_request(format!(
            "the API version in the data ({have}) does not match the expected API version ({})",
            want.api_version()
        )));
    }
    if !doc::items(&tree, "metadata.managedFields").is_empty() {
        return Err(bad_request("metadata.managedFields must be nil"));
    }
    let uid = doc::text(&tree, "metadata.uid");
    if old.is_none() && !uid.is_empty() {
        let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(cx.conflict(&cx.request.name, &why));
    }
    let failed = |why: &str| {
        let (namespace, name) = (&cx.request.namespace, &cx.request.name);
        let what = format!("failed to create typed patch object ({namespace}/{name}; {}): {why}", cx.asked.gvk);
        Status::new(Reason::Unknown, what)
    };
    let fitted = decode::fit(&cx.asked.schema, cx.asked.custom, &mut tree).map_err(|why| failed(&why))?;
    let duplicates: Vec<String> = decode::duplicates(body).collect();
    if let Some(error) = decode::judge(duplicates, cx.request.options.field_validation, &mut gathered.warnings) {
        return Err(bad_request(format!("error decoding YAML: {error}")));
    }
    let undeclared = fitted.strict.iter().filter_map(|text| text.split('"').nth(1));
    let undeclared: Vec<String> = undeclared.map(|path| format!(".{path}: field not declared in schema")).collect();
    match undeclared.as_slice() {
        [] => Ok((tree, fitted.causes)),
        [only] => Err(failed(only)),
        many => Err(failed(&format!("errors:\n  {}", many.join("\n  ")))),
    }
}

/// Records what a write changed and by whom; runs after mutation, before allocation.
pub(crate) fn track(cx: &Cx<'_>, draft: &mut Draft, old: Option<&Tree>) {
    let form = Form::of(cx.asked);
    let typed = form.typed();
    let new = bare(&in_form(&draft.tree, cx.asked));
    if let Some(Applied { mut managers, base }) = draft.applied.take() {
        let base = bare(&in_form(&base, cx.asked));
        update(cx, &mut managers, [&base, &new], &compare(typed, &base, &new));
        managers.write(&mut draft.tree);
        return;
    }
    let sent = Managers::of(&draft.tree);
    if Managers::is_reset(&draft.tree) {
        doc::remove(&mut draft.tree, "metadata.managedFields");
        return;
    }
    let mut managers = sent.or_else(|| old.and_then(Managers::of)).unwrap_or_default();
    let before = old.map_or_else(|| blank(&new), |old| bare(&in_form(old, cx.asked)));
    update(cx, &mut managers, [&before, &new], &compare(typed, &before, &new));
    managers.write(&mut draft.tree);
}

/// Changed fields become the updater's; removed fields nobody's.
fn update(cx: &Cx<'_>, managers: &mut Managers, states: [&Tree; 2], differences: &Differences) {
    let changed = managed(cx, cx.asked, differences.changed());
    let removed = managed(cx, cx.asked, differences.removed.clone());
    if changed.is_empty() && removed.is_empty() {
        return;
    }
    let mut entry = entry_of(cx, false);
    let touched = Touched::of(cx, managers, &entry, states, differences);
    managers.take_from_others(&entry, &touched);
    let mut time = entry.time.clone();
    let mut before = Set::default();
    if let Some(have) = managers.find(&entry) {
        before = have.set.clone();
        if changed.is_empty() {
            time.clone_from(&have.time);
        }
    }
    entry.set = before.difference(&removed).union(&changed);
    entry.time = time;
    managers.put(entry);
}

fn check_conflicts(managers: &Managers, mine: &Entry, touched: &Touched) -> Result<(), Status> {
    let mut conflicts: Vec<(String, String)> = Vec::new();
    for entry in managers.entries.iter().filter(|entry| !entry.is_same_manager(mine)) {
        let Some(differences) = touched.of_entry(entry) else { continue };
        let paths = entry.set.intersection(&differences.changed).paths();
        conflicts.extend(paths.into_iter().map(|path| (entry.shown(), path)));
    }
    conflicts.sort();
    let message = match conflicts.as_slice() {
        [] => return Ok(()),
        [(manager, path)] => format!("Apply failed with 1 conflict: conflict with {manager}: {path}"),
        many => {
            let mut lines = Vec::new();
            for (at, (manager, path)) in many.iter().enumerate() {
                if at == 0 || many[at - 1].0 != *manager {
                    lines.push(format!("conflicts with {manager}:"));
                }
                lines.push(format!("- {path}"));
            }
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    let causes = conflicts.into_iter().map(|(manager, field)| Cause {
        reason: "FieldManagerConflict".into(),
        message: format!("conflict with {manager}"),
        field,
    });
    let mut status = Status::new(Reason::Conflict, message);
    status.details = Some(Box::new(Details { causes: causes.collect(), ..Details::default() }));
    Err(status)
}

/// The managers of a live object; where nothing is recorded, everything was there before.
fn recorded(cx: &Cx<'_>, typed: Typed<'_>, old: &Tree, live: &Tree) -> Managers {
    Managers::of(old).unwrap_or_else(|| {
        let set = managed(cx, cx.asked, fields_of(typed, live));
        let entry = Entry { manager: BEFORE_FIRST_APPLY.into(), set, ..entry_of(cx, false) };
        Managers { entries: vec![Entry { subresource: String::new(), ..entry }] }
    })
}

fn entry_of(cx: &Cx<'_>, apply: bool) -> Entry {
    Entry {
        manager: manager_of(&cx.request.options),
        apply,
        api_version: cx.asked.gvk.api_version(),
        time: cx.stamp(),
        subresource: cx.sub().to_owned(),
        set: Set::default(),
    }
}

/// Leaves out what the server owns, and what this subresource cannot write.
fn managed(cx: &Cx<'_>, row: &Kind, mut set: Set) -> Set {
    set.remove("f:apiVersion");
    set.remove("f:kind");
    if let Some(meta) = set.node_mut("f:metadata") {
        meta.member = false;
        for name in UNMANAGED_META {
            meta.set.remove(&field(name));
        }
    }
    if cx.sub() == "status" {
        let status = set.remove("f:status");
        set = Set::default();
        status.into_iter().for_each(|node| set.insert_node("f:status".into(), node));
    } else if row.subresource("status").is_some() {
        set.remove("f:status");
    }
    // Emptied inner sets vanish.
    set.difference(&Set::default())
}

/// The object without its record.
fn bare(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    doc::remove(&mut tree, "metadata.managedFields");
    tree
}

/// What a typed server starts a creation from: structs that are never absent, all empty.
fn blank(new: &Tree) -> Tree {
    const ALWAYS: [&str; 12] = [
        "metadata",
        "spec",
        "status",
        "spec.template",
        "spec.template.metadata",
        "spec.template.spec",
        "spec.strategy",
        "spec.updateStrategy",
        "spec.jobTemplate",
        "spec.jobTemplate.spec",
        "spec.jobTemplate.spec.template",
        "spec.jobTemplate.spec.template.spec",
    ];
    // Lists that are always written are null, not absent.
    const NULLS: [&str; 4] =
        ["spec.containers", "spec.template.spec.containers", "spec.jobTemplate.spec.template.spec.containers", "rules"];
    let mut blank = json!({"apiVersion": new["apiVersion"], "kind": new["kind"]});
    for path in ALWAYS.iter().filter(|path| doc::get(new, path).is_object()) {
        doc::set(&mut blank, path, json!({}));
    }
    for path in NULLS.iter().filter(|path| doc::get(new, path).is_array()) {
        doc::set(&mut blank, path, json!([]));
    }
    blank
}
