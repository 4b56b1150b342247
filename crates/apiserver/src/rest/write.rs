//! Create, update, patch: decode, admit over fresh state, commit, answer.

use std::sync::Arc;
use std::time::Duration;

use admit::{Identified, Options, Outcome, Ports, Reader, Request, WriteVerb};
use api::term::{TERM_HEADER, TermError};
use api::{Object, PatchType, Reason, Status, Subresource, Term, Tree};
use base::limits::{CONFLICT_RETRIES_MAX, REQUEST_BODY_BYTES_MAX};
use futures::future::BoxFuture;
use http::{Response, StatusCode};
use store::CommitError;

use crate::answer;
use crate::body::{self, Body};
use crate::codec;
use crate::context::{Routed, no_such_resource};
use crate::media::{Accept, Encoding, PatchBody};
use crate::query::WriteOptions;
use crate::rest::read::unavailable;
use crate::rest::render::Renderer;
use crate::server::Shared;

/// Longest wait for the service account of a namespace that was just made.
const ACCOUNT_WAIT: Duration = Duration::from_secs(2);

/// What a write did.
pub(crate) struct Written {
    /// The new version as it is served; `None` where nothing was stored (dry run, no-op, removal).
    pub object: Option<Arc<Object>>,
    /// The answer as admission made it.
    pub tree: Tree,
    pub created: bool,
    pub deleted: bool,
    pub warnings: Vec<String>,
    pub revision: Option<base::Revision>,
}

pub(super) async fn create(routed: Routed, body: Body) -> Result<Response<Body>, Status> {
    let (accept, options) = (Accept::of(&routed.cx.headers)?, options(&routed, "CreateOptions", false)?);
    let body = decode(&routed, body).await?;
    let written = write(&routed, None, WriteVerb::Create(body), options).await?;
    answer(&routed, accept, written)
}

/// POST of a `v1 Binding` to its collection: the same as to `binding` of the pod it names.
pub(super) async fn bind(mut routed: Routed, body: Body) -> Result<Response<Body>, Status> {
    let (accept, options) = (Accept::of(&routed.cx.headers)?, options(&routed, "CreateOptions", false)?);
    let body = decode(&routed, body).await?;
    let pods = routed.cx.registry.resource(&api::Gvr::new("", "v1", "pods")).cloned().ok_or_else(no_such_resource)?;
    let sub = pods.subresource("binding").cloned().ok_or_else(no_such_resource)?;
    routed.target.name = body.tree["metadata"]["name"].as_str().unwrap_or_default().into();
    if routed.target.name.is_empty() {
        return Err(Status::bad_request("name must be provided"));
    }
    routed.kind = pods;
    let written = write(&routed, Some(sub.clone()), WriteVerb::Create(body), options).await?;
    answer_below(&routed, &sub, accept, written, StatusCode::CREATED)
}

pub(super) async fn update(routed: Routed, body: Body) -> Result<Response<Body>, Status> {
    let (accept, options) = (Accept::of(&routed.cx.headers)?, options(&routed, "UpdateOptions", false)?);
    let body = decode(&routed, body).await?;
    let written = write(&routed, None, WriteVerb::Update(body), options).await?;
    answer(&routed, accept, written)
}

pub(super) async fn patch(routed: Routed, body: Body) -> Result<Response<Body>, Status> {
    let (accept, verb, options) = patch_request(&routed, body).await?;
    let written = write(&routed, None, verb, options).await?;
    answer(&routed, accept, written)
}

/// POST to a subresource: `binding`, `eviction`.
pub(super) async fn post_below(routed: Routed, sub: Subresource, body: Body) -> Result<Response<Body>, Status> {
    let (accept, options) = (Accept::of(&routed.cx.headers)?, options(&routed, "CreateOptions", false)?);
    let body = decode(&routed, body).await?;
    let written = write(&routed, Some(sub.clone()), WriteVerb::Create(body), options).await?;
    answer_below(&routed, &sub, accept, written, StatusCode::CREATED)
}

pub(super) async fn update_below(routed: Routed, sub: Subresource, body: Body) -> Result<Response<Body>, Status> {
    let (accept, options) = (Accept::of(&routed.cx.headers)?, options(&routed, "UpdateOptions", false)?);
    let body = decode(&routed, body).await?;
    let written = write(&routed, Some(sub.clone()), WriteVerb::Update(body), options).await?;
    answer_below(&routed, &sub, accept, written, StatusCode::OK)
}

pub(super) async fn patch_below(routed: Routed, sub: Subresource, body: Body) -> Result<Response<Body>, Status> {
    let (accept, verb, options) = patch_request(&routed, body).await?;
    let written = write(&routed, Some(sub.clone()), verb, options).await?;
    answer_below(&routed, &sub, accept, written, StatusCode::OK)
}

