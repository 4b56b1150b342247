//! Leaf certificates: found or issued, and issued again at two thirds of their life.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::PkiError;
use super::authority::Authority;
use super::bundle::blocks;
use super::files::{Access, read, write};
use super::machine::MachineId;

/// How long leaves last unless the operator says otherwise.
pub const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(24 * 365);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Client,
    Server,
    /// A peer among equals: it connects and is connected to.
    Both,
}

/// What a leaf says about its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub names: BTreeSet<String>,
    pub addresses: BTreeSet<IpAddr>,
    /// The machine it was issued to.
    pub machine: Option<String>,
    pub usage: Usage,
    pub life: SignedDuration,
}

/// A certificate with its key, ready for TLS.
pub struct Leaf {
    pub pem: String,
    pub key_pem: String,
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

/// What became of a leaf that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    Kept,
    Issued,
}

// === impl Profile ===

impl Profile {
    pub fn client(common_name: &str, organizations: &[&str]) -> Profile {
        Profile {
            common_name: common_name.to_owned(),
            organizations: organizations.iter().map(|name| (*name).to_owned()).collect(),
            names: BTreeSet::new(),
            addresses: BTreeSet::new(),
            machine: None,
            usage: Usage::Client,
            life: LEAF_LIFE,
        }
    }

    pub fn server(common_name: &str, names: BTreeSet<String>, addresses: BTreeSet<IpAddr>) -> Profile {
        Profile { names, addresses, usage: Usage::Server, ..Profile::client(common_name, &[]) }
    }

    /// `system:node:NAME`: can only ever name that node.
    pub fn node_client(node: &str) -> Profile {
        Profile::client(&format!("system:node:{node}"), &["system:nodes"])
    }

    pub fn kubelet_serving(node: &str, addresses: BTreeSet<IpAddr>) -> Profile {
        let names = BTreeSet::from([node.to_owned(), "localhost".to_owned()]);
        let organizations = vec!["system:nodes".to_owned()];
        Profile { organizations, ..Profile::server(&format!("system:node:{node}"), names, addresses) }
    }

    /// Names the machine too, so that the certificate ends with it.
    #[must_use]
    pub fn of_machine(self, machine: &MachineId) -> Profile {
        Profile { machine: Some(machine.uri()), ..self }
    }

    /// A member of the managed etcd: server, client and peer with one leaf.
    pub fn etcd_member(node: &str, addresses: BTreeSet<IpAddr>) -> Profile {
        let names = BTreeSet::from([node.to_owned(), "localhost".to_owned()]);
        Profile { usage: Usage::Both, ..Profile::server(node, names, addresses) }
    }

    #[must_use]
    pub fn lasting(self, life: SignedDuration) -> Profile {
        Profile { life, ..self }
    }

