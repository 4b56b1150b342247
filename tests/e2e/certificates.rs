//! A person asks for a certificate, an administrator agrees, the cluster signs.

use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine as _;
use e2e::{Case, Cluster, eventually};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::json;

pub const CASES: [Case<Cluster>; 1] = [Case { name: "kubectl_certificate_approve", run: approve }];

fn approve(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "jane");
    params.distinguished_name.push(DnType::OrganizationName, "people");
    let request = base64::engine::general_purpose::STANDARD.encode(params.serialize_request(&key)?.pem()?);
    for name in ["jane", "never"] {
        let object = json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
            "spec": {"request": request, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"],
                "expirationSeconds": 3600},
        });
        kubectl.ok_fed("create -f -", &object.to_string())?;
    }
    kubectl.ok("certificate deny never")?;
    kubectl.ok("certificate approve jane")?;
    let signed = || {
        let text = kubectl.ok("get csr jane -o jsonpath={.status.certificate}")?;
        ensure!(!text.is_empty(), "no certificate yet: {}", kubectl.ok("get csr jane -o yaml")?);
        Ok(text)
    };
    let signed = eventually("the request is signed", Duration::from_secs(60), signed)?;
    let chain = base64::engine::general_purpose::STANDARD.decode(signed.trim()).context("the certificate")?;
    let (certificate, secret) = (cluster.data.join("jane.crt"), cluster.data.join("jane.key"));
    std::fs::write(&certificate, chain)?;
    std::fs::write(&secret, key.serialize_pem())?;

    let server = kubectl.ok("config view --minify -o jsonpath={.clusters[0].cluster.server}")?;
    let mut jane = kubectl.clone();
    jane.environment = vec![("KUBECONFIG".into(), "/dev/null".into()), ("HOME".into(), cluster.data.clone().into())];
    jane.leading.extend(["--server".into(), server.into(), "--insecure-skip-tls-verify".into()]);
    jane.leading.push(format!("--client-certificate={}", certificate.display()).into());
    jane.leading.push(format!("--client-key={}", secret.display()).into());
    let who = jane.ok("auth whoami")?;
    ensure!(who.contains("jane") && who.contains("people"), "{who}");
    let said = jane.call(&["get", "pods"], "")?.failed()?;
    ensure!(said.contains("User \"jane\" cannot list resource \"pods\""), "{said}");
    ensure!(kubectl.ok("get csr never -o jsonpath={.status.certificate}")?.is_empty());
    kubectl.ok("delete csr jane never")?;
    Ok(())
}
