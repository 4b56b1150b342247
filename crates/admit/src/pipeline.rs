//! The stages of a write, in order. Each stage is a function; this file only knows their order.

use std::sync::Arc;

use api::convert::{convert, in_form};
use api::{Object, PatchType, Status, Tree};

use crate::causes::Causes;
use crate::context::{Cx, Gathered, Old, put, stored};
use crate::ports::{Operation, Ports, Review};
use crate::request::{Body, Identified, Request, WriteVerb};
use crate::{
    Admitted, Batch, Change, admission, allocate, apply, decode, defaults, delete, doc, meta, patch, strategy,
    subresource, term, validate,
};

/// What a request becomes.
#[derive(Debug)]
pub struct Outcome {
    /// None when nothing is to be written: a dry run, or a write that changes nothing.
    pub admitted: Option<Admitted>,
    /// The answer. Where something is written it lacks `metadata.resourceVersion`: the commit's revision goes there,
    /// unless the answer is a `Status`. Where nothing changes it is the current state with its version.
    pub object: Tree,
    pub created: bool,
    /// True when the object is gone, false when its deletion only began.
    pub deleted: bool,
    pub warnings: Vec<String>,
}

/// A new state on its way through the stages.
pub(crate) struct Draft {
    pub(crate) tree: Tree,
    /// Field errors that decoding found; reported by validation.
    pub(crate) causes: Causes,
    /// What server-side apply worked out; None for every other verb.
    pub(crate) applied: Option<apply::Applied>,
}

/// Takes a write from request to fact-to-be, over one state. The caller retries from fresh state after a conflict.
///
/// # Errors
/// The `Status` that the client gets.
pub async fn admit(
    request: &Identified<Request>,
    current: Option<&Arc<Object>>,
    ports: &Ports<'_>,
) -> Result<Outcome, Status> {
    let cx = Cx::new(request, ports);
    let old = current.map(Old::of);
    let guard = term::guard(&cx)?;
    let outcome = match (&cx.request.verb, cx.sub()) {
        (WriteVerb::Delete { .. }, _) => delete::delete(&cx, old).await,
        (_, "scale") => subresource::scale::write(&cx, old).await,
        (WriteVerb::Create(body), "binding") => subresource::binding::bind(&cx, old, body).await,
        (WriteVerb::Create(body), "eviction") => subresource::eviction::evict(&cx, old, body).await,
        _ => write(&cx, old).await,
    };
    let Some(guard) = guard else { return outcome };
    outcome.map(|outcome| Outcome { admitted: outcome.admitted.map(|admitted| admitted.guarded(guard)), ..outcome })
}

async fn write(cx: &Cx<'_>, old: Option<Old>) -> Result<Outcome, Status> {
    let mut gathered = Gathered::default();
    let mut draft = resolve(cx, old.as_ref(), &mut gathered)?;
    match &old {
        None => meta::begin_create(cx, &mut draft.tree)?,
        Some(old) => meta::begin_update(cx, &mut draft.tree, old)?,
    }
    if old.is_none() && cx.ports.reader.get(&cx.place(doc::text(&draft.tree, "metadata.name"))).is_some() {
        return Err(cx.already_exists(doc::text(&draft.tree, "metadata.name")));
    }
    defaults::apply(cx.kind, &mut draft.tree);
    strategy::isolate(cx, &mut draft.tree, old.as_ref().map(|old| &old.tree));
    if let Some(applied) = &mut draft.applied {
        applied.base = draft.tree.clone();
    }
    finish(cx, old, draft, gathered).await
}

/// The new state as the request wants it, fitted to the schema.
fn resolve(cx: &Cx<'_>, old: Option<&Old>, gathered: &mut Gathered) -> Result<Draft, Status> {
    let validation = cx.request.options.field_validation;
    let name = cx.request.name.as_str();
    match (&cx.request.verb, old) {
        (WriteVerb::Create(_), Some(_)) if cx.sub().is_empty() => Err(cx.already_exists(name)),
        (WriteVerb::Update(_), None) if !strategy::creates_on_update(cx) => Err(cx.not_found(name)),
        (WriteVerb::Create(body) | WriteVerb::Update(body), _) => {
            let (tree, causes) = decode::decode(cx.asked, body, validation, &mut gathered.warnings)?;
            Ok(Draft { tree: to_stored(cx, tree), causes, applied: None })
        }
        (WriteVerb::Patch { patch: PatchType::Apply { force }, body }, old) => {
            apply::resolve(cx, old, body, *force, gathered)
        }
        (WriteVerb::Patch { .. }, None) => Err(cx.not_found(name)),
        (WriteVerb::Patch { patch, body }, Some(old)) => patched(cx, &old.tree, *patch, body, gathered),
        (WriteVerb::Delete { .. }, _) => Err(Status::internal("a deletion has no new state")),
    }
}

/// What a client sent or patched, in the form that is stored. A custom version's defaults are those it was sent in.
pub(crate) fn to_stored(cx: &Cx<'_>, mut tree: Tree) -> Tree {
    if cx.asked.custom && !cx.asked.is_stored() {
        decode::fill_defaults(&cx.asked.schema, &mut tree);
    }
    convert(tree, cx.kind)
}

