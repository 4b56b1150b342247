//! From a request to its answer: authentication, impersonation, authorisation, a seat, the handler, metrics, audit.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode};
use tracing::{Instrument, debug, error, info_span};

use admit::User;
use api::{Reason, Status};

use crate::answer;
use crate::audit::Record;
use crate::authn;
use crate::authz;
use crate::body::Body;
use crate::context::{Context, method_not_allowed};
use crate::limits::REQUEST_TIMEOUT;
use crate::metrics::{InflightLabels, RequestLabels};
use crate::paths::RemoteAddress;
use crate::query::Query;
use crate::serve::Peer;
use crate::server::Server;
use crate::target::Target;
use crate::{paths, rest};

/// What the audit line and the metrics need after the context is gone.
struct Trace {
    id: String,
    user: User,
    impersonated: Option<User>,
    verb: &'static str,
    uri: String,
    target: Target,
    user_agent: String,
    source: Option<String>,
    received: jiff::Timestamp,
    decision: &'static str,
    reason: String,
}

/// Whether the handler may take longer than [`REQUEST_TIMEOUT`] and needs no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Bounded,
    Long,
}

impl Server {
    /// The in-process transport: the same authorisation, audit and pipeline as over the network, for a user the caller
    /// vouches for.
    pub async fn call(&self, user: User, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        self.process(authn::with_authenticated(user), None, head, body).await
    }

    /// A request from the network.
    pub(crate) async fn answer(&self, peer: Peer, request: Request<Body>) -> Response<Body> {
        let (mut head, body) = request.into_parts();
        let path = head.uri.path();
        if self.shared.deps.extension.is_open(path) {
            if let Some(address) = peer.address {
                head.extensions.insert(RemoteAddress(address));
            }
            return self.shared.deps.extension.answer(None, Request::from_parts(head, body)).await;
        }
        let tokens = self.shared.tokens();
        let others = self.shared.deps.tokens.as_ref();
        let revoked = self.shared.deps.revoked.borrow().clone();
        let certificate = peer.certificate.at(self.shared.deps.clock.now(), &revoked);
        let user = authn::authenticate(&head.headers, certificate, &tokens, others).await;
        match user {
            Ok(user) => {
                authn::drop_websocket_token(&mut head.headers);
                self.process(user, peer.address, head, body).await
            }
            Err(status) => {
                self.count_refusal(&head, status.code);
                answer::failure(&status, &head.headers)
            }
        }
    }

    async fn process(
        &self,
        user: User,
        peer: Option<std::net::SocketAddr>,
        mut head: http::request::Parts,
        body: Body,
    ) -> Response<Body> {
        let began = tokio::time::Instant::now();
        let upgrade = head.extensions.remove::<hyper::upgrade::OnUpgrade>();
        let target = Target::parse(head.uri.path());
        let query = Query::parse(head.uri.query());
        let watch = matches!(&target, Target::Resource(resource) if resource.watch) || query.flag("watch");
        let verb = authz::verb_of(&head.method, &target, watch && is_collection(&target));
        let mut cx = Context {
            shared: self.shared.clone(),
            registry: self.registry(),
            method: head.method,
            uri: head.uri,
            headers: head.headers,
            target,
            query,
            user,
            verb,
            peer,
            upgrade,
            selected: Default::default(),
        };
        name_by_selector(&mut cx);
        let mut trace = self.trace(&cx);
        let headers = cx.headers.clone();
        let span = info_span!("request", verb, uri = %trace.uri, user = %trace.user.name);
        let pace = pace_of(&cx);
        let handled = self.handle(cx, body, pace, &mut trace);
        let handled = AssertUnwindSafe(handled.instrument(span)).catch_unwind().await;
        let mut response = match handled {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => answer::failure(&status, &headers),
            Err(_) => {
                error!(uri = %trace.uri, "a handler panicked");
                answer::failure(&Status::internal("the request could not be served"), &headers)
            }
        };
        if let Ok(id) = HeaderValue::from_str(&trace.id) {
            response.headers_mut().insert("audit-id", id);
        }
        self.record(&trace, response.status(), (pace == Pace::Bounded).then(|| began.elapsed()));
        response
    }

    async fn handle(
        &self,
        mut cx: Context,
        body: Body,
        pace: Pace,
        trace: &mut Trace,
    ) -> Result<Response<Body>, Status> {
        self.impersonate(&mut cx, trace)?;
        let mut attributes = authz::attributes(&cx.user, cx.verb, &cx.target);
        if attributes.name.is_empty() {
            attributes.name = &cx.selected;
        }
        match authz::authorize(&attributes, &self.shared.reader) {
            Ok(reason) => (trace.decision, trace.reason) = ("allow", reason),
            Err(status) => {
                (trace.decision, trace.reason) = ("forbid", String::new());
                return Err(status);
            }
        }
        if cx.verb.is_empty() {
            return Err(method_not_allowed());
        }
        if pace == Pace::Long {
            return dispatch(cx, body).await;
        }
        let write = !matches!(cx.verb, "get" | "list" | "watch" | "head");
        let labels = InflightLabels { request_kind: if write { "mutating" } else { "readOnly" } };
        let exempt = cx.user.groups.iter().any(|group| group == authn::MASTERS);
        let seat = if exempt { None } else { Some(self.shared.seats.take(write).await) };
        let _seat = seat.transpose().inspect_err(|_| {
            self.shared.metrics.rejected.get_or_create(&labels).inc();
        })?;
        let _inflight = Inflight::enter(&self.shared.metrics.inflight, labels);
        let timeout = || Status::new(Reason::Timeout, "request did not complete within the requested timeout");
        tokio::time::timeout(REQUEST_TIMEOUT, dispatch(cx, body)).await.map_err(|_| timeout())?
    }

