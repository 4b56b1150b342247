//! One request as the handlers see it: routed, from someone known, allowed.

use std::net::SocketAddr;
use std::sync::Arc;

use admit::User;
use api::kind::KindRef;
use api::{Reason, Registry, Status};
use http::HeaderMap;
use hyper::upgrade::OnUpgrade;

use crate::query::Query;
use crate::server::Shared;
use crate::target::{Resource, Target};

/// The head of a request and what the pipeline learnt about it.
pub(crate) struct Context {
    pub shared: Arc<Shared>,
    /// The kinds as they were when the request came in.
    pub registry: Arc<Registry>,
    pub method: http::Method,
    pub uri: http::Uri,
    pub headers: HeaderMap,
    pub target: Target,
    pub query: Query,
    /// Who it counts for: the impersonated user where there is one.
    pub user: User,
    /// The verb as RBAC names it.
    pub verb: &'static str,
    pub peer: Option<SocketAddr>,
    pub upgrade: Option<OnUpgrade>,
    /// The one name that a list or watch selects by field, for authorisation.
    pub selected: base::SmolStr,
}

/// A context whose target is a resource that exists.
pub(crate) struct Routed {
    pub cx: Context,
    pub kind: KindRef,
    pub target: Resource,
}

impl Context {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn user_agent(&self) -> &str {
        self.header("user-agent")
    }
}

impl Routed {
    /// Where the object of this request lies.
    pub fn place(&self) -> admit::Place {
        let key = api::Key::new(self.target.object_namespace(), &self.target.name);
        admit::Place { storage: self.kind.storage.clone(), key }
    }

    pub fn not_found(&self) -> Status {
        Status::not_found(&self.kind.gvk.group, &self.kind.resource, &self.target.name)
    }
}

/// 404 for a path that names no resource.
pub(crate) fn no_such_resource() -> Status {
    let mut status = Status::new(Reason::NotFound, "the server could not find the requested resource");
    status.details = Some(Box::default());
    status
}

pub(crate) fn method_not_allowed() -> Status {
    let message = "the server does not allow this method on the requested resource";
    let mut status = Status::new(Reason::MethodNotAllowed, message);
    status.details = Some(Box::default());
    status
}
