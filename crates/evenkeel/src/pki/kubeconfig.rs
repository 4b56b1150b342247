//! Kubeconfig files: how kubectl, helm and this program's own commands find a cluster.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::PkiError;
use super::files::read;
use super::leaf::Leaf;

/// One cluster with one user, as a kubeconfig names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubeconfig {
    pub server: String,
    pub ca_pem: String,
    pub user: KubeconfigUser,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeconfigUser {
    pub certificate_pem: String,
    pub key_pem: String,
}

// === impl Kubeconfig ===

impl Kubeconfig {
    pub fn new(server: &str, ca_pem: &str, leaf: &Leaf) -> Kubeconfig {
        let user = KubeconfigUser { certificate_pem: leaf.pem.clone(), key_pem: leaf.key_pem.clone() };
        Kubeconfig { server: server.to_owned(), ca_pem: ca_pem.to_owned(), user }
    }

    /// The file's text. JSON is YAML, but people read this one.
    pub fn render(&self, name: &str) -> String {
        let encode = |pem: &str| STANDARD.encode(pem);
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: {name}\n  cluster:\n    server: {server}\n    \
             certificate-authority-data: {ca}\nusers:\n- name: {name}\n  user:\n    client-certificate-data: {cert}\n    \
             client-key-data: {key}\ncontexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\n\
             current-context: {name}\n",
            server = self.server,
            ca = encode(&self.ca_pem),
            cert = encode(&self.user.certificate_pem),
            key = encode(&self.user.key_pem),
        )
    }

    /// Reads the current context of a kubeconfig with embedded data.
    pub fn load(path: &Path) -> Result<Kubeconfig, PkiError> {
        let content = |why: &str| PkiError::Content { path: path.to_owned(), why: why.to_owned() };
        let text = read(path)?.ok_or_else(|| content("it is not there"))?;
        let tree: Value = serde_saphyr::from_str(&text).map_err(|error| content(&error.to_string()))?;
        Kubeconfig::of_tree(&tree).map_err(content)
    }

    fn of_tree(tree: &Value) -> Result<Kubeconfig, &'static str> {
        let find = |list: &str, name: &Value, field: &str| {
            let entries = tree[list].as_array().into_iter().flatten();
            entries.into_iter().find(|entry| entry["name"] == *name).map(|entry| entry[field].clone())
        };
        let context = find("contexts", &tree["current-context"], "context").ok_or("its current context is missing")?;
        let cluster = find("clusters", &context["cluster"], "cluster").ok_or("its cluster is missing")?;
        let user = find("users", &context["user"], "user").ok_or("its user is missing")?;
        let data = |from: &Value, field: &str| {
            let bytes = from[field].as_str().and_then(|text| STANDARD.decode(text).ok());
            bytes.and_then(|bytes| String::from_utf8(bytes).ok())
        };
        Ok(Kubeconfig {
            server: cluster["server"].as_str().ok_or("its cluster has no server")?.to_owned(),
            ca_pem: data(&cluster, "certificate-authority-data").ok_or("it holds no authority's certificate")?,
            user: KubeconfigUser {
                certificate_pem: data(&user, "client-certificate-data").ok_or("it holds no client certificate")?,
                key_pem: data(&user, "client-key-data").ok_or("it holds no client key")?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Kubeconfig, KubeconfigUser};

    #[test]
    fn reads_back_what_it_wrote() {
        let user = KubeconfigUser { certificate_pem: "CERT\n".into(), key_pem: "KEY\n".into() };
        let written = Kubeconfig { server: "https://127.0.0.1:6443".into(), ca_pem: "CA\n".into(), user };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, written.render("default")).unwrap();
        assert_eq!(Kubeconfig::load(&path).unwrap(), written);
        std::fs::write(&path, "kind: Config\n").unwrap();
        assert!(Kubeconfig::load(&path).is_err());
    }
}