/// Query parameters of a write; `kind` is the options kind that errors name.
pub(super) fn options(routed: &Routed, kind: &str, apply: bool) -> Result<Options, Status> {
    let parsed = WriteOptions::parse(&routed.cx.query, kind, apply)?;
    Ok(Options {
        dry_run: parsed.dry_run,
        field_manager: parsed.field_manager,
        field_validation: parsed.field_validation,
        user_agent: routed.cx.user_agent().into(),
        term: term(routed)?,
    })
}

/// The term in which the write was decided, where its requester has one.
pub(super) fn term(routed: &Routed) -> Result<Option<Term>, Status> {
    let text = routed.cx.header(TERM_HEADER);
    let parsed = (!text.is_empty()).then(|| text.parse()).transpose();
    parsed.map_err(|error: TermError| Status::bad_request(format!("{TERM_HEADER}: {error}")))
}

/// Reads and decodes a body by its media type.
pub(super) async fn decode(routed: &Routed, body: Body) -> Result<admit::Body, Status> {
    let encoding = Encoding::of_body(&routed.cx.headers)?;
    let bytes = body::read(body, REQUEST_BODY_BYTES_MAX).await?;
    codec::decode(encoding, &routed.cx.registry, &bytes)
}

async fn patch_request(routed: &Routed, body: Body) -> Result<(Accept, WriteVerb, Options), Status> {
    let accept = Accept::of(&routed.cx.headers)?;
    let kind = PatchBody::of_body(&routed.cx.headers, routed.kind.custom)?;
    let apply = kind == PatchBody::Apply;
    let options = options(routed, "PatchOptions", apply)?;
    let force = routed.cx.query.flag("force");
    let bytes = body::read(body, REQUEST_BODY_BYTES_MAX).await?;
    let (patch, encoding) = match kind {
        PatchBody::Json => (PatchType::Json, Encoding::Json),
        PatchBody::Merge => (PatchType::Merge, Encoding::Json),
        PatchBody::Strategic => (PatchType::Strategic, Encoding::Json),
        PatchBody::Apply => (PatchType::Apply { force }, Encoding::Yaml),
    };
    let body = codec::decode(encoding, &routed.cx.registry, &bytes)?;
    if patch != PatchType::Json && !body.tree.is_object() {
        return Err(Status::bad_request("error decoding patch: the patch must be an object"));
    }
    Ok((accept, WriteVerb::Patch { patch, body }, options))
}

/// Runs the write of a routed request.
pub(super) async fn write(
    routed: &Routed,
    subresource: Option<Subresource>,
    verb: WriteVerb,
    options: Options,
) -> Result<Written, Status> {
    let request = Request {
        kind: routed.kind.clone(),
        subresource,
        namespace: routed.target.object_namespace().into(),
        name: routed.target.name.clone(),
        verb,
        options,
    };
    perform(&routed.cx.shared, &routed.cx.registry, Identified { user: routed.cx.user.clone(), request }).await
}

/// Admits over fresh state and commits; again, a few times, where somebody else was faster.
pub(crate) async fn perform(
    shared: &Arc<Shared>,
    registry: &api::Registry,
    identified: Identified<Request>,
) -> Result<Written, Status> {
    let request = &identified.request;
    let place = admit::Place {
        storage: request.kind.storage.clone(),
        key: api::Key { namespace: request.namespace.clone(), name: request.name.clone() },
    };
    let ports = Ports {
        reader: &shared.reader,
        registry,
        clock: shared.deps.clock.as_ref(),
        rng: shared.deps.rng.as_ref(),
        config: &shared.deps.config.admit,
        hooks: shared.deps.hooks.as_ref(),
    };
    await_account(shared, request).await;
    let mut fresh = false;
    for _ in 0..=CONFLICT_RETRIES_MAX {
        let seen = shared.deps.store.revision();
        let current = if request.name.is_empty() { None } else { shared.reader.get(&place) };
        // Boxed: the stages' state is large, and this future is part of every handler's.
        let admitting: BoxFuture<'_, Result<Outcome, Status>> =
            Box::pin(admit::admit(&identified, current.as_ref(), &ports));
        let Outcome { admitted, object, created, deleted, warnings } = match admitting.await {
            Ok(outcome) if outcome.admitted.is_some() => outcome,
            // A commit finds out whether what it was computed from still holds; for this, somebody must ask.
            _ if !fresh && is_behind(shared, seen).await? => {
                fresh = true;
                continue;
            }
            uncommitted => uncommitted?,
        };
        let Some(admitted) = admitted else {
            return Ok(Written { object: None, tree: object, created, deleted, warnings, revision: None });
        };
        let at = admitted.batch().changes.iter().position(|change| is_main(change, &place, &object));
        match shared.deps.store.commit(admitted).await {
            Ok(committed) => {
                let stored = at.and_then(|at| committed.objects.into_iter().nth(at).flatten());
                let revision = Some(committed.revision);
                return Ok(Written { object: stored, tree: object, created, deleted, warnings, revision });
            }
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(refused(&error)),
        }
    }
    let (kind, name) = (&request.kind, request.name.as_str());
    let why = "the object has been modified; please apply your changes to the latest version and try again";
    Err(Status::conflict(&kind.gvk.group, &kind.resource, name, why))
}

