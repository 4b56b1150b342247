//! CertificateApproval, CertificateSigning, CertificateSubjectRestriction.

use api::{Status, Tree};

use crate::authorize::{Attributes, MASTERS, authorize};
use crate::context::Cx;
use crate::{doc, validate};

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

pub(super) fn judge(cx: &Cx<'_>, tree: &Tree, old: Option<&Tree>) -> Result<(), Status> {
    let signer = doc::text(tree, "spec.signerName");
    let changed = |path: &str| old.is_some_and(|old| doc::get(old, path) != doc::get(tree, path));
    match cx.sub() {
        "approval" if !may(cx, "approve", signer) => refuse(cx, tree, "approve", signer),
        "status" if changed("status.certificate") && !may(cx, "sign", signer) => refuse(cx, tree, "sign", signer),
        "" if old.is_none() && signer == CLIENT_SIGNER && asks_for_masters(tree) => {
            let why = "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
            Err(cx.forbidden(doc::text(tree, "metadata.name"), why))
        }
        _ => Ok(()),
    }
}

fn refuse(cx: &Cx<'_>, tree: &Tree, verb: &str, signer: &str) -> Result<(), Status> {
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(cx.forbidden(doc::text(tree, "metadata.name"), &why))
}

/// On the signer by name, or on its whole domain (`example.com/*`).
fn may(cx: &Cx<'_>, verb: &str, signer: &str) -> bool {
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    [signer, domain.as_str()].into_iter().any(|name| {
        let attributes = Attributes {
            user: cx.user,
            verb,
            group: "certificates.k8s.io",
            version: "*",
            resource: "signers",
            subresource: "",
            namespace: "",
            name,
            path: "",
        };
        authorize(&attributes, cx.ports.reader).is_allowed()
    })
}

/// What cannot be read is for validation to refuse.
fn asks_for_masters(tree: &Tree) -> bool {
    let request = validate::certificate_request(doc::text(tree, "spec.request"));
    request.is_ok_and(|request| request.organizations.iter().any(|name| name == MASTERS))
}
