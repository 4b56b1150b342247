//! GET of a subresource: the parent itself, or its `Scale`.

use api::{Status, Subresource};
use http::{Response, StatusCode};

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
    let object = api::convert::convert(object.tree(), &routed.kind);
    let scale = admit::scale_of(&routed.kind, &object, &routed.cx.shared.reader).ok_or_else(|| routed.not_found())?;
    let bytes = codec::encode_gvk(accept.encoding, &sub.gvk, &scale)?;
    Ok(answer::document(StatusCode::OK, accept.encoding.media_type(), bytes))
}
