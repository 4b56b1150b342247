//! The user that a client certificate names: its common name, and its organisations as groups.
//!
//! The TLS layer has verified the chain against the client CA before this is asked.

use admit::User;
use base::SmolStr;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::with_authenticated;

/// `None` for a certificate without a common name.
pub fn user_of(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().find_map(|name| name.as_str().ok()).filter(|name| !name.is_empty())?;
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(SmolStr::new).collect();
    Some(with_authenticated(User { name: name.into(), groups, ..User::default() }))
}
