//! LIST: a consistent page of served bytes, or of whatever was negotiated.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;

use api::{Object, Reason, Status};
use base::{Revision, SmolStr};
use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Response, StatusCode};
use store::{ListQuery, Page};

use crate::answer;
use crate::body::{self, Body};
use crate::context::Routed;
use crate::limits::{GZIP_BYTES_MIN, LIST_FRAME_BYTES};
use crate::media::Accept;
use crate::query::ListOptions;
use crate::rest::fields;
use crate::rest::page::{Token, expired};
use crate::rest::read::fresh_enough;
use crate::rest::render::{ListMeta, Renderer};

pub(super) async fn list(routed: &Routed) -> Result<Response<Body>, Status> {
    let accept = Accept::of(&routed.cx.headers)?;
    let renderer = Renderer::new(routed, accept)?;
    let options = ListOptions::parse(&routed.cx.query, false)?;
    fields::check(&options.fields, &routed.kind)?;
    let (meta, objects) = select(routed, &options).await?;
    respond(routed, &renderer, &meta, objects)
}

/// A list in the negotiated form.
pub(super) fn respond(
    routed: &Routed,
    renderer: &Renderer,
    meta: &ListMeta,
    objects: Vec<Arc<Object>>,
) -> Result<Response<Body>, Status> {
    if renderer.is_plain() {
        return Ok(plain(renderer.list_head(meta), objects, answer::accepts_gzip(&routed.cx.headers)));
    }
    let bytes = renderer.list(meta, &objects)?;
    Ok(answer::large(renderer.media_type(), bytes, &routed.cx.headers))
}

/// The page that the options ask for.
pub(super) async fn select(routed: &Routed, options: &ListOptions) -> Result<(ListMeta, Vec<Arc<Object>>), Status> {
    let token = if options.token.is_empty() { None } else { Some(Token::decode(&options.token)?) };
    if token.is_some() && options.version.is_some_and(|version| version != Revision::ZERO) {
        return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
    }
    let wanted = if token.is_some() { Some(Revision::ZERO) } else { options.version };
    fresh_enough(routed, wanted).await?;
    let page = page(routed, options, token.as_ref())?;
    let more = page.more.then(|| page.objects.last()).flatten();
    let token = more.map(|last| Token { revision: Some(page.revision), after: last.key.clone() }.encode());
    let meta = ListMeta {
        revision: page.revision,
        remaining: if token.is_some() { page.remaining.filter(|remaining| *remaining > 0) } else { None },
        token: token.unwrap_or_default(),
    };
    Ok((meta, page.objects))
}

fn page(routed: &Routed, options: &ListOptions, token: Option<&Token>) -> Result<Page, Status> {
    let name = routed.target.name.as_str();
    let filter = |object: &Object| {
        (name.is_empty() || object.key.name == name)
            && options.labels.matches(&object.header.labels)
            && fields::matches(&options.fields, object)
    };
    let filtered = !name.is_empty() || !options.labels.is_empty() || !options.fields.terms.is_empty();
    let namespace = routed.target.object_namespace();
    let query = ListQuery {
        namespace: (!namespace.is_empty()).then(|| SmolStr::new(namespace)),
        after: token.map(|token| token.after.clone()),
        at: match token {
            Some(token) => token.revision,
            None => options.version.filter(|_| options.exact),
        },
        limit: options.limit,
        accept: filtered.then_some(&filter),
    };
    let listed = routed.cx.shared.deps.store.list(&routed.kind.storage, &query);
    listed.map_err(|gone| match token {
        Some(token) => expired(token),
        None => {
            let wanted = options.version.unwrap_or_default();
            Status::new(
                Reason::Expired,
                format!("The resourceVersion for the provided list is too old: {wanted} ({})", gone.oldest),
            )
        }
    })
}

/// Served bytes between head and tail, made frame by frame as the client takes them.
fn plain(head: Bytes, objects: Vec<Arc<Object>>, gzip: bool) -> Response<Body> {
    let commas = objects.len().saturating_sub(1);
    let size = head.len() + objects.iter().map(|object| object.bytes.len()).sum::<usize>() + commas + TAIL.len();
    let frames = Frames { head: Some(head), objects: objects.into(), first: true, done: false };
    if gzip && size >= GZIP_BYTES_MIN {
        let body = stream::unfold((frames, Some(GzEncoder::new(Vec::new(), Compression::fast()))), compressed);
        let mut response = Response::new(body::stream(body));
        answer::mark_gzip(&mut response);
        return with_json_headers(response);
    }
    let frames = stream::unfold(frames, |mut frames| async move { frames.next().map(|frame| (Ok(frame), frames)) });
    let mut response = Response::new(body::stream(frames));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(size));
    with_json_headers(response)
}

fn with_json_headers(mut response: Response<Body>) -> Response<Body> {
    let template = answer::document(StatusCode::OK, crate::media::JSON, Bytes::new());
    for (name, value) in template.headers() {
        response.headers_mut().insert(name.clone(), value.clone());
    }
    response
}

const TAIL: &[u8] = b"]}\n";

/// The frames of a plain list.
struct Frames {
    head: Option<Bytes>,
    objects: VecDeque<Arc<Object>>,
    first: bool,
    done: bool,
}

impl Frames {
    fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut frame = BytesMut::with_capacity(LIST_FRAME_BYTES + 4096);
        if let Some(head) = self.head.take() {
            frame.extend_from_slice(&head);
        }
        while frame.len() < LIST_FRAME_BYTES {
            let Some(object) = self.objects.pop_front() else {
                frame.extend_from_slice(TAIL);
                self.done = true;
                break;
            };
            if !self.first {
                frame.extend_from_slice(b",");
            }
            self.first = false;
            frame.extend_from_slice(&object.bytes);
        }
        Some(frame.freeze())
    }
}

type Compressed = (Frames, Option<GzEncoder<Vec<u8>>>);

async fn compressed((mut frames, encoder): Compressed) -> Option<(Result<Bytes, body::BoxError>, Compressed)> {
    let mut encoder = encoder?;
    loop {
        let Some(frame) = frames.next() else {
            let last = encoder.finish().map(Bytes::from).map_err(Into::into);
            return Some((last, (frames, None)));
        };
        if let Err(error) = encoder.write_all(&frame) {
            return Some((Err(error.into()), (frames, None)));
        }
        if encoder.get_ref().len() >= LIST_FRAME_BYTES / 4 {
            let ready = Bytes::from(std::mem::take(encoder.get_mut()));
            return Some((Ok(ready), (frames, Some(encoder))));
        }
    }
}
