//! What a URL path means. Paths are dynamic (any group, any resource), so this is a parser, not a route table.

use base::SmolStr;
use percent_encoding::percent_decode_str;

/// A parsed request path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Resource(Resource),
    /// Discovery, health, metrics and whatever else is no resource; authorised by its path.
    Path(String),
}

/// A path below `/api/{version}` or `/apis/{group}/{version}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    pub group: SmolStr,
    pub version: SmolStr,
    /// Set for a path below a namespace, and for `namespaces/{name}` itself: RBAC asks within that namespace.
    pub namespace: SmolStr,
    pub resource: SmolStr,
    pub name: SmolStr,
    pub subresource: SmolStr,
    /// What follows `proxy`, still percent-encoded, with its leading slash.
    pub rest: String,
    /// True where a rest follows the subresource.
    pub has_rest: bool,
    /// The deprecated `/watch/` prefix.
    pub watch: bool,
}

impl Target {
    /// Never fails: what is no resource path is a plain path.
    pub fn parse(path: &str) -> Target {
        let plain = || Target::Path(path.to_owned());
        let mut parts = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
        let (group, version) = match parts.next() {
            Some("api") => (Some(""), parts.next()),
            Some("apis") => (parts.next(), parts.next()),
            _ => return plain(),
        };
        let (Some(group), Some(version)) = (group, version) else { return plain() };
        let mut resource = Resource { group: decoded(group), version: decoded(version), ..Resource::default() };
        if parts.peek() == Some(&"watch") {
            resource.watch = true;
            parts.next();
        }
        let parts: Vec<&str> = parts.collect();
        if parts.first().is_none_or(|first| first.is_empty()) {
            return plain();
        }
        resource.fill(&parts);
        Target::Resource(resource)
    }
}

impl Resource {
    fn fill(&mut self, parts: &[&str]) {
        let mut parts = parts;
        if parts[0] == "namespaces" && parts.len() > 1 && !parts[1].is_empty() {
            self.namespace = decoded(parts[1]);
            let own = parts.len() == 2 || matches!(parts[2], "" | "status" | "finalize");
            if !own {
                parts = &parts[2..];
            }
        }
        self.resource = decoded(parts[0]);
        self.name = parts.get(1).map(|part| decoded(part)).unwrap_or_default();
        self.subresource = parts.get(2).map(|part| decoded(part)).unwrap_or_default();
        if parts.len() > 3 {
            self.has_rest = true;
            self.rest = format!("/{}", parts[3..].join("/"));
        }
    }

    /// The namespace of the object itself: a Namespace lies in none, although RBAC asks within it.
    pub fn object_namespace(&self) -> &str {
        if self.resource == "namespaces" && self.group.is_empty() { "" } else { &self.namespace }
    }
}

fn decoded(part: &str) -> SmolStr {
    if !part.contains('%') {
        return SmolStr::new(part);
    }
    SmolStr::new(percent_decode_str(part).decode_utf8_lossy())
}

#[cfg(test)]
mod tests {
    use super::{Resource, Target};

    fn check(path: &str, want: &str) {
        let text = match Target::parse(path) {
            Target::Path(path) => format!("path {path}"),
            Target::Resource(Resource { group, version, namespace, resource, name, subresource, rest, .. }) => {
                format!("{group}|{version}|{namespace}|{resource}|{name}|{subresource}|{rest}")
            }
        };
        assert_eq!(text, want, "{path}");
    }

    #[test]
    fn paths_mean_what_upstream_says() {
        check("/api/v1/pods", "|v1||pods|||");
        check("/api/v1/namespaces", "|v1||namespaces|||");
        check("/api/v1/namespaces/a", "|v1|a|namespaces|a||");
        check("/api/v1/namespaces/a/status", "|v1|a|namespaces|a|status|");
        check("/api/v1/namespaces/a/finalize", "|v1|a|namespaces|a|finalize|");
        check("/api/v1/namespaces/a/pods/b/log", "|v1|a|pods|b|log|");
        check("/apis/apps/v1/namespaces/a/deployments/b/scale", "apps|v1|a|deployments|b|scale|");
        check("/api/v1/nodes/n:10250/proxy/a%2Fb/c", "|v1||nodes|n:10250|proxy|/a%2Fb/c");
        check("/api/v1/watch/namespaces/a/pods", "|v1|a|pods|||");
        check(
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            "rbac.authorization.k8s.io|v1||clusterroles|system:node||",
        );
        for plain in ["/", "/api", "/apis", "/api/v1", "/api/v1/", "/apis/apps", "/apis/apps/v1", "/healthz", "x", ""] {
            check(plain, &format!("path {plain}"));
        }
    }
}
