//! What a request's body still holds when its answer is ready.
//!
//! A request that is refused by its head alone (not allowed, an unknown media type) leaves its body unread. HTTP/1.1 can
//! go on only after it; without that the connection ends after the answer, and a client that already sends its next
//! request gets no answer at all.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::header::{CONNECTION, EXPECT, HeaderValue};
use http::{Request, Response, Version};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::body::{Body, BoxError};
use crate::limits::{UNREAD_BODY_BYTES_MAX, UNREAD_BODY_TIMEOUT};

type Slot = Arc<Mutex<Option<Incoming>>>;

/// The body of a request while its handler has it; comes back when it is dropped.
struct Lent {
    body: Option<Incoming>,
    slot: Slot,
}

/// Takes back what the handler did not read.
pub(crate) struct Rest {
    slot: Slot,
    /// The client waits for a word before it sends the body.
    expects: bool,
    version: Version,
}

/// Hands a request's body to its handler for as long as that wants it.
pub(crate) fn lend(request: Request<Incoming>) -> (Request<Body>, Rest) {
    let slot = Slot::default();
    let rest = Rest { slot: slot.clone(), expects: request.headers().contains_key(EXPECT), version: request.version() };
    (request.map(|body| Lent { body: Some(body), slot }.boxed_unsync()), rest)
}

// === impl Rest ===

impl Rest {
    /// Reads the rest before the answer goes out or, if that is too much, announces the connection's end.
    pub(crate) async fn settle(self, response: &mut Response<Body>) {
        let rest = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A stream of HTTP/2 ends alone. A handler that still holds its body reads it.
        let Some(rest) = rest.filter(|rest| self.version < Version::HTTP_2 && !rest.is_end_stream()) else { return };
        let read = !self.expects && tokio::time::timeout(UNREAD_BODY_TIMEOUT, discard(rest)).await.unwrap_or_default();
        if !read {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Whether the end came within [`UNREAD_BODY_BYTES_MAX`].
async fn discard(mut rest: Incoming) -> bool {
    let mut bytes = 0;
    while let Some(frame) = rest.frame().await {
        let Ok(frame) = frame else { return false };
        bytes += frame.data_ref().map_or(0, Buf::remaining);
        if bytes > UNREAD_BODY_BYTES_MAX {
            return false;
        }
    }
    true
}

// === impl Lent ===

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Incoming::size_hint).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
    }
}
