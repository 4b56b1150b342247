//! What goes over the wire when machines join.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::agreed::ClusterFlags;
use crate::pki::{Claim, MachineId, MachineKey, PkiError, Proof, ProofError};

/// A request of a machine, as text, with the proof that it made it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signed {
    pub request: String,
    pub proof: Proof,
}

/// What a machine sends to become a node, or to renew its certificates.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinRequest {
    pub node_name: String,
    pub addresses: Vec<IpAddr>,
    pub client_request: String,
    pub serving_request: String,
}

/// What a machine sends to hear whether it still belongs to the cluster, or to leave it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineRequest {
    pub node_name: String,
}

/// How far a node is on its way out. The same request again goes on from there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Leaving {
    /// Nothing of it is left in the cluster.
    pub gone: bool,
    /// What is waited for, a sentence each.
    pub waiting: Vec<String>,
}

/// What it gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinAnswer {
    pub client_certificate: String,
    pub serving_certificate: String,
    /// Whom to trust to serve, and as a client.
    #[serde(default)]
    pub server_ca: String,
    pub client_ca: String,
    pub cluster: ClusterSettings,
}

/// What a machine sends to become a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerJoinRequest {
    pub node_name: String,
    pub addresses: Vec<IpAddr>,
}

/// What it gets: everything that is the cluster's and not one server's.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerJoinAnswer {
    /// Files below the data folder, in base64.
    pub files: BTreeMap<String, String>,
    pub shared: ClusterFlags,
    /// Client URLs of the etcd members; none where somebody else runs the etcd.
    pub etcd: Vec<String>,
}

/// What every node of a cluster must agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSettings {
    pub cluster_cidrs: Vec<String>,
    pub service_cidrs: Vec<String>,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// Where every node keeps `local-path` volumes; None where there are none.
    #[serde(default)]
    pub local_path: Option<PathBuf>,
}

// === impl Signed ===

impl Signed {
    /// Signs a request for a path of the cluster whose authority has this hash.
    pub fn new<T: Serialize>(
        request: &T,
        (cluster, purpose): (&str, &str),
        key: &MachineKey,
        now: Timestamp,
    ) -> Result<Signed, PkiError> {
        let request = serde_json::to_string(request).expect("requests are plain data");
        let proof = key.prove(&Claim { cluster, purpose, content: &request }, now)?;
        Ok(Signed { request, proof })
    }

    /// The machine that sent it.
    pub fn sender(&self, (cluster, purpose): (&str, &str), now: Timestamp) -> Result<MachineId, ProofError> {
        self.proof.verify(&Claim { cluster, purpose, content: &self.request }, now)
    }
}
