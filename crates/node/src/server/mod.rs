//! The kubelet HTTP API: TLS, who asks and whether they may, then logs, streams, statistics.
//!
//! Every connection is a task of its own and counted; a client that never reads costs its own buffers and no more.

mod auth;
mod exec;
mod extension;
mod log;
mod metrics;
mod node_logs;
mod pages;
mod reply;
mod route;
mod stats;

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::limits;
use crate::pods::Pods;
use auth::{Authority, Caller};
pub use extension::{EXTENSION_BYTES_MAX, Extension};
use reply::{Body, status, text};
use route::Route;

const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
const HEADERS_MAX: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct Server {
    pub(super) context: Arc<Context>,
    pub(super) pods: Pods,
    authority: Arc<Authority>,
}

impl Server {
    pub fn new(context: Arc<Context>, pods: Pods) -> Server {
        let authority = Arc::new(Authority::new(context.clone()));
        Server { context, pods, authority }
    }

    pub async fn serve(self, listener: TcpListener, drain: CancellationToken) {
        let turns = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                () = drain.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, _) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of files, most likely: the next try is soon enough.
                    tracing::warn!(%error, "connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(turn) = turns.clone().try_acquire_owned() else { continue };
            let (server, drain) = (self.clone(), drain.clone());
            tokio::spawn(async move {
                let _turn = turn;
                drain.run_until_cancelled(server.connection(stream)).await;
            });
        }
    }

    async fn connection(self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let acceptor = TlsAcceptor::from((self.context.ports.tls)());
        let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await else { return };
        let certificate = stream.get_ref().1.peer_certificates().and_then(|list| list.first()).cloned();
        let peer = certificate.and_then(|certificate| auth::caller_of(&certificate));
        let service = service_fn(move |request: Request<Incoming>| {
            let (server, peer) = (self.clone(), peer.clone());
            async move { Ok::<_, std::convert::Infallible>(server.answer(peer, request).await) }
        });
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_MAX);
        if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "connection ended");
        }
    }

    async fn answer(&self, peer: Option<Caller>, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let served = |extension: &Arc<dyn Extension>| Some((extension.clone(), extension.subresource(&path)?));
        if let Some((extension, subresource)) = self.context.ports.extension.as_ref().and_then(served) {
            return match self.permit(peer, &request, &[subresource]).await {
                Ok(()) => extension::answer(&*extension, request).await,
                Err(refusal) => *refusal,
            };
        }
        let Some(route) = Route::parse(&path) else {
            return text(StatusCode::NOT_FOUND, "404 page not found\n");
        };
        match self.permit(peer, &request, &route.subresources()).await {
            Ok(()) => self.dispatch(route, request).await,
            Err(refusal) => *refusal,
        }
    }

    /// Whether the caller is known and may do this with one of these subresources of the node; `Err` is the answer.
    async fn permit(
        &self,
        peer: Option<Caller>,
        request: &Request<Incoming>,
        subresources: &[&str],
    ) -> Result<(), Box<Response<Body>>> {
        let refuse = |code, message: &str| Err(Box::new(text(code, message)));
        let caller = match self.authority.authenticate(peer, request.headers()).await {
            Ok(Some(caller)) => caller,
            Ok(None) => return refuse(StatusCode::UNAUTHORIZED, "Unauthorized"),
            Err(message) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, &message),
        };
        let verb = verb(request.method());
        match self.authority.authorize(&caller, verb, subresources).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                let user = &caller.user;
                let message =
                    format!("Forbidden (user={user}, verb={verb}, resource=nodes, subresource(s)={subresources:?})");
                refuse(StatusCode::FORBIDDEN, &message)
            }
            Err(message) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &message),
        }
    }

    async fn dispatch(&self, route: Route, request: Request<Incoming>) -> Response<Body> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        match route {
            Route::Health => text(StatusCode::OK, "ok"),
            Route::Pods => self.pod_list(),
            Route::RunningPods => self.running_pods(),
            Route::Configz => self.configz(),
            Route::NodeLogs(path) => node_logs::answer(&path),
            Route::Checkpoint => text(StatusCode::NOT_FOUND, "404 page not found\n"),
            Route::Logs(of) => self.logs(&of, &query).await,
            Route::Exec(of) => self.exec(&of, &query, request).await,
            Route::Attach(of) => self.attach(&of, &query, request).await,
            Route::PortForward(of) => self.port_forward(&of, &query, request).await,
            Route::Summary => self.summary().await,
            Route::Metrics => self.metrics(),
            Route::MetricsProbes => self.metrics_probes(),
            Route::MetricsResource => self.metrics_resource().await,
            Route::MetricsCadvisor => self.metrics_cadvisor().await,
        }
    }
}

fn verb(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "get",
    }
}

/// The pod and container of a request, found.
struct Found {
    pub view: Arc<crate::pod::view::PodView>,
    pub container: String,
}

impl Server {
    /// `Err` is the answer: 404 with the words of upstream's kubelet.
    fn find(&self, of: &route::Of) -> Result<Found, Box<Response<Body>>> {
        let missing = |what: String| Box::new(status(StatusCode::NOT_FOUND, "NotFound", &what));
        let Some(view) = self.pods.find(&of.namespace, &of.pod) else {
            return Err(missing(format!("pod \"{}/{}\" not found", of.namespace, of.pod)));
        };
        if !of.container.is_empty() && !view.containers.contains_key(&of.container) {
            return Err(missing(format!("container {:?} not found in pod {:?}", of.container, of.pod)));
        }
        Ok(Found { view, container: of.container.clone() })
    }
}
