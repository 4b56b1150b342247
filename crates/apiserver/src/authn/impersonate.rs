//! Impersonation headers: who the requester wants to be, and each right that takes.

use admit::User;
use api::Status;
use base::SmolStr;
use http::HeaderMap;
use percent_encoding::percent_decode_str;

use super::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, with_authenticated};

const EXTRA: &str = "impersonate-extra-";

/// One thing to be authorised with verb `impersonate`: (group, resource, subresource, namespace, name).
pub type Claim = (&'static str, &'static str, SmolStr, SmolStr, SmolStr);

/// The user to act as and the claims to authorise; `None` without impersonation headers.
pub fn impersonated(headers: &HeaderMap) -> Result<Option<(User, Vec<Claim>)>, Status> {
    let all = |name: &str| headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(SmolStr::new);
    let name: SmolStr = all("impersonate-user").next().unwrap_or_default();
    let groups: Vec<SmolStr> = all("impersonate-group").collect();
    let uid: SmolStr = all("impersonate-uid").next().unwrap_or_default();
    let extras = extras(headers);
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extras.is_empty() {
            return Ok(None);
        }
        return Err(Status::internal("requested impersonation without impersonating a user"));
    }
    let mut claims: Vec<Claim> = Vec::new();
    let mut user = User { name: name.clone(), uid: uid.clone(), groups: groups.clone(), ..User::default() };
    let empty = SmolStr::default;
    match name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        Some((namespace, account)) => {
            claims.push(("", "serviceaccounts", empty(), namespace.into(), account.into()));
            if groups.is_empty() {
                user.groups.push("system:serviceaccounts".into());
                user.groups.push(format!("system:serviceaccounts:{namespace}").into());
            }
        }
        None => claims.push(("", "users", empty(), empty(), name.clone())),
    }
    claims.extend(groups.into_iter().map(|group| ("", "groups", empty(), empty(), group)));
    if !uid.is_empty() {
        claims.push(("authentication.k8s.io", "uids", empty(), empty(), uid));
    }
    for (key, value) in extras {
        claims.push(("authentication.k8s.io", "userextras", key.clone(), empty(), value.clone()));
        user.extra.entry(key).or_default().push(value);
    }
    if name == ANONYMOUS {
        if !user.groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
            user.groups.push(UNAUTHENTICATED.into());
        }
        return Ok(Some((user, claims)));
    }
    Ok(Some((with_authenticated(user), claims)))
}

fn extras(headers: &HeaderMap) -> Vec<(SmolStr, SmolStr)> {
    let found = headers.iter().filter_map(|(name, value)| {
        let key = name.as_str().strip_prefix(EXTRA)?;
        let key = percent_decode_str(key).decode_utf8_lossy().to_ascii_lowercase();
        Some((SmolStr::from(key), SmolStr::new(value.to_str().ok()?)))
    });
    found.collect()
}
