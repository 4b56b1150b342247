//! What a CRI verb can answer instead of success, sorted by what the caller does about it.

use std::time::Duration;

use tonic::{Code, Status};

/// A verb that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// The sandbox, container or image is not there. For stop and remove that is success.
    #[error("{verb}: not found: {message}")]
    NotFound { verb: &'static str, message: String },
    /// A container or sandbox of this name and attempt exists (or its name is still reserved).
    #[error("{verb}: already exists: {message}")]
    Exists { verb: &'static str, message: String },
    /// The runtime does not know the verb.
    #[error("{verb}: not offered by this runtime: {message}")]
    Unsupported { verb: &'static str, message: String },
    /// No connection, or the runtime is starting. The outcome of a change is unknown: look before trying again.
    #[error("{verb}: runtime unavailable: {message}")]
    Unavailable { verb: &'static str, message: String },
    /// No answer in time. The outcome of a change is unknown: look before trying again.
    #[error("{verb}: no answer within {limit:?}")]
    Timeout { verb: &'static str, limit: Duration },
    /// Everything else the runtime says.
    #[error("{verb}: {code:?}: {message}")]
    Failed { verb: &'static str, code: Code, message: String },
    /// An answer that lacks what CRI promises.
    #[error("{verb}: answer without {field}")]
    Incomplete { verb: &'static str, field: &'static str },
}

// === impl CriError ===

impl CriError {
    pub(super) fn new(verb: &'static str, status: Status) -> CriError {
        let message = text(&status);
        match status.code() {
            Code::NotFound => CriError::NotFound { verb, message },
            Code::AlreadyExists => CriError::Exists { verb, message },
            Code::Unimplemented => CriError::Unsupported { verb, message },
            Code::Unavailable => CriError::Unavailable { verb, message },
            code => CriError::Failed { verb, code, message },
        }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, CriError::NotFound { .. })
    }

    /// True where the same request may succeed later without anything else changing.
    pub fn retryable(&self) -> bool {
        match self {
            CriError::Unavailable { .. } | CriError::Timeout { .. } => true,
            CriError::Failed { code, .. } => {
                matches!(code, Code::Unknown | Code::Internal | Code::DeadlineExceeded | Code::ResourceExhausted)
            }
            CriError::Exists { .. } => true,
            CriError::NotFound { .. } | CriError::Unsupported { .. } | CriError::Incomplete { .. } => false,
        }
    }

    /// What the runtime said, without the verb: for events and container statuses.
    pub fn message(&self) -> String {
        match self {
            CriError::NotFound { message, .. }
            | CriError::Exists { message, .. }
            | CriError::Unsupported { message, .. }
            | CriError::Unavailable { message, .. }
            | CriError::Failed { message, .. } => message.clone(),
            CriError::Timeout { .. } | CriError::Incomplete { .. } => self.to_string(),
        }
    }
}

/// A transport failure hides its cause in `source`; the runtime's own answers have a message.
fn text(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::CriError;
    use tonic::Status;

    #[test]
    fn codes_sort_into_what_the_caller_does() {
        let gone = CriError::new("stop", Status::not_found("sandbox x"));
        assert!(gone.is_not_found() && !gone.retryable());
        assert_eq!(gone.to_string(), "stop: not found: sandbox x");
        assert!(CriError::new("run", Status::unavailable("dial")).retryable());
        assert!(!CriError::new("events", Status::unimplemented("")).retryable());
    }
}
