//! A certificate authority on disk: kept for ten years, or until another takes its place.
//!
//! `NAME.crt` says whom to trust: the authority's own certificate first, then those of authorities that come or go.
//! `cross-NAME.crt` is its certificate as its predecessor signed it, for those who trust only that one.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::files::{Access, read, write};
use super::leaf::{Profile, set_validity};
use super::{PkiError, random};

const LIFE: SignedDuration = SignedDuration::from_hours(24 * 3650);
/// Certificates are valid from a little before now, for clocks of machines differ; short-lived ones from less before, or
/// they would be due as soon as they are made.
const SLACK: SignedDuration = SignedDuration::from_mins(10);
const SLACK_PART: i32 = 10;

/// A CA that can sign.
pub struct Authority {
    /// Whom to trust: its own certificate, and others while one takes the place of another.
    pub pem: String,
    pub der: CertificateDer<'static>,
    /// Goes along with every leaf. Empty where nobody needs it.
    pub cross: String,
    issuer: Issuer<'static, KeyPair>,
}

/// An authority that is not on the disk yet.
pub struct Made {
    pub certificate: String,
    pub key: String,
    /// The certificate as the one before it signed it.
    pub cross: String,
}

// === impl Authority ===

impl Authority {
    /// The authority `name.crt` and `name.key` of a folder; made there when there is none.
    pub fn load_or_make(folder: &Path, name: &str, now: Timestamp) -> Result<Authority, PkiError> {
        let (cert_path, key_path) = paths(folder, name);
        let (pem, key) = match (read(&cert_path)?, read(&key_path)?) {
            (Some(pem), Some(key)) => (pem, KeyPair::from_pem(&key)?),
            (None, None) => make(&cert_path, &key_path, name, now)?,
            // The key is written first, so a crash between the two leaves a key alone: nothing was signed with it.
            (None, Some(_)) => make(&cert_path, &key_path, name, now)?,
            (Some(_), None) => {
                let why = "its key is missing".to_owned();
                return Err(PkiError::Content { path: cert_path, why });
            }
        };
        let content =
            |error: &dyn std::fmt::Display| PkiError::Content { path: cert_path.clone(), why: error.to_string() };
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| content(&error))?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|error| content(&error))?;
        let cross = read(&cross_path(folder, name))?.unwrap_or_default();
        Ok(Authority { pem, der, cross, issuer })
    }

    /// Another authority of this name, which this one vouches for.
    pub fn successor(&self, name: &str, now: Timestamp) -> Result<Made, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = params(name, now)?;
        let certificate = params.self_signed(&key)?.pem();
        params.serial_number = Some(serial()?);
        params.use_authority_key_identifier_extension = true;
        let cross = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Made { certificate, key: key.serialize_pem(), cross })
    }

    /// Signs a leaf for a public key; answers the chain to show. The profile decides everything; a request's own wishes
    /// are not looked at.
    pub fn issue(
        &self,
        profile: &Profile,
        key: &impl rcgen::PublicKeyData,
        now: Timestamp,
    ) -> Result<String, PkiError> {
        let mut params = profile.params()?;
        set_validity(&mut params, now - SLACK.min(profile.life / SLACK_PART), now + profile.life);
        params.serial_number = Some(serial()?);
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer)?.pem() + &self.cross)
    }

    /// Signs a leaf for the key of a certificate request, after checking that the requester holds the key.
    pub fn issue_for_request(&self, profile: &Profile, request_pem: &str, now: Timestamp) -> Result<String, PkiError> {
        // Parsing verifies the request's own signature.
        let request = rcgen::CertificateSigningRequestParams::from_pem(request_pem)?;
        self.issue(profile, &request.public_key, now)
    }
}

/// Where the certificate lies that the one before it signed.
pub(super) fn cross_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("cross-{name}.crt"))
}

pub(super) fn paths(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")))
}

fn make(cert_path: &Path, key_path: &Path, name: &str, now: Timestamp) -> Result<(String, KeyPair), PkiError> {
    let key = KeyPair::generate()?;
    let pem = params(name, now)?.self_signed(&key)?.pem();
    write(key_path, key.serialize_pem().as_bytes(), Access::Secret)?;
    write(cert_path, pem.as_bytes(), Access::Public)?;
    Ok((pem, key))
}

fn params(name: &str, now: Timestamp) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    // The time makes two clusters' authorities tell apart in a client's trust store.
    params.distinguished_name.push(DnType::CommonName, format!("evenkeel-{name}@{}", now.as_second()));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    set_validity(&mut params, now - SLACK, now + LIFE);
    params.serial_number = Some(serial()?);
    Ok(params)
}

fn serial() -> Result<rcgen::SerialNumber, PkiError> {
    let mut bytes = [0; 16];
    random(&mut bytes)?;
    // Positive and of constant length.
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(rcgen::SerialNumber::from_slice(&bytes))
}
