//! Registry credentials out of `imagePullSecrets` (`kubernetes.io/dockerconfigjson` and `kubernetes.io/dockercfg`).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::runtime::RegistryAuth;

const DOCKER_HUB: &str = "docker.io";

/// The credentials that fit `image`, the most specific first.
pub fn for_image(image: &str, secrets: &[BTreeMap<String, Vec<u8>>]) -> Vec<RegistryAuth> {
    let (registry, path) = registry_and_path(image);
    let whole = format!("{registry}/{path}");
    let mut found: Vec<(usize, RegistryAuth)> = Vec::new();
    for (server, entry) in secrets.iter().flat_map(entries) {
        let server_name = normalise(&server);
        if matches(&server_name, &registry, &whole)
            && let Some(auth) = credentials(&entry)
        {
            found.push((server_name.len(), auth));
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn entries(secret: &BTreeMap<String, Vec<u8>>) -> Vec<(String, Value)> {
    let parse = |key: &str| secret.get(key).and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok());
    let auths =
        parse(".dockerconfigjson").and_then(|config| config.get("auths").cloned()).or_else(|| parse(".dockercfg"));
    let map = auths.as_ref().and_then(Value::as_object);
    map.into_iter().flatten().map(|(server, entry)| (server.clone(), entry.clone())).collect()
}

fn normalise(server: &str) -> String {
    let server = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let server = server.trim_end_matches("/v1").trim_end_matches("/v2");
    if server == "index.docker.io" { DOCKER_HUB.to_owned() } else { server.to_owned() }
}

/// `*.example.com` stands for one label of the host, as upstream matches.
fn matches(server: &str, registry: &str, whole: &str) -> bool {
    let (host, path) = server.split_once('/').map_or((server, ""), |(host, path)| (host, path));
    let labels: Vec<&str> = host.split('.').collect();
    let wanted: Vec<&str> = registry.split('.').collect();
    let host_fits = labels.len() == wanted.len()
        && labels.iter().zip(&wanted).all(|(pattern, label)| *pattern == "*" || pattern == label);
    let image_path = whole.split_once('/').map_or("", |(_, path)| path);
    host_fits && (path.is_empty() || image_path.starts_with(path))
}

fn credentials(entry: &Value) -> Option<RegistryAuth> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut auth = RegistryAuth {
        username: text("username"),
        password: text("password"),
        auth: String::new(),
        // As upstream: the runtime takes an address for a URL and leaves the credential unused where its host differs.
        server_address: String::new(),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
    };
    if auth.username.is_empty() {
        let decoded = STANDARD.decode(text("auth")).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        let (user, password) = decoded.split_once(':')?;
        auth.username = user.to_owned();
        auth.password = password.trim_end_matches('\0').to_owned();
    }
    Some(auth)
}

/// (`docker.io`, `library/nginx`) of `nginx:1`.
fn registry_and_path(image: &str) -> (String, String) {
    let image = image.split('@').next().unwrap_or_default();
    let (first, rest) = image.split_once('/').map_or(("", image), |(first, rest)| (first, rest));
    let is_host = first.contains('.') || first.contains(':') || first == "localhost";
    let (registry, path) = if is_host { (first, rest.to_owned()) } else { (DOCKER_HUB, image.to_owned()) };
    let path = match path.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path.to_owned(),
        _ => path,
    };
    let path = if registry == DOCKER_HUB && !path.contains('/') { format!("library/{path}") } else { path };
    (registry.to_owned(), path)
}

/// `:latest`, or no tag and no digest: pulled again on every start by default.
pub fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    match image.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag == "latest",
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_fit_by_host_and_path() {
        let config = serde_json::json!({"auths": {
            "https://index.docker.io/v1/": {"auth": STANDARD.encode("hub:secret")},
            "*.example.com": {"username": "wild", "password": "p"},
            "reg.example.com/team": {"username": "team", "password": "p"},
        }});
        let secret = BTreeMap::from([(".dockerconfigjson".to_owned(), config.to_string().into_bytes())]);
        let users = |image: &str| -> Vec<String> {
            for_image(image, std::slice::from_ref(&secret)).into_iter().map(|auth| auth.username).collect()
        };
        assert_eq!(users("nginx:1"), ["hub"]);
        assert_eq!(users("reg.example.com/team/app@sha256:00"), ["team", "wild"]);
        assert_eq!(users("reg.example.com/other"), ["wild"]);
        assert!(users("localhost:5000/x").is_empty());
    }

    #[test]
    fn latest() {
        for image in ["nginx", "a.b/c:latest", "h:5000/nginx"] {
            assert!(is_latest(image), "{image}");
        }
        assert!(!is_latest("nginx:1") && !is_latest("nginx@sha256:00"));
    }
}
