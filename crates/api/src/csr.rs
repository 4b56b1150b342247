//! Certificate requests (PKCS #10): who shall be named, as approvers and signers must know before they agree.

use std::net::IpAddr;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

/// What a request asks to be called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateRequest {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub ip_addresses: Vec<IpAddr>,
    pub emails: Vec<String>,
    pub uris: Vec<String>,
}

/// Why bytes are no certificate request; worded as upstream words it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CsrError {
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    Pem,
    #[error("the request is not a PKCS #10 structure in DER")]
    Der,
    #[error("the request names a subject in a way that is not known")]
    Name,
}

// === impl CertificateRequest ===

impl CertificateRequest {
    /// Reads the first PEM block.
    ///
    /// # Errors
    /// Another block or none, bytes that are no request, names in unknown forms.
    pub fn from_pem(pem: &[u8]) -> Result<CertificateRequest, CsrError> {
        let (_, block) = parse_x509_pem(pem).map_err(|_| CsrError::Pem)?;
        if block.label != "CERTIFICATE REQUEST" {
            return Err(CsrError::Pem);
        }
        let (rest, request) = X509CertificationRequest::from_der(&block.contents).map_err(|_| CsrError::Der)?;
        if !rest.is_empty() {
            return Err(CsrError::Der);
        }
        let subject = &request.certification_request_info.subject;
        let mut found = CertificateRequest::default();
        // The last common name counts, as Go's parser has it.
        for name in subject.iter_common_name() {
            found.common_name = name.as_str().map_err(|_| CsrError::Name)?.to_owned();
        }
        for name in subject.iter_organization() {
            found.organizations.push(name.as_str().map_err(|_| CsrError::Name)?.to_owned());
        }
        for extension in request.requested_extensions().into_iter().flatten() {
            match extension {
                ParsedExtension::SubjectAlternativeName(names) => {
                    names.general_names.iter().try_for_each(|name| found.add(name))?;
                }
                ParsedExtension::ParseError { .. } => return Err(CsrError::Der),
                _ => {}
            }
        }
        Ok(found)
    }

    /// True when the subject is all that is asked for.
    pub fn has_no_alternatives(&self) -> bool {
        self.dns_names.is_empty() && self.ip_addresses.is_empty() && self.emails.is_empty() && self.uris.is_empty()
    }

    fn add(&mut self, name: &GeneralName<'_>) -> Result<(), CsrError> {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::RFC822Name(name) => self.emails.push((*name).to_owned()),
            GeneralName::URI(name) => self.uris.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                self.ip_addresses.push(address.map_err(|_| CsrError::Name)?);
            }
            _ => return Err(CsrError::Name),
        }
        Ok(())
    }
}
