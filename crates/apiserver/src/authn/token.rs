//! Service-account tokens: signature, issuer, audience, time, and that the objects they are bound to still live.

use std::collections::BTreeMap;

use admit::{Place, Reader, User};
use api::{Key, Tree};
use base::{Clock, SmolStr, format_smolstr};
use serde_json::json;

use super::TokenKeys;

/// Clocks of one cluster may differ by this much.
const LEEWAY_SECONDS: i64 = 10;
const PREFIX: &str = "system:serviceaccount:";

/// Verifies tokens against keys, the clock and the live objects.
pub struct TokenReviewer<'a> {
    pub keys: &'a TokenKeys,
    /// The first one is written into new tokens; all are accepted.
    pub issuers: &'a [String],
    /// The audiences of the API server itself.
    pub audiences: &'a [String],
    pub reader: &'a dyn Reader,
    pub clock: &'a dyn Clock,
}

/// What a token shall say.
#[derive(Clone, Debug)]
pub struct Claims<'a> {
    pub namespace: &'a str,
    pub account: &'a str,
    pub account_uid: &'a str,
    pub audiences: Vec<String>,
    pub seconds: i64,
    pub bound: Option<Binding>,
    /// The node of the pod that the token is bound to.
    pub node: Option<(SmolStr, SmolStr)>,
    pub id: String,
}

/// The object whose deletion ends the token: `Pod`, `Secret` or `Node`, by name and uid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub kind: SmolStr,
    pub name: SmolStr,
    pub uid: SmolStr,
}

/// Why a token does not hold.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    #[error("not a token of this issuer")]
    Foreign,
    #[error("token audiences {have:?} are invalid for the target audiences {want:?}")]
    Audience { have: Vec<String>, want: Vec<String> },
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    TooEarly,
    #[error("{what} {name} of the token is gone or replaced")]
    Unbound { what: &'static str, name: String },
}

// === impl TokenReviewer ===

impl TokenReviewer<'_> {
    /// The user of a token and the audiences it shares with those wanted (`None`: the API's own).
    pub fn review(&self, token: &str, want: Option<&[String]>) -> Result<(User, Vec<String>), TokenError> {
        let claims = self.keys.verify(token).ok_or(TokenError::Foreign)?;
        let issuer = claims["iss"].as_str().unwrap_or_default();
        if !self.issuers.iter().any(|known| known == issuer) {
            return Err(TokenError::Foreign);
        }
        let shared = shared_audiences(&claims, want.unwrap_or(self.audiences))?;
        self.check_time(&claims)?;
        let user = self.user(&claims)?;
        Ok((user, shared))
    }

    fn check_time(&self, claims: &Tree) -> Result<(), TokenError> {
        let now = self.clock.now().as_second();
        let expires = claims["exp"].as_i64().ok_or(TokenError::Expired)?;
        if expires + LEEWAY_SECONDS < now {
            return Err(TokenError::Expired);
        }
        let from = claims["nbf"].as_i64().or(claims["iat"].as_i64()).unwrap_or(0);
        if from > now + LEEWAY_SECONDS { Err(TokenError::TooEarly) } else { Ok(()) }
    }

    fn user(&self, claims: &Tree) -> Result<User, TokenError> {
        let private = &claims["kubernetes.io"];
        let namespace = private["namespace"].as_str().unwrap_or_default();
        let account = private["serviceaccount"]["name"].as_str().unwrap_or_default();
        let uid = private["serviceaccount"]["uid"].as_str().unwrap_or_default();
        let subject = format!("{PREFIX}{namespace}:{account}");
        if namespace.is_empty() || account.is_empty() || claims["sub"].as_str() != Some(&subject) {
            return Err(TokenError::Foreign);
        }
        self.check_live("service account", "/serviceaccounts", namespace, account, uid)?;
        let mut extra: BTreeMap<SmolStr, Vec<SmolStr>> = BTreeMap::new();
        let mut note = |key: &str, value: &str| {
            extra.insert(format_smolstr!("authentication.kubernetes.io/{key}"), vec![value.into()]);
        };
        if let Some(id) = claims["jti"].as_str() {
            note("credential-id", &format!("JTI={id}"));
        }
        let bound = |kind: &str| {
            let object = &private[kind];
            object["name"].as_str().map(|name| (name, object["uid"].as_str().unwrap_or_default()))
        };
        if let Some((name, uid)) = bound("secret") {
            self.check_live("secret", "/secrets", namespace, name, uid)?;
        }
        if let Some((name, uid)) = bound("node") {
            // A pod's token names its node for information; a token bound to a node alone dies with the node.
            if bound("pod").is_none() {
                self.check_live("node", "/nodes", "", name, uid)?;
            }
            note("node-name", name);
            note("node-uid", uid);
        }
        if let Some((name, uid)) = bound("pod") {
            self.check_live("pod", "/pods", namespace, name, uid)?;
            note("pod-name", name);
            note("pod-uid", uid);
        }
        let groups = vec!["system:serviceaccounts".into(), format_smolstr!("system:serviceaccounts:{namespace}")];
        Ok(User { name: subject.into(), uid: uid.into(), groups, extra })
    }

    /// The object is there, under that uid, and not past its deletion.
    fn check_live(
        &self,
        what: &'static str,
        storage: &str,
        namespace: &str,
        name: &str,
        uid: &str,
    ) -> Result<(), TokenError> {
        let found = self.reader.get(&Place { storage: storage.into(), key: Key::new(namespace, name) });
        let now = self.clock.now();
        let alive = found.is_some_and(|object| {
            let going = object.header.deletion.is_some_and(|at| at.as_second() + 60 < now.as_second());
            object.header.uid == uid && !going
        });
        if alive { Ok(()) } else { Err(TokenError::Unbound { what, name: name.to_owned() }) }
    }

    /// Makes a token; returns it with its expiry in seconds since the epoch.
    pub fn issue(&self, claims: &Claims<'_>) -> Result<(String, i64), jsonwebtoken::errors::Error> {
        let now = self.clock.now().as_second();
        let expires = now + claims.seconds;
        let account = json!({"name": claims.account, "uid": claims.account_uid});
        let mut private = json!({"namespace": claims.namespace, "serviceaccount": account});
        if let Some(bound) = &claims.bound {
            private[bound.kind.to_ascii_lowercase()] = json!({"name": bound.name, "uid": bound.uid});
        }
        if let Some((name, uid)) = &claims.node {
            private["node"] = json!({"name": name, "uid": uid});
        }
        let body = json!({
            "aud": claims.audiences,
            "exp": expires,
            "iat": now,
            "iss": self.issuers.first(),
            "jti": claims.id,
            "kubernetes.io": private,
            "nbf": now,
            "sub": format!("{PREFIX}{}:{}", claims.namespace, claims.account),
        });
        self.keys.sign(&body).map(|token| (token, expires))
    }
}

fn shared_audiences(claims: &Tree, want: &[String]) -> Result<Vec<String>, TokenError> {
    let have: Vec<String> = match &claims["aud"] {
        Tree::String(one) => vec![one.clone()],
        Tree::Array(many) => many.iter().filter_map(Tree::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let shared: Vec<String> = want.iter().filter(|audience| have.contains(audience)).cloned().collect();
    if shared.is_empty() { Err(TokenError::Audience { have, want: want.to_vec() }) } else { Ok(shared) }
}
