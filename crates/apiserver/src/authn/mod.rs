//! Who asks: client certificates, bearer tokens, anonymous on a few paths, impersonation.
//!
//! There is no switch that turns authentication off. A credential that was offered and does not hold is 401; nobody falls
//! back to anonymous with a bad token.

mod certificate;
mod impersonate;
mod keys;
mod token;

pub use certificate::user_of as user_of_certificate;
pub use impersonate::{Claim, impersonated};
pub use keys::{KeyError, TokenKeys};
pub use token::{Binding, Claims as TokenClaims, TokenReviewer};

use admit::User;
use api::{Reason, Status};
use async_trait::async_trait;
use base::SmolStr;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::limits::TOKEN_BYTES_MAX;

pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ANONYMOUS: &str = "system:anonymous";
pub const MASTERS: &str = "system:masters";

/// Bearer tokens that are no service account's: join tokens and the like. `None`: not one of ours.
#[async_trait]
pub trait TokenAuthenticator: Send + Sync {
    async fn authenticate(&self, token: &str) -> Option<User>;
}

/// No other tokens.
pub struct NoTokens;

#[async_trait]
impl TokenAuthenticator for NoTokens {
    async fn authenticate(&self, _token: &str) -> Option<User> {
        None
    }
}

/// The user of a request, before impersonation. `certificate` is the user of the verified client certificate, if any.
///
/// # Errors
/// 401 for a bad token, and for no credentials outside the public paths.
pub async fn authenticate(
    headers: &HeaderMap,
    path: &str,
    certificate: Option<&User>,
    tokens: &TokenReviewer<'_>,
    others: &dyn TokenAuthenticator,
) -> Result<User, Status> {
    if let Some(user) = certificate {
        return Ok(user.clone());
    }
    if let Some(token) = bearer(headers) {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(unauthorized());
        }
        if let Ok((user, _)) = tokens.review(token, None) {
            return Ok(with_authenticated(user));
        }
        return others.authenticate(token).await.map(with_authenticated).ok_or_else(unauthorized);
    }
    if headers.contains_key(AUTHORIZATION) || !is_public(path) {
        return Err(unauthorized());
    }
    Ok(User { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..User::default() })
}

/// Paths that upstream's `system:public-info-viewer` opens to everybody; RBAC still decides.
fn is_public(path: &str) -> bool {
    let below = |root: &str| path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    ["/healthz", "/livez", "/readyz", "/version"].into_iter().any(below)
}

pub fn unauthorized() -> Status {
    Status::new(Reason::Unauthorized, "Unauthorized")
}

/// The token of `Authorization: Bearer`, or of a WebSocket's `base64url.bearer.authorization.k8s.io.` protocol.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Everybody who is known belongs to `system:authenticated`.
pub fn with_authenticated(mut user: User) -> User {
    let known = user.groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED);
    if !known {
        user.groups.push(SmolStr::new_static(AUTHENTICATED));
    }
    user
}