fn patched(cx: &Cx<'_>, old: &Tree, kind: PatchType, body: &Body, gathered: &mut Gathered) -> Result<Draft, Status> {
    let validation = cx.request.options.field_validation;
    let old = &*in_form(old, cx.asked);
    let mut tree = match kind {
        PatchType::Json => patch::json(old, &body.tree)?,
        PatchType::Merge => patch::merge(old, &body.tree)?,
        PatchType::Strategic if cx.asked.custom => return Err(patch::unsupported()),
        PatchType::Strategic => patch::strategic(&cx.asked.schema, old, &body.tree)?,
        PatchType::Apply { .. } => return Err(Status::internal("apply has a path of its own")),
    };
    let refused = |tree: &Tree, why: &str| {
        let mut causes = Causes::default();
        causes.invalid_text(&crate::causes::At::of("patch"), &tree.to_string(), why);
        Status::invalid("", "", "", causes.into_vec())
    };
    let shown = tree.clone();
    let mut fitted = decode::fit(&cx.asked.schema, cx.asked.custom, &mut tree).map_err(|why| refused(&shown, &why))?;
    let strict = decode::duplicates(body).chain(std::mem::take(&mut fitted.strict)).collect();
    if let Some(error) = decode::judge(strict, validation, &mut gathered.warnings) {
        return Err(refused(&shown, &error));
    }
    for fixed in ["apiVersion", "kind"] {
        doc::copy(old, &mut tree, fixed);
    }
    Ok(Draft { tree: to_stored(cx, tree), causes: fitted.causes, applied: None })
}

/// Everything after the new state is known: admission, strategy, managed fields, allocation, validation, batch.
pub(crate) async fn finish(
    cx: &Cx<'_>,
    old: Option<Old>,
    mut draft: Draft,
    mut gathered: Gathered,
) -> Result<Outcome, Status> {
    let before = old.as_ref().map(|old| &old.tree);
    let name = doc::text(&draft.tree, "metadata.name").to_owned();
    draft.tree = mutate(cx, draft.tree, before, &name, &mut gathered).await?;
    strategy::prepare(cx, &mut draft.tree, before);
    apply::track(cx, &mut draft, before);
    if let Some(old) = old.as_ref().filter(|old| is_same(&draft.tree, &old.tree) && gathered.changes.is_empty()) {
        let (object, warnings) = (old.tree.clone(), gathered.warnings);
        return Ok(Outcome { admitted: None, object, created: false, deleted: false, warnings });
    }
    allocate::claim(cx, &mut draft.tree, before, &mut gathered)?;
    let mut causes = draft.causes;
    validate::object(cx, &draft.tree, before, &mut causes);
    if !causes.is_empty() {
        return Err(cx.invalid(&name, causes.into_vec()));
    }
    admission::validate(cx, Some(&draft.tree), before, &mut gathered)?;
    let review = review(cx, before, &name);
    gathered.warnings.extend(cx.ports.hooks.validate(&review, Some(&draft.tree)).await?);
    batch(cx, old, draft.tree, gathered)
}

async fn mutate(
    cx: &Cx<'_>,
    mut tree: Tree,
    before: Option<&Tree>,
    name: &str,
    gathered: &mut Gathered,
) -> Result<Tree, Status> {
    admission::mutate(cx, &mut tree, before)?;
    let review = review(cx, before, name);
    let (mut tree, warnings) = cx.ports.hooks.mutate(&review, tree).await?;
    gathered.warnings.extend(warnings);
    decode::fit(&cx.kind.schema, cx.kind.custom, &mut tree)
        .map_err(|why| Status::internal(format!("admission: {why}")))?;
    defaults::apply(cx.kind, &mut tree);
    Ok(tree)
}

/// Puts the object (or its removal, when the last finalizer went) beside what the stages gathered.
fn batch(cx: &Cx<'_>, old: Option<Old>, tree: Tree, gathered: Gathered) -> Result<Outcome, Status> {
    let Gathered { warnings, mut changes } = gathered;
    let place = cx.place(doc::text(&tree, "metadata.name"));
    let deleted = old.is_some() && delete::is_done(cx, &tree);
    match &old {
        Some(old) if deleted => changes.extend(delete::removal(cx, place, old)),
        old => changes.insert(0, put(place, old.as_ref().map(|old| old.revision), &tree)),
    }
    let admitted = admitted(cx, changes);
    let mut object = tree;
    doc::remove(&mut object, "metadata.resourceVersion");
    if let Some(old) = old.as_ref().filter(|_| cx.request.options.dry_run) {
        // Nothing makes a newer revision: the answer is at the one that is there.
        doc::copy(&old.tree, &mut object, "metadata.resourceVersion");
    }
    Ok(Outcome { admitted, object, created: old.is_none(), deleted, warnings })
}

pub(crate) fn admitted(cx: &Cx<'_>, changes: Vec<Change>) -> Option<Admitted> {
    (!cx.request.options.dry_run && !changes.is_empty()).then(|| Admitted::new(Batch { changes }))
}

pub(crate) fn review<'a>(cx: &'a Cx<'_>, old: Option<&'a Tree>, name: &'a str) -> Review<'a> {
    let operation = match (&cx.request.verb, old) {
        (WriteVerb::Delete { .. }, _) => Operation::Delete,
        (_, None) => Operation::Create,
        (_, Some(_)) => Operation::Update,
    };
    Review {
        user: cx.user,
        kind: cx.kind,
        subresource: cx.sub(),
        namespace: &cx.request.namespace,
        name,
        operation,
        dry_run: cx.request.options.dry_run,
        old,
    }
}

/// Equal as stored, not counting the times at which managers last wrote.
fn is_same(new: &Tree, old: &Tree) -> bool {
    let timeless = |tree: &Tree| {
        let mut tree = tree.clone();
        for entry in doc::items_mut(&mut tree, "metadata.managedFields") {
            doc::remove(entry, "time");
        }
        stored(&tree)
    };
    timeless(new) == timeless(old)
}
