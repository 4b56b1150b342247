//! CertificateSigningRequests: what may be asked, and how it is decided.

use std::collections::BTreeSet;

use api::Tree;
use api::csr::CertificateRequest;
use base64::Engine as _;
use serde_json::json;

use crate::causes::{At, Causes};
use crate::context::Cx;
use crate::{doc, names};

/// Shortest certificate that may be asked for.
const SECONDS_MIN: i64 = 600;
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
/// A decision stands: it is neither taken back nor false.
const DECISIONS: [&str; 3] = ["Approved", "Denied", "Failed"];

pub(super) fn object(cx: &Cx<'_>, tree: &Tree, old: Option<&Tree>, causes: &mut Causes) {
    let at = At::of("spec");
    match old {
        None => request(tree, &at, causes),
        Some(old) => {
            if doc::get(old, "spec") != doc::get(tree, "spec") {
                causes.immutable(&at, doc::get(tree, "spec"));
            }
            kept(cx, tree, old, causes);
        }
    }
    conditions(tree, &At::of("status.conditions"), causes);
    let certificate = doc::text(tree, "status.certificate");
    if !certificate.is_empty() && !is_certificate(certificate) {
        let why = "must contain one or more PEM blocks of CERTIFICATE";
        causes.invalid_text(&At::of("status.certificate"), "<certificate data>", why);
    }
}

fn request(tree: &Tree, at: &At, causes: &mut Causes) {
    let text = doc::text(tree, "spec.request");
    if let Err(error) = read(text) {
        causes.invalid_text(&at.child("request"), text, &error);
    }
    let usages = doc::items(tree, "spec.usages");
    if usages.is_empty() {
        causes.required(&at.child("usages"), "");
    }
    let mut seen = BTreeSet::new();
    for (index, usage) in usages.iter().enumerate() {
        if !seen.insert(usage.as_str()) {
            causes.duplicate(&at.child("usages").index(index), usage);
        }
    }
    signer(doc::text(tree, "spec.signerName"), &at.child("signerName"), causes);
    if let Some(seconds) = doc::int(tree, "spec.expirationSeconds").filter(|seconds| *seconds < SECONDS_MIN) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        causes.invalid(&at.child("expirationSeconds"), &json!(seconds), why);
    }
}

/// The request that stands in `spec.request`, base64 over PEM.
pub(crate) fn read(text: &str) -> Result<CertificateRequest, String> {
    let pem = base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| error.to_string())?;
    CertificateRequest::from_pem(&pem).map_err(|error| error.to_string())
}

fn signer(name: &str, at: &At, causes: &mut Causes) {
    if name.is_empty() {
        return causes.required(at, "");
    }
    if name == LEGACY_SIGNER {
        return causes.invalid_text(at, name, "the legacy signerName is not allowed via this API version");
    }
    let Some((domain, path)) = name.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return causes.invalid_text(at, name, why);
    };
    names::subdomain(domain).iter().for_each(|why| causes.invalid_text(at, domain, why));
    if !domain.contains('.') {
        causes.invalid_text(at, domain, "should be a domain with at least two segments separated by dots");
    }
    names::subdomain(path).iter().for_each(|why| causes.invalid_text(at, path, why));
}

fn conditions(tree: &Tree, at: &At, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for (index, condition) in doc::items(tree, "status.conditions").iter().enumerate() {
        let at = at.index(index);
        let (kind, status) = (doc::text(condition, "type"), doc::text(condition, "status"));
        if kind.is_empty() {
            causes.required(&at.child("type"), "");
        } else if !seen.insert(kind) {
            causes.duplicate(&at.child("type"), &json!(kind));
        }
        let supported: &[&str] = if DECISIONS.contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        if status.is_empty() {
            causes.required(&at.child("status"), "");
        } else if !supported.contains(&status) {
            causes.not_supported(&at.child("status"), &json!(status), supported);
        }
    }
    if seen.contains("Approved") && seen.contains("Denied") {
        let all = doc::get(tree, "status.conditions");
        causes.invalid(at, all, "Approved and Denied conditions are mutually exclusive");
    }
}

/// Decisions and a certificate, once given.
fn kept(cx: &Cx<'_>, tree: &Tree, old: &Tree, causes: &mut Causes) {
    let has = |tree: &Tree, wanted: &str| {
        doc::items(tree, "status.conditions").iter().any(|condition| doc::text(condition, "type") == wanted)
    };
    for kind in DECISIONS.into_iter().filter(|kind| has(old, kind) && !has(tree, kind)) {
        let why = format!("updates may not remove a condition of type {kind:?}");
        causes.forbidden(&At::of("status.conditions"), &why);
    }
    let (had, now) = (doc::text(old, "status.certificate"), doc::text(tree, "status.certificate"));
    if cx.sub() == "status" && !had.is_empty() && had != now {
        causes.forbidden(&At::of("status.certificate"), "updates may not modify a set certificate");
    }
}

fn is_certificate(text: &str) -> bool {
    let pem = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    let text = String::from_utf8(pem).unwrap_or_default();
    text.contains("-----BEGIN CERTIFICATE-----") && text.contains("-----END CERTIFICATE-----")
}
