//! Requests from nodes and people, decided and signed.

use std::sync::Arc;

use api::Tree;
use base64::Engine as _;
use jiff::Timestamp;
use serde_json::json;

use super::{Authority, Signed, Signer, Wanted};
use crate::testing::World;

const CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// Requests made with OpenSSL: `O=system:nodes, CN=system:node:n1`; the same with a DNS name; `O=system:masters, CN=eve`.
const NODE: &str = include_str!("node.csr.pem");
const SERVING: &str = include_str!("serving.csr.pem");
const MASTERS: &str = include_str!("masters.csr.pem");

fn request(name: &str, user: &str, signer: &str, usage: &str, pem: &str) -> Tree {
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
        "spec": {"username": user, "groups": ["system:nodes"], "signerName": signer,
                 "usages": ["digital signature", usage],
                 "request": base64::engine::general_purpose::STANDARD.encode(pem)},
    })
}

struct Stamp;

impl Signer for Stamp {
    fn sign(&self, wanted: &Wanted, _: Timestamp) -> Signed {
        Ok(format!("signed {}", wanted.request.common_name))
    }
}

fn condition(world: &World, name: &str) -> String {
    let all = world.list("certificates.k8s.io/v1", "CertificateSigningRequest");
    let tree = all.iter().find(|tree| tree["metadata"]["name"] == name).unwrap();
    let conditions = tree["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let types: Vec<&str> = conditions.iter().filter_map(|condition| condition["type"].as_str()).collect();
    let signed = if tree["status"]["certificate"].is_string() { " signed" } else { "" };
    format!("{}{signed}", types.join(","))
}

#[test]
fn nodes_get_their_own_certificate_and_nothing_else() {
    let mut world = World::new(&["certificate-approval", "certificate-signing"]);
    world.ctx.signer = Some(Arc::new(Stamp));
    world.put(request("node", "system:node:n1", CLIENT, "client auth", NODE));
    world.put(request("other", "system:node:n2", CLIENT, "client auth", NODE));
    world.put(request("usage", "system:node:n1", CLIENT, "server auth", NODE));
    world.put(request("names", "system:node:n1", CLIENT, "client auth", SERVING));
    world.put(request("serving", "system:node:n1", "kubernetes.io/kubelet-serving", "server auth", SERVING));
    world.put(request("text", "system:node:n1", CLIENT, "client auth", "system:node:n1"));
    world.agent = |_| {};
    // The world knows no `approval` subresource: it merges like the status.
    world.converge();
    assert_eq!(condition(&world, "node"), "Approved signed");
    for name in ["other", "usage", "names", "serving", "text"] {
        assert_eq!(condition(&world, name), "", "{name}");
    }
    world.pass(3601);
    assert_eq!(world.list("certificates.k8s.io/v1", "CertificateSigningRequest").len(), 5);
    world.pass(86_400);
    assert!(world.list("certificates.k8s.io/v1", "CertificateSigningRequest").is_empty());
}

#[test]
fn what_a_person_approved_is_signed_by_the_rules_of_its_signer() {
    let mut world = World::new(&["certificate-signing"]);
    world.ctx.signer = Some(Arc::new(Stamp));
    let approved = |mut tree: Tree| {
        tree["status"] = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        tree
    };
    world.put(approved(request("serving", "ann", "kubernetes.io/kubelet-serving", "server auth", SERVING)));
    world.put(approved(request("bare", "ann", "kubernetes.io/kubelet-serving", "server auth", NODE)));
    world.put(approved(request("user", "ann", "kubernetes.io/kube-apiserver-client", "client auth", NODE)));
    world.put(approved(request("root", "eve", "kubernetes.io/kube-apiserver-client", "client auth", MASTERS)));
    world.put(approved(request("foreign", "ann", "example.com/x", "client auth", NODE)));
    world.agent = |_| {};
    world.converge();
    assert_eq!(condition(&world, "serving"), "Approved signed");
    assert_eq!(condition(&world, "user"), "Approved signed");
    assert_eq!(condition(&world, "bare"), "Approved,Failed");
    assert_eq!(condition(&world, "root"), "Approved,Failed");
    assert_eq!(condition(&world, "foreign"), "Approved");
}

#[test]
fn requests_are_read_as_asn_1() {
    let wanted = Wanted::of(&request("x", "u", "kubernetes.io/kubelet-serving", "server auth", SERVING)).unwrap();
    assert_eq!(wanted.authority, Authority::NodeServing);
    assert_eq!(wanted.request.common_name, "system:node:n1");
    assert_eq!(wanted.request.organizations, ["system:nodes"]);
    assert_eq!(wanted.request.dns_names, ["n1.example.com"]);
    assert_eq!(wanted.request.ip_addresses, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
}