/// Whether another server wrote something that had not arrived here when this server stood at `seen`. It has now.
async fn is_behind(shared: &Shared, seen: base::Revision) -> Result<bool, Status> {
    let newest = shared.deps.store.read_barrier().await.map_err(|error| unavailable(&error))?;
    Ok(seen < newest)
}

/// Waits a little for the service account that a controller is about to make in the namespace of a new pod.
async fn await_account(shared: &Shared, request: &Request) {
    let Some(account) = admit::awaited_account(request) else { return };
    let namespace =
        admit::Place { storage: admit::storage_of("", "namespaces"), key: api::Key::cluster(&request.namespace) };
    let missing = || shared.reader.get(&account).is_none() && shared.reader.get(&namespace).is_some();
    let store = &shared.deps.store;
    if !missing() {
        return;
    }
    let Ok(mut watch) = store.watch(&account.storage, store.revision()) else { return };
    let arrives = async { while missing() && watch.next().await.is_ok() {} };
    // Without it admission says what is missing.
    let _ = tokio::time::timeout(ACCOUNT_WAIT, arrives).await;
}

/// The change that holds the object of the request, among claims and guards.
fn is_main(change: &admit::Change, place: &admit::Place, object: &Tree) -> bool {
    let name = match place.key.name.as_str() {
        "" => object["metadata"]["name"].as_str().unwrap_or_default(),
        name => name,
    };
    change.place.storage == place.storage
        && change.place.key.namespace == place.key.namespace
        && change.place.key.name == name
}

fn refused(error: &CommitError) -> Status {
    let retry = |reason: Reason, text: &str| {
        let mut status = Status::new(reason, text);
        status.details.get_or_insert_default().retry_after_seconds = 1;
        status
    };
    match error {
        CommitError::Conflict { .. } => Status::new(Reason::Conflict, "the object has been modified"),
        CommitError::Full => retry(Reason::ServiceUnavailable, "the server's disk is full: nothing was written"),
        CommitError::TooLarge { bytes, limit } => {
            let message = format!("Request is too large: {bytes} bytes stored, limit is {limit}");
            Status::new(Reason::RequestEntityTooLarge, message)
        }
        CommitError::Unavailable(_) | CommitError::Closed => {
            tracing::warn!(error = %base::Chain(error), "commit");
            retry(Reason::ServiceUnavailable, "the store is not available: nothing was written")
        }
        CommitError::Unknown(_) => {
            tracing::warn!(error = %base::Chain(error), "commit");
            Status::new(Reason::Timeout, "the write was not acknowledged in time: it may or may not have happened")
        }
        CommitError::Malformed { .. } => Status::internal("admission made a document without metadata"),
    }
}

/// The new object in the form that was negotiated.
pub(super) fn answer(routed: &Routed, accept: Accept, written: Written) -> Result<Response<Body>, Status> {
    let renderer = Renderer::new(routed, accept)?;
    let bytes = match &written.object {
        Some(object) => renderer.document(object)?,
        None => renderer.tree(api::convert::convert(written.tree, &routed.kind))?,
    };
    // An update or apply may create: 201 as well.
    let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = answer::document(code, renderer.media_type(), bytes);
    answer::warn(&mut response, &written.warnings);
    Ok(response)
}

/// The answer of a subresource: the parent for `status` and its like, a body of its own kind for `scale`, a `Status` for
/// `binding` and `eviction`.
fn answer_below(
    routed: &Routed,
    sub: &Subresource,
    accept: Accept,
    mut written: Written,
    success: StatusCode,
) -> Result<Response<Body>, Status> {
    if sub.gvk == routed.kind.gvk {
        written.created = false;
        return answer(routed, accept, written);
    }
    let (mut tree, warnings) = (written.tree, written.warnings);
    let is_status = tree["kind"] == "Status";
    if !is_status && let Some(revision) = written.revision {
        tree["metadata"]["resourceVersion"] = serde_json::json!(revision.to_string());
    }
    let mut response = if is_status {
        answer::status_document(&tree, success, accept.encoding)
    } else {
        let bytes = codec::encode_gvk(accept.encoding, &sub.gvk, &tree)?;
        answer::document(StatusCode::OK, accept.encoding.media_type(), bytes)
    };
    answer::warn(&mut response, &warnings);
    Ok(response)
}
