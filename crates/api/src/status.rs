//! `Status`: the one error shape of the API (`meta/v1 Status`), with upstream's reasons, codes and details.

use std::fmt;

use serde_json::json;

use crate::Tree;

/// An answer that is not the object asked for. Made where the error is known, served as is.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    pub code: u16,
    pub reason: Reason,
    pub message: String,
    pub details: Option<Box<Details>>,
}

/// What the error is about (`StatusDetails`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    pub name: String,
    pub group: String,
    /// Upstream puts the resource (plural) here for most errors, the kind for `Invalid`.
    pub kind: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    pub retry_after_seconds: u32,
}

/// One thing wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldValueRequired`, `FieldValueDuplicate`, ...
    pub reason: String,
    pub message: String,
    /// `spec.containers[0].name`.
    pub field: String,
}

/// Machine-readable reasons of `metav1.StatusReason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

// === impl Status ===

impl Status {
    pub fn new(reason: Reason, message: impl Into<String>) -> Status {
        Status { code: reason.code(), reason, message: message.into(), details: None }
    }

    /// `resource` is `pods` or `deployments.apps` in the message, as `Kind::qualified_resource` gives it.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Status {
        let what = qualified(group, resource);
        Status::new(Reason::NotFound, format!("{what} {name:?} not found")).about(group, resource, name)
    }

    pub fn already_exists(group: &str, resource: &str, name: &str) -> Status {
        let what = qualified(group, resource);
        Status::new(Reason::AlreadyExists, format!("{what} {name:?} already exists")).about(group, resource, name)
    }

    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Status {
        let what = qualified(group, resource);
        let message = format!("Operation cannot be fulfilled on {what} {name:?}: {why}");
        Status::new(Reason::Conflict, message).about(group, resource, name)
    }

    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Status {
        let what = qualified(group, resource);
        let message = match name {
            "" => format!("{what} is forbidden: {why}"),
            name => format!("{what} {name:?} is forbidden: {why}"),
        };
        Status::new(Reason::Forbidden, message).about(group, resource, name)
    }

    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::new(Reason::BadRequest, message)
    }

    pub fn internal(message: impl Into<String>) -> Status {
        Status::new(Reason::InternalError, format!("Internal error occurred: {}", message.into()))
    }

    /// 422 with one cause per field error (`apierrors.NewInvalid`).
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Status {
        let what = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let lines: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let list = if let [only] = lines.as_slice() { only.clone() } else { format!("[{}]", lines.join(", ")) };
        let mut status = Status::new(Reason::Invalid, format!("{what} {name:?} is invalid: {list}"));
        status = status.about(group, kind, name);
        status.details.get_or_insert_default().causes = causes;
        status
    }

    #[must_use]
    pub fn about(mut self, group: &str, kind: &str, name: &str) -> Status {
        let details = self.details.get_or_insert_default();
        details.group = group.to_owned();
        details.kind = kind.to_owned();
        details.name = name.to_owned();
        self
    }

    /// The `Status` object as served.
    pub fn to_tree(&self) -> Tree {
        let mut tree = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if self.reason != Reason::Unknown {
            tree["reason"] = json!(self.reason.as_str());
        }
        if let Some(details) = &self.details {
            tree["details"] = details.to_tree();
        }
        tree
    }
}

impl Details {
    fn to_tree(&self) -> Tree {
        let mut tree = serde_json::Map::new();
        for (key, text) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !text.is_empty() {
                tree.insert(key.into(), json!(text));
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter();
            let causes = causes.map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}));
            tree.insert("causes".into(), causes.collect());
        }
        if self.retry_after_seconds != 0 {
            tree.insert("retryAfterSeconds".into(), json!(self.retry_after_seconds));
        }
        Tree::Object(tree)
    }
}

impl Reason {
    pub fn code(self) -> u16 {
        match self {
            Reason::BadRequest => 400,
            Reason::Unauthorized => 401,
            Reason::Forbidden => 403,
            Reason::NotFound => 404,
            Reason::MethodNotAllowed => 405,
            Reason::NotAcceptable => 406,
            Reason::AlreadyExists | Reason::Conflict => 409,
            Reason::Gone | Reason::Expired => 410,
            Reason::RequestEntityTooLarge => 413,
            Reason::UnsupportedMediaType => 415,
            Reason::Invalid => 422,
            Reason::TooManyRequests => 429,
            Reason::Unknown | Reason::InternalError | Reason::ServerTimeout => 500,
            Reason::ServiceUnavailable => 503,
            Reason::Timeout => 504,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Unknown => "",
            Reason::Unauthorized => "Unauthorized",
            Reason::Forbidden => "Forbidden",
            Reason::NotFound => "NotFound",
            Reason::AlreadyExists => "AlreadyExists",
            Reason::Conflict => "Conflict",
            Reason::Gone => "Gone",
            Reason::Invalid => "Invalid",
            Reason::ServerTimeout => "ServerTimeout",
            Reason::Timeout => "Timeout",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::BadRequest => "BadRequest",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::NotAcceptable => "NotAcceptable",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
            Reason::InternalError => "InternalError",
            Reason::Expired => "Expired",
            Reason::ServiceUnavailable => "ServiceUnavailable",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}
