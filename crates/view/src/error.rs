//! What can go wrong between a loop and the API.

use std::time::Duration;

use api::status::Details;
use api::term::TERM_OVER;
use api::{Cause, Reason, Status, Tree};

use crate::BoxError;

/// A request that did not give what it was sent for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The API answered with an error of its own.
    #[error(transparent)]
    Status(Status),
    /// The connection failed. Whether the request took effect is unknown.
    #[error("reach the API server")]
    Transport {
        #[source]
        source: BoxError,
    },
    #[error("no answer from the API server within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    #[error("decode the API server's answer")]
    Decode {
        #[source]
        source: BoxError,
    },
    #[error("the API server's answer is larger than {limit} bytes")]
    TooLarge { limit: usize },
}

const REASONS: [Reason; 18] = [
    Reason::Unauthorized,
    Reason::Forbidden,
    Reason::NotFound,
    Reason::AlreadyExists,
    Reason::Conflict,
    Reason::Gone,
    Reason::Invalid,
    Reason::ServerTimeout,
    Reason::Timeout,
    Reason::TooManyRequests,
    Reason::BadRequest,
    Reason::MethodNotAllowed,
    Reason::NotAcceptable,
    Reason::RequestEntityTooLarge,
    Reason::UnsupportedMediaType,
    Reason::InternalError,
    Reason::Expired,
    Reason::ServiceUnavailable,
];

// === impl ClientError ===

impl ClientError {
    pub fn transport(source: impl Into<BoxError>) -> ClientError {
        ClientError::Transport { source: source.into() }
    }

    pub fn decode(source: impl Into<BoxError>) -> ClientError {
        ClientError::Decode { source: source.into() }
    }

    /// True where the same request may succeed later without anything else changing.
    pub fn retryable(&self) -> bool {
        match self {
            ClientError::Transport { .. } | ClientError::Timeout(_) => true,
            ClientError::Decode { .. } | ClientError::TooLarge { .. } => false,
            ClientError::Status(status) => match status.reason {
                Reason::TooManyRequests
                | Reason::ServerTimeout
                | Reason::Timeout
                | Reason::InternalError
                | Reason::ServiceUnavailable
                | Reason::Unknown => true,
                Reason::Unauthorized
                | Reason::Forbidden
                | Reason::NotFound
                | Reason::AlreadyExists
                | Reason::Conflict
                | Reason::Gone
                | Reason::Expired
                | Reason::Invalid
                | Reason::BadRequest
                | Reason::MethodNotAllowed
                | Reason::NotAcceptable
                | Reason::RequestEntityTooLarge
                | Reason::UnsupportedMediaType => false,
            },
        }
    }

    /// The API's reason, where it was the API that answered.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            ClientError::Status(status) => Some(status.reason),
            ClientError::Transport { .. }
            | ClientError::Timeout(_)
            | ClientError::Decode { .. }
            | ClientError::TooLarge { .. } => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.reason() == Some(Reason::NotFound)
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason() == Some(Reason::AlreadyExists)
    }

    pub fn is_conflict(&self) -> bool {
        self.reason() == Some(Reason::Conflict)
    }

    /// Whether what was asked for happened is not known, and it may still happen.
    pub fn is_open(&self) -> bool {
        match self {
            ClientError::Transport { .. }
            | ClientError::Timeout(_)
            | ClientError::Decode { .. }
            | ClientError::TooLarge { .. } => true,
            ClientError::Status(status) => status.reason == Reason::Timeout,
        }
    }

    /// The write did not happen: the term in which it was decided is over.
    pub fn is_term_over(&self) -> bool {
        self.has_cause(TERM_OVER)
    }

    /// Nothing can be made any more in the namespace: what was to be made is not needed.
    pub fn is_namespace_terminating(&self) -> bool {
        self.has_cause("NamespaceTerminating")
    }

    fn has_cause(&self, reason: &str) -> bool {
        let ClientError::Status(status) = self else { return false };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        causes.into_iter().any(|cause| cause.reason == reason)
    }

    /// How long the API asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            ClientError::Status(Status { details: Some(details), .. }) if details.retry_after_seconds > 0 => {
                Some(Duration::from_secs(details.retry_after_seconds.into()))
            }
            _ => None,
        }
    }
}

/// Reads a `Status` object; a body that is none becomes an error of the HTTP code with the body as message.
pub(crate) fn status_of(code: u16, body: &[u8]) -> Status {
    let tree: Tree = serde_json::from_slice(body).unwrap_or_default();
    if tree.get("kind").and_then(Tree::as_str) != Some("Status") {
        let message = String::from_utf8_lossy(&body[..body.len().min(512)]).trim().to_owned();
        let reason = REASONS.into_iter().find(|reason| reason.code() == code).unwrap_or(Reason::Unknown);
        let message = if message.is_empty() { format!("HTTP status {code}") } else { message };
        return Status { code, reason, message, details: None };
    }
    status_of_tree(code, &tree)
}

pub(crate) fn status_of_tree(code: u16, tree: &Tree) -> Status {
    let text = |tree: &Tree, name: &str| tree.get(name).and_then(Tree::as_str).unwrap_or_default().to_owned();
    let word = text(tree, "reason");
    let reason = REASONS.into_iter().find(|reason| reason.as_str() == word).unwrap_or(Reason::Unknown);
    let code = tree.get("code").and_then(Tree::as_u64).and_then(|code| u16::try_from(code).ok()).unwrap_or(code);
    let details = tree.get("details").map(|details| {
        Box::new(Details {
            name: text(details, "name"),
            group: text(details, "group"),
            kind: text(details, "kind"),
            uid: text(details, "uid"),
            causes: details.get("causes").and_then(Tree::as_array).into_iter().flatten().map(cause_of).collect(),
            retry_after_seconds: details
                .get("retryAfterSeconds")
                .and_then(Tree::as_u64)
                .and_then(|seconds| u32::try_from(seconds).ok())
                .unwrap_or_default(),
        })
    });
    Status { code, reason, message: text(tree, "message"), details }
}

fn cause_of(tree: &Tree) -> Cause {
    let text = |name: &str| tree.get(name).and_then(Tree::as_str).unwrap_or_default().to_owned();
    Cause { reason: text("reason"), message: text("message"), field: text("field") }
}

#[cfg(test)]
mod tests {
    use super::{ClientError, status_of};
    use api::{Reason, Status};

    #[test]
    fn a_status_survives_the_wire() {
        let status = Status::not_found("apps", "deployments", "web");
        let body = status.to_tree().to_string();
        assert_eq!(status_of(404, body.as_bytes()), status);
    }

    #[test]
    fn a_body_that_is_no_status_keeps_its_code() {
        let status = status_of(503, b"upstream down\n");
        assert_eq!(
            (status.code, status.reason, status.message.as_str()),
            (503, Reason::ServiceUnavailable, "upstream down")
        );
        assert!(ClientError::Status(status).retryable());
    }
}
