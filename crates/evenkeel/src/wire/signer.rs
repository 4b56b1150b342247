//! The cluster's authorities as the signer of approved certificate requests.

use std::sync::Arc;

use controllers::certificates::{Authority, Signed, Signer, Wanted};
use jiff::{SignedDuration, Timestamp};

use crate::pki::{Profile, ServerPki, Usage};

/// Longest life of a certificate that somebody asked for; also the life where nobody said how long.
const LIFE_MAX: SignedDuration = SignedDuration::from_hours(24 * 365);

/// Holds the keys of both authorities.
pub struct PkiSigner(pub Arc<ServerPki>);

impl Signer for PkiSigner {
    fn sign(&self, wanted: &Wanted, now: Timestamp) -> Signed {
        let request = &wanted.request;
        if request.organizations.len() > 1 {
            return Err("certificates with more than one organization are not issued here".to_owned());
        }
        if !(request.emails.is_empty() && request.uris.is_empty()) {
            return Err("certificates for email addresses and URIs are not issued here".to_owned());
        }
        let serving = wanted.authority == Authority::NodeServing;
        let life = wanted.seconds.map_or(LIFE_MAX, |seconds| SignedDuration::from_secs(seconds).min(LIFE_MAX));
        let profile = Profile {
            machine: None,
            common_name: request.common_name.clone(),
            organizations: request.organizations.clone(),
            names: request.dns_names.iter().cloned().collect(),
            addresses: request.ip_addresses.iter().copied().collect(),
            usage: if serving { Usage::Server } else { Usage::Client },
            life,
        };
        let authorities = self.0.current();
        let authority = if serving { &authorities.server } else { &authorities.client };
        authority.issue_for_request(&profile, &wanted.pem, now).map_err(|error| base::Chain(&error).to_string())
    }
}
