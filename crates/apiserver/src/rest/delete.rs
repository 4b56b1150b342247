//! DELETE of one object, and the options every deletion shares.

use admit::{Options, WriteVerb};
use api::{Preconditions, Propagation, Status, Term, Tree};
use base::limits::REQUEST_BODY_BYTES_MAX;
use http::{Response, StatusCode};

use crate::answer;
use crate::body::{self, Body};
use crate::codec;
use crate::context::Routed;
use crate::media::{Accept, Encoding};
use crate::query::{self, Query};
use crate::rest::render::Renderer;
use crate::rest::write::{self, Written};

/// `DeleteOptions`, from the body or, without one, from the query.
#[derive(Clone, Debug, Default)]
pub(super) struct DeleteOptions {
    pub dry_run: bool,
    pub when: Preconditions,
    pub propagation: Option<Propagation>,
    pub grace_seconds: Option<i64>,
    /// The deprecated `orphanDependents: false`, which turns the answer into 202.
    pub cascading: bool,
    /// From the head of the request.
    pub term: Option<Term>,
}

pub(super) async fn delete(routed: Routed, body: Body) -> Result<Response<Body>, Status> {
    let accept = Accept::of(&routed.cx.headers)?;
    let wish = options(&routed, body).await?;
    let cascading = wish.cascading;
    let (verb, options) = wish.into_verb(&routed);
    let written = write::write(&routed, None, verb, options).await?;
    respond(&routed, accept, written, cascading)
}

fn respond(routed: &Routed, accept: Accept, written: Written, cascading: bool) -> Result<Response<Body>, Status> {
    let code = if cascading && !written.deleted { StatusCode::ACCEPTED } else { StatusCode::OK };
    let mut tree = written.tree;
    let mut response = if tree["kind"] == "Status" && tree["metadata"]["uid"].is_null() {
        answer::status_document(&tree, code, accept.encoding)
    } else {
        let renderer = Renderer::new(routed, accept)?;
        let bytes = match &written.object {
            Some(object) => renderer.document(object)?,
            None => {
                if let Some(revision) = written.revision {
                    tree["metadata"]["resourceVersion"] = serde_json::json!(revision.to_string());
                }
                renderer.tree(api::convert::convert(tree, &routed.kind))?
            }
        };
        answer::document(code, renderer.media_type(), bytes)
    };
    answer::warn(&mut response, &written.warnings);
    Ok(response)
}

/// Reads the options of a deletion.
pub(super) async fn options(routed: &Routed, body: Body) -> Result<DeleteOptions, Status> {
    let encoding = Encoding::of_body(&routed.cx.headers);
    let bytes = body::read(body, REQUEST_BODY_BYTES_MAX).await?;
    let term = write::term(routed)?;
    if bytes.is_empty() {
        return Ok(DeleteOptions { term, ..DeleteOptions::of_query(&routed.cx.query)? });
    }
    let body = codec::decode_options(encoding?, &routed.cx.registry, &bytes)?;
    let kind = body["kind"].as_str().unwrap_or("DeleteOptions");
    if kind != "DeleteOptions" {
        return Err(Status::bad_request(format!("decoded object cannot be converted to DeleteOptions: it is {kind}")));
    }
    Ok(DeleteOptions { term, ..DeleteOptions::of_body(&body)? })
}

impl DeleteOptions {
    fn of_query(query: &Query) -> Result<DeleteOptions, Status> {
        let orphan = query.flag_if_given("orphanDependents");
        let word = query.filled("propagationPolicy");
        Ok(DeleteOptions {
            dry_run: query::dry_run(query.all("dryRun"), "DeleteOptions")?,
            when: Preconditions::default(),
            propagation: chosen(word.map(query::propagation).transpose()?, orphan)?,
            grace_seconds: query.integer("gracePeriodSeconds")?,
            cascading: orphan == Some(false),
            term: None,
        })
    }

    fn of_body(body: &Tree) -> Result<DeleteOptions, Status> {
        let orphan = body["orphanDependents"].as_bool();
        let word = body["propagationPolicy"].as_str().filter(|word| !word.is_empty());
        let dry_run = body["dryRun"].as_array().into_iter().flatten().filter_map(Tree::as_str);
        let when = &body["preconditions"];
        let revision = when["resourceVersion"].as_str().filter(|text| !text.is_empty());
        let revision = revision.map(str::parse::<base::Revision>).transpose();
        Ok(DeleteOptions {
            dry_run: query::dry_run(dry_run, "DeleteOptions")?,
            when: Preconditions {
                uid: when["uid"].as_str().filter(|uid| !uid.is_empty()).map(Into::into),
                revision: revision.map_err(|error| Status::bad_request(error.to_string()))?,
            },
            propagation: chosen(word.map(query::propagation).transpose()?, orphan)?,
            grace_seconds: body["gracePeriodSeconds"].as_i64(),
            cascading: orphan == Some(false),
            term: None,
        })
    }

    pub fn into_verb(self, routed: &Routed) -> (WriteVerb, Options) {
        let DeleteOptions { dry_run, when, propagation, grace_seconds, term, cascading: _ } = self;
        let user_agent = routed.cx.user_agent().into();
        let options = Options { dry_run, user_agent, term, ..Options::default() };
        (WriteVerb::Delete { when, propagation, grace_seconds }, options)
    }
}

fn chosen(propagation: Option<Propagation>, orphan: Option<bool>) -> Result<Option<Propagation>, Status> {
    match (propagation, orphan) {
        (Some(_), Some(_)) => {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            Err(query::invalid_options("DeleteOptions", "Invalid value", "propagationPolicy", why))
        }
        (None, Some(true)) => Ok(Some(Propagation::Orphan)),
        (None, Some(false)) => Ok(Some(Propagation::Background)),
        (propagation, None) => Ok(propagation),
    }
}
