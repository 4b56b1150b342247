//! The user that a client certificate names: its common name, and its organisations as groups.

use std::collections::BTreeSet;

use admit::User;
use base::SmolStr;
use jiff::Timestamp;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::with_authenticated;

/// What a connection's client certificate, whose key the handshake has proven, is worth.
#[derive(Clone, Debug)]
pub(crate) enum Presented {
    /// None was shown, or one that names nobody.
    Nothing,
    /// Signed by the client CA; holds until then.
    Holds { user: User, until: Timestamp, uris: Vec<SmolStr> },
    /// Foreign, expired, or for another purpose.
    Fails,
}

/// A certificate that was shown and does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCertificate;

// === impl Presented ===

impl Presented {
    pub(crate) fn of(chain: &[CertificateDer<'_>], clients: &dyn ClientCertVerifier, now: Timestamp) -> Presented {
        let Some((leaf, rest)) = chain.split_first() else { return Presented::Nothing };
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let expiries: Option<Vec<Timestamp>> = chain.iter().map(expiry).collect();
        let until = expiries.and_then(|all| all.into_iter().min());
        match (clients.verify_client_cert(leaf, rest, time), until) {
            (Ok(_), Some(until)) => match user_of(leaf) {
                Some(user) => Presented::Holds { user, until, uris: uris_of(leaf) },
                None => Presented::Nothing,
            },
            _ => Presented::Fails,
        }
    }

    /// The user at a time, by what is revoked then.
    pub(crate) fn at(&self, now: Timestamp, revoked: &BTreeSet<SmolStr>) -> Option<Result<&User, BadCertificate>> {
        match self {
            Presented::Nothing => None,
            Presented::Holds { user, until, .. } if now <= *until && !self.is_revoked(revoked) => Some(Ok(user)),
            Presented::Holds { .. } | Presented::Fails => Some(Err(BadCertificate)),
        }
    }

    /// By the machine that it names, or by the user.
    pub(crate) fn is_revoked(&self, revoked: &BTreeSet<SmolStr>) -> bool {
        let Presented::Holds { user, uris, .. } = self else { return false };
        revoked.contains(&user.name) || uris.iter().any(|uri| revoked.contains(uri))
    }
}

fn uris_of(der: &[u8]) -> Vec<SmolStr> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Vec::new() };
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|extension| &extension.value.general_names);
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some(SmolStr::new(uri)),
        _ => None,
    };
    names.filter_map(uri).collect()
}

fn expiry(der: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// `None` for a certificate without a common name.
fn user_of(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().find_map(|name| name.as_str().ok()).filter(|name| !name.is_empty())?;
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(SmolStr::new).collect();
    Some(with_authenticated(User { name: name.into(), groups, ..User::default() }))
}
