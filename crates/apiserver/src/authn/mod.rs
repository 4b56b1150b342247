//! Who asks: client certificates, bearer tokens, nobody known (`system:anonymous`), impersonation.
//!
//! There is no switch that turns authentication off. A credential that was offered and does not hold is 401; nobody falls
//! back to anonymous with a bad token. What anonymous may do is RBAC's to say, as for everybody.

mod certificate;
mod impersonate;
mod keys;
mod token;

pub use certificate::BadCertificate;
pub(crate) use certificate::Presented;
pub use impersonate::{Claim, impersonated};
pub use keys::{KeyError, TokenKeys};
pub use token::{Binding, Claims as TokenClaims, TokenReviewer};

use std::borrow::Cow;

use admit::User;
use api::{Reason, Status};
use async_trait::async_trait;
use base::SmolStr;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderValue};

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

/// The user of a request, before impersonation. `certificate` is the user of the client certificate, if one was shown.
///
/// # Errors
/// 401 for a bad token, and for a bad certificate without a good token.
pub async fn authenticate(
    headers: &HeaderMap,
    certificate: Option<Result<&User, BadCertificate>>,
    tokens: &TokenReviewer<'_>,
    others: &dyn TokenAuthenticator,
) -> Result<User, Status> {
    if let Some(Ok(user)) = certificate {
        return Ok(user.clone());
    }
    if let Some(token) = bearer(headers) {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(unauthorized());
        }
        if let Ok((user, _)) = tokens.review(&token, None) {
            return Ok(with_authenticated(user));
        }
        return others.authenticate(&token).await.map(with_authenticated).ok_or_else(unauthorized);
    }
    if certificate.is_some() {
        return Err(unauthorized());
    }
    Ok(User { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..User::default() })
}

/// Takes the token out of a WebSocket's protocols once it has been read: what is forwarded to nodes and workloads must
/// not bring it along.
pub fn drop_websocket_token(headers: &mut HeaderMap) {
    let protocols: Vec<HeaderValue> = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().cloned().collect();
    if !protocols.iter().any(|value| value.to_str().is_ok_and(|text| text.contains(WEBSOCKET_TOKEN))) {
        return;
    }
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    let words = protocols.iter().filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(','));
    let kept: Vec<&str> = words.map(str::trim).filter(|word| !word.starts_with(WEBSOCKET_TOKEN)).collect();
    if let Ok(kept) = HeaderValue::from_str(&kept.join(", ")) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, kept);
    }
}

pub fn unauthorized() -> Status {
    Status::new(Reason::Unauthorized, "Unauthorized")
}

/// How a browser, which cannot set headers on a WebSocket, brings its token.
const WEBSOCKET_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

/// The token of `Authorization: Bearer`, or of a WebSocket's protocol of that name.
pub fn bearer(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = header.and_then(|value| value.split_once(' ')).and_then(|(scheme, token)| {
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
    });
    token.map(Cow::Borrowed).or_else(|| websocket_token(headers).map(Cow::Owned))
}

fn websocket_token(headers: &HeaderMap) -> Option<String> {
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let encoded = protocols.flat_map(|list| list.split(',')).find_map(|word| word.trim().strip_prefix(WEBSOCKET_TOKEN));
    // What does not decode is a bad token, not an absent one.
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    encoded.map(|text| decode(text).unwrap_or_default())
}

/// Everybody who is known belongs to `system:authenticated`.
pub fn with_authenticated(mut user: User) -> User {
    let known = user.groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED);
    if !known {
        user.groups.push(SmolStr::new_static(AUTHENTICATED));
    }
    user
}

#[cfg(test)]
mod tests {
    use http::header::SEC_WEBSOCKET_PROTOCOL;
    use http::{HeaderMap, HeaderValue};

    #[test]
    fn a_websockets_token_is_read_and_goes_no_further() {
        let mut headers = HeaderMap::new();
        let sent = "base64url.bearer.authorization.k8s.io.YWJj, v5.channel.k8s.io, v4.channel.k8s.io";
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(sent));
        assert_eq!(super::bearer(&headers).as_deref(), Some("abc"));
        super::drop_websocket_token(&mut headers);
        assert_eq!(headers[SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io, v4.channel.k8s.io");
        assert_eq!(super::bearer(&headers), None);
    }
}