    pub(super) fn params(&self) -> Result<CertificateParams, PkiError> {
        let mut params = CertificateParams::default();
        // The certificate library keeps one value per attribute, and no role of ours has more than one group.
        assert!(self.organizations.len() <= 1, "a leaf has one organization at most: {:?}", self.organizations);
        for organization in &self.organizations {
            params.distinguished_name.push(DnType::OrganizationName, organization.clone());
        }
        params.distinguished_name.push(DnType::CommonName, self.common_name.clone());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match self.usage {
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        for name in &self.names {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        params.subject_alt_names.extend(self.addresses.iter().map(|address| SanType::IpAddress(*address)));
        if let Some(machine) = &self.machine {
            params.subject_alt_names.push(SanType::URI(machine.as_str().try_into()?));
        }
        Ok(params)
    }
}

// === impl Leaf ===

impl Leaf {
    /// The leaf `name.crt` and `name.key` of a folder, if it still serves; else a new one of the authority.
    pub fn load_or_issue(
        folder: &Path,
        name: &str,
        authority: &Authority,
        profile: &Profile,
        now: Timestamp,
    ) -> Result<(Leaf, Renewal), PkiError> {
        if let Some(leaf) = Leaf::load(folder, name)?
            && leaf.fits(authority, profile)
            && !leaf.is_due(now)
            // A shorter life that was asked for meanwhile holds from now on.
            && leaf.not_after <= now + profile.life
        {
            return Ok((leaf, Renewal::Kept));
        }
        let key = KeyPair::generate()?;
        let pem = authority.issue(profile, &key, now)?;
        let leaf = Leaf::store(folder, name, &pem, &key.serialize_pem())?;
        Ok((leaf, Renewal::Issued))
    }

    /// None where there is none; a damaged one is as good as none, for leaves can be issued again.
    pub fn load(folder: &Path, name: &str) -> Result<Option<Leaf>, PkiError> {
        let (cert_path, key_path) = paths(folder, name);
        let (Some(pem), Some(key_pem)) = (read(&cert_path)?, read(&key_path)?) else { return Ok(None) };
        Ok(Leaf::parse(&pem, &key_pem).ok())
    }

    /// A leaf out of two texts, such as a kubeconfig's.
    pub fn of_pem(pem: &str, key_pem: &str) -> Result<Leaf, PkiError> {
        Leaf::parse(pem, key_pem).map_err(|why| PkiError::Content { path: PathBuf::from("the given text"), why })
    }

    /// Writes a leaf, key first.
    pub fn store(folder: &Path, name: &str, pem: &str, key_pem: &str) -> Result<Leaf, PkiError> {
        let (cert_path, key_path) = paths(folder, name);
        let leaf = Leaf::parse(pem, key_pem).map_err(|why| PkiError::Content { path: cert_path.clone(), why })?;
        write(&key_path, key_pem.as_bytes(), Access::Secret)?;
        write(&cert_path, pem.as_bytes(), Access::Public)?;
        Ok(leaf)
    }

    fn parse(pem: &str, key_pem: &str) -> Result<Leaf, String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let chain = chain.map_err(|error| error.to_string())?;
        let first = chain.first().ok_or("no certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| error.to_string())?;
        let (_, certificate) = X509Certificate::from_der(first).map_err(|error| error.to_string())?;
        let pair = KeyPair::from_pem(key_pem).map_err(|error| error.to_string())?;
        if certificate.public_key().subject_public_key.data.as_ref() != pair.public_key_raw() {
            return Err("the key is another certificate's".to_owned());
        }
        let (not_before, not_after) = validity(&certificate)?;
        Ok(Leaf { pem: pem.to_owned(), key_pem: key_pem.to_owned(), chain, key, not_before, not_after })
    }

    /// True from two thirds of its life on, and for clocks before its beginning.
    pub fn is_due(&self, now: Timestamp) -> bool {
        now < self.not_before || self.due() <= now
    }

    /// When it is to be issued again.
    pub fn due(&self) -> Timestamp {
        due(self.not_before, self.not_after)
    }

    /// True while others accept it.
    pub fn serves(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// True where this authority signed it for this profile, and it shows the way to whom others may trust.
    fn fits(&self, authority: &Authority, profile: &Profile) -> bool {
        let Some(first) = self.chain.first() else { return false };
        let (Ok((_, leaf)), Ok((_, issuer))) =
            (X509Certificate::from_der(first), X509Certificate::from_der(&authority.der))
        else {
            return false;
        };
        let text = |values: Vec<&str>| values.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let common = leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok()).collect();
        let organizations = leaf.subject().iter_organization().filter_map(|name| name.as_str().ok()).collect();
        let (names, addresses, machine) = alternative_names(&leaf);
        leaf.verify_signature(Some(issuer.public_key())).is_ok()
            && authorities_of(&self.pem) == authority.cross
            && text(common) == [profile.common_name.clone()]
            && text(organizations) == profile.organizations
            && names == profile.names
            && addresses == profile.addresses
            && machine == profile.machine
    }

    /// Under which addresses it serves.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        let first = self.chain.first().and_then(|first| X509Certificate::from_der(first).ok());
        first.map(|(_, certificate)| alternative_names(&certificate).1).unwrap_or_default()
    }

    /// Whom it names.
    pub fn common_name(&self) -> Option<String> {
        let (_, certificate) = X509Certificate::from_der(self.chain.first()?).ok()?;
        let name = certificate.subject().iter_common_name().find_map(|name| name.as_str().ok());
        name.map(str::to_owned)
    }

    pub fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

/// What a chain shows beside its leaf.
fn authorities_of(chain: &str) -> String {
    blocks(chain).skip(1).collect()
}

/// Two thirds of a certificate's life.
pub fn due(not_before: Timestamp, not_after: Timestamp) -> Timestamp {
    not_before + not_after.duration_since(not_before) * 2 / 3
}

fn paths(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")))
}

fn validity(certificate: &X509Certificate<'_>) -> Result<(Timestamp, Timestamp), String> {
    let at = |seconds: i64| Timestamp::from_second(seconds).map_err(|error| error.to_string());
    let validity = certificate.validity();
    Ok((at(validity.not_before.timestamp())?, at(validity.not_after.timestamp())?))
}

fn alternative_names(certificate: &X509Certificate<'_>) -> (BTreeSet<String>, BTreeSet<IpAddr>, Option<String>) {
    let (mut names, mut addresses, mut machine) = (BTreeSet::new(), BTreeSet::new(), None);
    let found = certificate.subject_alternative_name().ok().flatten();
    for name in found.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default() {
        match name {
            GeneralName::DNSName(name) => {
                names.insert((*name).to_owned());
            }
            GeneralName::IPAddress(bytes) => {
                let four: Option<[u8; 4]> = (*bytes).try_into().ok();
                let sixteen: Option<[u8; 16]> = (*bytes).try_into().ok();
                addresses.extend(four.map(IpAddr::from).or(sixteen.map(IpAddr::from)));
            }
            GeneralName::URI(uri) => machine = Some((*uri).to_owned()),
            _ => {}
        }
    }
    (names, addresses, machine)
}

/// Sets the validity, to the second.
pub(super) fn set_validity(params: &mut CertificateParams, from: Timestamp, until: Timestamp) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let seconds = |at: Timestamp| std::time::Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0));
    params.not_before = epoch + seconds(from);
    params.not_after = epoch + seconds(until);
}