    fn impersonate(&self, cx: &mut Context, trace: &mut Trace) -> Result<(), Status> {
        let Some((user, claims)) = authn::impersonated(&cx.headers)? else { return Ok(()) };
        for claim in &claims {
            authz::authorize(&authz::impersonation(&cx.user, claim), &self.shared.reader)?;
        }
        debug!(as_user = %user.name, "impersonation");
        trace.impersonated = Some(user.clone());
        cx.user = user;
        Ok(())
    }

    fn trace(&self, cx: &Context) -> Trace {
        let given = cx.header("audit-id");
        let id = if given.is_empty() || given.len() > 64 { self.shared.new_uid() } else { given.to_owned() };
        Trace {
            id,
            user: cx.user.clone(),
            impersonated: None,
            verb: cx.verb,
            uri: cx.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            target: cx.target.clone(),
            user_agent: cx.user_agent().to_owned(),
            source: cx.peer.map(|peer| peer.ip().to_string()),
            received: self.shared.deps.clock.now(),
            decision: "",
            reason: String::new(),
        }
    }

    fn record(&self, trace: &Trace, code: StatusCode, took: Option<Duration>) {
        let labels = labels_of(&trace.target, trace.verb, code.as_u16());
        self.shared.metrics.observe(labels, took);
        let quiet = matches!(&trace.target, Target::Path(path) if is_probe(path));
        if quiet {
            return;
        }
        self.shared.deps.audit.record(&Record {
            id: &trace.id,
            user: &trace.user,
            impersonated: trace.impersonated.as_ref(),
            verb: trace.verb,
            uri: trace.uri.clone(),
            target: &trace.target,
            source: trace.source.clone(),
            user_agent: &trace.user_agent,
            code: code.as_u16(),
            decision: trace.decision,
            reason: &trace.reason,
            received: trace.received,
            now: self.shared.deps.clock.now(),
        });
    }

    fn count_refusal(&self, head: &http::request::Parts, code: u16) {
        let target = Target::parse(head.uri.path());
        let verb = authz::verb_of(&head.method, &target, false);
        self.shared.metrics.observe(labels_of(&target, verb, code), None);
    }
}

/// Boxed: the handlers' state is large, and most requests need little of it.
fn dispatch(cx: Context, body: Body) -> BoxFuture<'static, Result<Response<Body>, Status>> {
    match &cx.target {
        Target::Path(_) => paths::serve(cx, body).boxed(),
        Target::Resource(_) => rest::serve(cx, body).boxed(),
    }
}

/// A list, watch or collection delete of one name is authorised by that name, as upstream does.
fn name_by_selector(cx: &mut Context) {
    let Target::Resource(resource) = &cx.target else { return };
    if !resource.name.is_empty() || !matches!(cx.verb, "list" | "watch" | "deletecollection") {
        return;
    }
    let selector = cx.query.get("fieldSelector").unwrap_or_default();
    let name = selector.split(',').find_map(|term| term.strip_prefix("metadata.name="));
    cx.selected = name.map(|name| name.trim_start_matches('=').into()).unwrap_or_default();
}

fn is_collection(target: &Target) -> bool {
    // `GET .../pods/x?watch=true` watches one object by name.
    matches!(target, Target::Resource(resource) if resource.subresource.is_empty())
}

fn is_probe(path: &str) -> bool {
    ["/healthz", "/livez", "/readyz"].into_iter().any(|probe| path.starts_with(probe))
}

fn pace_of(cx: &Context) -> Pace {
    let Target::Resource(resource) = &cx.target else { return Pace::Bounded };
    let streams = matches!(resource.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy");
    if streams || cx.verb == "watch" { Pace::Long } else { Pace::Bounded }
}

fn labels_of(target: &Target, verb: &str, code: u16) -> RequestLabels {
    let verb = verb.to_ascii_uppercase();
    match target {
        // Paths are the client's choice: they are no labels.
        Target::Path(_) => RequestLabels {
            verb,
            group: String::new(),
            version: String::new(),
            resource: String::new(),
            subresource: String::new(),
            code,
        },
        Target::Resource(resource) => {
            // A resource nobody serves must not become a label of its own.
            let known = code != 404 || !resource.name.is_empty();
            let word = |text: &str| if known { text.to_owned() } else { String::new() };
            RequestLabels {
                verb,
                group: word(&resource.group),
                version: word(&resource.version),
                resource: word(&resource.resource),
                subresource: word(&resource.subresource),
                code,
            }
        }
    }
}

/// Counts one request being served for as long as it lives.
struct Inflight<'a> {
    family: &'a prometheus_client::metrics::family::Family<InflightLabels, prometheus_client::metrics::gauge::Gauge>,
    labels: InflightLabels,
}

impl<'a> Inflight<'a> {
    fn enter(
        family: &'a prometheus_client::metrics::family::Family<
            InflightLabels,
            prometheus_client::metrics::gauge::Gauge,
        >,
        labels: InflightLabels,
    ) -> Inflight<'a> {
        family.get_or_create(&labels).inc();
        Inflight { family, labels }
    }
}

impl Drop for Inflight<'_> {
    fn drop(&mut self) {
        self.family.get_or_create(&self.labels).dec();
    }
}
