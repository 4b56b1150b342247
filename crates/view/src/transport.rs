//! How a request reaches an API server: the port that HTTPS, the in-process server and test scripts implement.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

use crate::ClientError;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A response body as it arrives, frame by frame: a watch never ends by itself.
pub type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// Carries one request under one identity. The transport adds scheme and authority; paths are absolute.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Returns once the response's head is there. Any HTTP status is an `Ok`.
    async fn call(&self, request: http::Request<Bytes>) -> Result<http::Response<ResponseBody>, ClientError>;
}

/// A body that is whole already.
pub fn full_body(bytes: impl Into<Bytes>) -> ResponseBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Reads a body that ends, up to `limit` bytes.
pub async fn read_body(mut body: ResponseBody, limit: usize) -> Result<Bytes, ClientError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(ClientError::transport)?;
        if let Ok(data) = frame.into_data() {
            if whole.len() + data.len() > limit {
                return Err(ClientError::TooLarge { limit });
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}
