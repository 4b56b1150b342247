//! The one generic handler path: every verb of every kind, built in or custom.

mod collection;
mod delete;
mod fields;
mod list;
mod page;
mod read;
mod render;
mod subresource;
mod watch;
mod write;

pub(crate) use fields::field;
pub(crate) use write::perform;

use api::{Status, Verb, Verbs};
use futures::FutureExt;
use http::Response;

use crate::body::Body;
use crate::context::{Context, Routed, method_not_allowed, no_such_resource};
use crate::target::Target;
use crate::{connect, reviews};

/// Serves an authorised request for a resource.
pub(crate) async fn serve(cx: Context, body: Body) -> Result<Response<Body>, Status> {
    let Target::Resource(target) = cx.target.clone() else { return Err(no_such_resource()) };
    let gvr = api::Gvr::new(&target.group, &target.version, &target.resource);
    let kind = cx.registry.resource(&gvr).cloned().ok_or_else(no_such_resource)?;
    if kind.is_namespaced() == target.object_namespace().is_empty() && !spans_namespaces(&cx, &target, &kind) {
        return Err(no_such_resource());
    }
    let routed = Routed { cx, kind, target };
    if reviews::is_virtual(&routed.kind) {
        return reviews::serve(routed, body).boxed().await;
    }
    if !routed.target.subresource.is_empty() {
        return below(routed, body).boxed().await;
    }
    if routed.target.has_rest {
        return Err(no_such_resource());
    }
    whole(routed, body).boxed().await
}

/// Lists and watches reach over all namespaces; so do the reviews of a user's rights. Cluster kinds have none.
fn spans_namespaces(cx: &Context, target: &crate::target::Resource, kind: &api::Kind) -> bool {
    if !kind.is_namespaced() {
        return target.object_namespace().is_empty();
    }
    target.name.is_empty() && target.namespace.is_empty() && (cx.method == "GET" || cx.method == "HEAD")
}

async fn whole(routed: Routed, body: Body) -> Result<Response<Body>, Status> {
    let verbs = routed.kind.verbs;
    let named = !routed.target.name.is_empty();
    match routed.cx.verb {
        "get" if verbs.has(Verb::Get) => read::get(&routed).await,
        "list" if verbs.has(Verb::List) => list::list(&routed).await,
        "watch" if verbs.has(Verb::Watch) => watch::watch(routed).await,
        "create" if verbs.has(Verb::Create) && !named && routed.kind.resource == "bindings" && !routed.kind.custom => {
            write::bind(routed, body).await
        }
        "create" if verbs.has(Verb::Create) && !named => write::create(routed, body).await,
        "update" if verbs.has(Verb::Update) && named => write::update(routed, body).await,
        "patch" if verbs.has(Verb::Patch) && named => write::patch(routed, body).await,
        "delete" if verbs.has(Verb::Delete) => delete::delete(routed, body).await,
        "deletecollection" if verbs.has(Verb::DeleteCollection) => collection::delete_collection(routed, body).await,
        _ => Err(method_not_allowed()),
    }
}

async fn below(routed: Routed, body: Body) -> Result<Response<Body>, Status> {
    let name = routed.target.subresource.clone();
    let sub = routed.kind.subresource(&name).cloned();
    let Some(sub) = sub else { return Err(no_such_resource()) };
    if connect::is_stream(&name) {
        return connect::serve(routed, body).boxed().await;
    }
    if routed.target.has_rest {
        return Err(no_such_resource());
    }
    let allowed = |verb| Verbs::has(sub.verbs, verb);
    match routed.cx.verb {
        "create" if name == "token" && routed.kind.resource == "serviceaccounts" => reviews::token(routed, body).await,
        "get" if allowed(Verb::Get) => subresource::get(&routed, &sub).await,
        "create" if allowed(Verb::Create) => write::post_below(routed, sub, body).await,
        "update" if allowed(Verb::Update) => write::update_below(routed, sub, body).await,
        "patch" if allowed(Verb::Patch) => write::patch_below(routed, sub, body).await,
        _ => Err(method_not_allowed()),
    }
}
