//! What there is: discovery in both forms, and OpenAPI. All of it derives from the registry's rows.

mod aggregated;
mod legacy;
mod openapi;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use api::kind::KindRef;
use api::{Registry, Status};
use base::SmolStr;
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, Response, StatusCode};

use crate::answer;
use crate::body::{Body, empty};
use crate::context::Context;
use crate::media::clauses;
use crate::paths::not_found;

/// Built-in groups in the order upstream lists them: clients resolve ambiguous resource names by it.
const GROUP_ORDER: [&str; 21] = [
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// One group: its versions, most preferred first, and their rows in resource order.
pub(super) struct Group {
    pub name: SmolStr,
    pub versions: Vec<(SmolStr, Vec<KindRef>)>,
}

pub(crate) fn serve(cx: &Context, path: &str) -> Result<Response<Body>, Status> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    if parts[0] == "openapi" {
        return openapi::serve(cx, &parts[1..]);
    }
    let groups = groups(&cx.registry);
    if parts.len() == 1
        && let Some(version) = wants_aggregated(&cx.headers)
    {
        let bytes = aggregated::document(&groups, parts[0] == "api", version);
        let media_type = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        return Ok(tagged(cx, bytes, &media_type));
    }
    let tree = match parts.as_slice() {
        ["api"] => Some(legacy::versions(&cx.shared.deps.config.advertise.to_string())),
        ["api", version] => legacy::resources(&groups, "", version),
        ["apis"] => Some(legacy::group_list(&groups)),
        ["apis", group] => legacy::group(&groups, group),
        ["apis", group, version] => legacy::resources(&groups, group, version),
        _ => None,
    };
    Ok(tree.map_or_else(not_found, |tree| tagged(cx, tree.to_string().into(), "application/json")))
}

/// The version of aggregated discovery that the client asks for before anything else it accepts.
fn wants_aggregated(headers: &HeaderMap) -> Option<&'static str> {
    let accept = headers.get(ACCEPT)?.to_str().ok()?;
    for clause in clauses(accept) {
        if !matches!(clause.media_type, "application/json" | "*/*" | "application/*") {
            continue;
        }
        match (clause.param("g"), clause.param("v"), clause.param("as")) {
            (Some("apidiscovery.k8s.io"), Some("v2"), Some("APIGroupDiscoveryList")) => return Some("v2"),
            (Some("apidiscovery.k8s.io"), Some("v2beta1"), Some("APIGroupDiscoveryList")) => return Some("v2beta1"),
            (None, None, None) => return None,
            _ => {}
        }
    }
    None
}

/// The registry by group and version, in discovery's order.
pub(super) fn groups(registry: &Registry) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for kind in registry.iter() {
        let at = match groups.iter().position(|group| group.name == kind.gvk.group) {
            Some(at) => at,
            None => {
                groups.push(Group { name: kind.gvk.group.clone(), versions: Vec::new() });
                groups.len() - 1
            }
        };
        let versions = &mut groups[at].versions;
        match versions.iter_mut().find(|(version, _)| *version == kind.gvk.version) {
            Some((_, kinds)) => kinds.push(kind.clone()),
            None => versions.push((kind.gvk.version.clone(), vec![kind.clone()])),
        }
    }
    for group in &mut groups {
        group.versions.sort_by_key(|(version, _)| std::cmp::Reverse(priority(version)));
    }
    let place = |name: &str| GROUP_ORDER.iter().position(|known| *known == name).unwrap_or(GROUP_ORDER.len());
    groups.sort_by(|a, b| place(&a.name).cmp(&place(&b.name)).then_with(|| a.name.cmp(&b.name)));
    groups
}

/// Stable before beta before alpha, then the higher number; other names last.
fn priority(version: &str) -> (u8, u64, u64, std::cmp::Reverse<SmolStr>) {
    let odd = (0, 0, 0, std::cmp::Reverse(SmolStr::new(version)));
    let Some(rest) = version.strip_prefix('v') else { return odd };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..digits].parse() else { return odd };
    let (stage, tail) = match &rest[digits..] {
        "" => (3, ""),
        tail if tail.starts_with("beta") => (2, &tail[4..]),
        tail if tail.starts_with("alpha") => (1, &tail[5..]),
        _ => return odd,
    };
    let minor = if tail.is_empty() { 0 } else { tail.parse().unwrap_or(0) };
    (stage, major, minor, std::cmp::Reverse(SmolStr::default()))
}

/// A document with its hash: unchanged is 304.
pub(super) fn tagged(cx: &Context, bytes: Bytes, media_type: &str) -> Response<Body> {
    let tag = format!("\"{}\"", hash(&bytes));
    let unchanged = cx.headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if unchanged {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        answer::large("application/json", bytes, &cx.headers)
    };
    let headers = response.headers_mut();
    if let Ok(media_type) = HeaderValue::from_str(media_type) {
        headers.insert(CONTENT_TYPE, media_type);
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// 128 bits that change with the content. Not a secret and not a signature.
pub(super) fn hash(what: &impl Hash) -> String {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        what.hash(&mut hasher);
        hasher.finish()
    };
    format!("{:016X}{:016X}", half(0), half(1))
}

/// Documents of a registry, rendered when first asked for.
#[derive(Default)]
pub(crate) struct Discovery {
    pub(super) openapi: openapi::Cache,
}

/// The registry an entry of a cache was made from.
pub(super) fn same(a: &Arc<Registry>, b: &Arc<Registry>) -> bool {
    Arc::ptr_eq(a, b)
}

#[cfg(test)]
mod tests {
    use super::priority;

    #[test]
    fn versions_are_ordered_as_upstream_orders_them() {
        let mut versions =
            ["foo1", "v1", "v11alpha2", "v2", "v1beta1", "v12alpha1", "v10", "v3beta1", "v11beta2", "foo10"];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        let want = ["v10", "v2", "v1", "v11beta2", "v3beta1", "v1beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"];
        assert_eq!(versions, want);
    }
}
