//! Who asks (client certificate, or bearer token by TokenReview) and whether they may (SubjectAccessReview).
//!
//! The API decides; its answers are believed for a short while.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use api::{Gvr, Tree};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls::pki_types::CertificateDer;
use serde_json::json;
use tokio::time::Instant;
use x509_parser::prelude::FromDer;

use crate::context::Context;
use crate::limits;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Caller {
    pub user: String,
    pub uid: String,
    pub groups: Vec<String>,
}

pub struct Authority {
    context: Arc<Context>,
    tokens: Cache<String, Option<Caller>>,
    verdicts: Cache<(Caller, String, String), bool>,
}

struct Cache<K, V>(Mutex<BTreeMap<K, (Instant, V)>>);

impl<K: Ord, V: Clone> Cache<K, V> {
    fn new() -> Self {
        Cache(Mutex::new(BTreeMap::new()))
    }

    fn get(&self, key: &K) -> Option<V> {
        let held = self.0.lock().expect("no holder of this lock panics");
        held.get(key).filter(|(at, _)| at.elapsed() < limits::AUTH_CACHE_FOR).map(|(_, value)| value.clone())
    }

    fn put(&self, key: K, value: V) {
        let mut held = self.0.lock().expect("no holder of this lock panics");
        if limits::AUTH_CACHE_ENTRIES_MAX <= held.len() {
            held.retain(|_, (at, _)| at.elapsed() < limits::AUTH_CACHE_FOR);
            if limits::AUTH_CACHE_ENTRIES_MAX <= held.len() {
                held.clear();
            }
        }
        held.insert(key, (Instant::now(), value));
    }
}

/// Common name and organisations of a client certificate that TLS has verified.
pub fn caller_of(certificate: &CertificateDer<'_>) -> Option<Caller> {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
    let user = parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    let organisations = parsed.subject().iter_organization().filter_map(|name| name.as_str().ok());
    let mut groups: Vec<String> = organisations.map(str::to_owned).collect();
    groups.push("system:authenticated".to_owned());
    Some(Caller { user, uid: String::new(), groups })
}

impl Authority {
    pub fn new(context: Arc<Context>) -> Authority {
        Authority { context, tokens: Cache::new(), verdicts: Cache::new() }
    }

    /// None: nobody we know. `Err`: the API could not be asked.
    pub async fn authenticate(&self, peer: Option<Caller>, headers: &HeaderMap) -> Result<Option<Caller>, String> {
        if peer.is_some() {
            return Ok(peer);
        }
        let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(token) = header.and_then(|text| text.strip_prefix("Bearer ")).map(str::trim) else { return Ok(None) };
        let token = token.to_owned();
        if let Some(known) = self.tokens.get(&token) {
            return Ok(known);
        }
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token},
        });
        let gvr = Gvr::new("authentication.k8s.io", "v1", "tokenreviews");
        let reply = self.context.client.create(&gvr, "", &review).await.map_err(|error| error.to_string())?;
        let caller = caller_in(&reply["status"]);
        self.tokens.put(token, caller.clone());
        Ok(caller)
    }

    /// True when any of the subresources of this node is allowed.
    pub async fn authorize(&self, caller: &Caller, verb: &str, subresources: &[&str]) -> Result<bool, String> {
        for subresource in subresources {
            if self.may(caller, verb, subresource).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn may(&self, caller: &Caller, verb: &str, subresource: &str) -> Result<bool, String> {
        let key = (caller.clone(), verb.to_owned(), subresource.to_owned());
        if let Some(verdict) = self.verdicts.get(&key) {
            return Ok(verdict);
        }
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": caller.user, "uid": caller.uid, "groups": caller.groups,
                "resourceAttributes": {
                    "verb": verb, "group": "", "version": "v1", "resource": "nodes", "subresource": subresource,
                    "name": self.context.config.node_name,
                },
            },
        });
        let gvr = Gvr::new("authorization.k8s.io", "v1", "subjectaccessreviews");
        let reply = self.context.client.create(&gvr, "", &review).await.map_err(|error| error.to_string())?;
        let allowed = reply["status"]["allowed"] == true;
        self.verdicts.put(key, allowed);
        Ok(allowed)
    }
}

fn caller_in(status: &Tree) -> Option<Caller> {
    if status["authenticated"] != true {
        return None;
    }
    let user = &status["user"];
    let text = |name: &str| user[name].as_str().unwrap_or_default().to_owned();
    let groups = user["groups"].as_array().into_iter().flatten().filter_map(Tree::as_str).map(str::to_owned);
    Some(Caller { user: text("username"), uid: text("uid"), groups: groups.collect() })
}
