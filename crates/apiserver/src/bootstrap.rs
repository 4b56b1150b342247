//! What exists from the first start, written through the pipeline like everything else, and safe to repeat.

use std::net::IpAddr;

use api::{Gvk, Tree};
use http::{Method, StatusCode};
use serde_json::json;

use crate::body;
use crate::crds::own_user;
use crate::server::Server;

const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("{kind} {name} is of a kind that is not served")]
    Kind { kind: String, name: String },
    #[error("{method} {path} was answered {code}: {message}")]
    Refused { method: Method, path: String, code: u16, message: String },
}

impl Server {
    /// Creates the bootstrap objects that are absent, brings roles and bindings up to date where their annotation allows
    /// it. Who serves the `kubernetes` Service is its owner's to say, who knows the other servers.
    ///
    /// # Errors
    /// The first object that the pipeline refuses.
    pub async fn bootstrap(&self) -> Result<(), BootstrapError> {
        for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            self.ensure(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})).await?;
        }
        for object in admit::bootstrap::objects(&self.shared.deps.config.admit) {
            self.ensure(&object).await?;
        }
        for object in self.own_objects() {
            if !self.ensure(&object).await? {
                self.replace_content(&object).await?;
            }
        }
        Ok(())
    }

    /// Creates an object unless it is there. True when it was created.
    async fn ensure(&self, object: &Tree) -> Result<bool, BootstrapError> {
        let (collection, name) = self.path_of(object)?;
        let path = format!("{collection}/{name}");
        let (code, existing) = self.exchange(Method::GET, &path, None).await;
        if code == StatusCode::NOT_FOUND {
            let (code, answer) = self.exchange(Method::POST, &collection, Some(object)).await;
            return match code {
                StatusCode::CREATED => Ok(true),
                // Another server of this cluster was faster.
                StatusCode::CONFLICT => Ok(false),
                code => Err(refused(Method::POST, &collection, code, &answer)),
            };
        }
        if !code.is_success() {
            return Err(refused(Method::GET, &path, code, &existing));
        }
        if let Some(updated) = reconciled(&existing, object) {
            let (code, answer) = self.exchange(Method::PUT, &path, Some(&updated)).await;
            if !code.is_success() && code != StatusCode::CONFLICT {
                return Err(refused(Method::PUT, &path, code, &answer));
            }
        }
        Ok(false)
    }

    /// Objects that say where and who this server is: their content follows the configuration.
    async fn replace_content(&self, object: &Tree) -> Result<(), BootstrapError> {
        let (collection, name) = self.path_of(object)?;
        let path = format!("{collection}/{name}");
        let mut patch = object.clone();
        if object["kind"] == "Service" {
            return Ok(());
        }
        if let Some(map) = patch.as_object_mut() {
            map.retain(|key, _| key == "data");
        }
        let (code, answer) = self.exchange(Method::PATCH, &path, Some(&patch)).await;
        if code.is_success() { Ok(()) } else { Err(refused(Method::PATCH, &path, code, &answer)) }
    }

    fn path_of(&self, object: &Tree) -> Result<(String, String), BootstrapError> {
        let text = |tree: &Tree| tree.as_str().unwrap_or_default().to_owned();
        let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
        let gvk = Gvk::parse(&text(&object["apiVersion"]), &kind);
        let registry = self.registry();
        let row = gvk.and_then(|gvk| registry.kind(&gvk).cloned());
        let row = row.ok_or_else(|| BootstrapError::Kind { kind, name: name.clone() })?;
        let namespace = row.is_namespaced().then(|| text(&object["metadata"]["namespace"]));
        Ok((row.gvr().path(namespace.as_deref(), None), name))
    }

    async fn exchange(&self, method: Method, path: &str, object: Option<&Tree>) -> (StatusCode, Tree) {
        let media_type = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let body = object.map_or_else(body::empty, |object| body::full(object.to_string()));
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media_type)
            .header("user-agent", "apiserver")
            .body(body)
            .expect("paths of bootstrap objects are plain");
        let response = self.call(own_user(), request).await;
        let code = response.status();
        let bytes = body::read(response.into_body(), 64 << 20).await.unwrap_or_default();
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// The `kubernetes` Service, and what extension servers and pods trust.
    fn own_objects(&self) -> Vec<Tree> {
        let config = &self.shared.deps.config;
        let mut objects = vec![
            authentication(config),
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "kube-root-ca.crt", "namespace": "kube-system"},
                "data": {"ca.crt": config.server_ca_pem},
            }),
        ];
        if let Some(first) = config.admit.service_cidrs.iter().filter_map(|cidr| first_address(*cidr)).next() {
            objects.push(service(first, config.advertise.port()));
        }
        objects
    }
}

fn first_address(cidr: impl std::fmt::Display) -> Option<IpAddr> {
    let text = cidr.to_string();
    let network: IpAddr = text.split('/').next()?.parse().ok()?;
    Some(match network {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address) + 1).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) + 1).into()),
    })
}

fn authentication(config: &crate::Config) -> Tree {
    let mut data = json!({ "client-ca-file": config.client_ca_pem });
    if !config.front_proxy_ca_pem.is_empty() {
        data["requestheader-client-ca-file"] = json!(config.front_proxy_ca_pem);
        data["requestheader-allowed-names"] = json!("[\"front-proxy-client\"]");
        data["requestheader-username-headers"] = json!("[\"X-Remote-User\"]");
        data["requestheader-group-headers"] = json!("[\"X-Remote-Group\"]");
        data["requestheader-extra-headers-prefix"] = json!("[\"X-Remote-Extra-\"]");
    }
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"}, "data": data,
    })
}

fn service(address: IpAddr, port: u16) -> Tree {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": address.to_string(), "clusterIPs": [address.to_string()],
            "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
        },
    })
}

/// A role or binding with everything of ours that it lacks; `None` when it lacks nothing or is not to be touched.
fn reconciled(existing: &Tree, wanted: &Tree) -> Option<Tree> {
    let field = match wanted["kind"].as_str()? {
        "ClusterRole" | "Role" => "rules",
        "ClusterRoleBinding" | "RoleBinding" => "subjects",
        _ => return None,
    };
    if existing["metadata"]["annotations"][AUTOUPDATE] != "true" {
        return None;
    }
    let mut list = existing[field].as_array().cloned().unwrap_or_default();
    let before = list.len();
    for entry in wanted[field].as_array()? {
        if !list.contains(entry) {
            list.push(entry.clone());
        }
    }
    if list.len() == before {
        return None;
    }
    let mut updated = existing.clone();
    updated[field] = Tree::Array(list);
    Some(updated)
}

fn refused(method: Method, path: &str, code: StatusCode, answer: &Tree) -> BootstrapError {
    let message = answer["message"].as_str().unwrap_or_default().to_owned();
    BootstrapError::Refused { method, path: path.to_owned(), code: code.as_u16(), message }
}
