//! Clients that other people wrote, each walking every kind and verb that its own discovery finds.

mod python;
mod rust;
mod streams;

use anyhow::Context;
use e2e::{Case, Cluster};

pub const CASES: [Case<Cluster>; 2] =
    [Case { name: "client_rust_kube", run: rust::walk }, Case { name: "client_python_kubernetes", run: python::walk }];

/// A custom resource with both subresources: one more kind for a walk.
const GADGETS: &str = include_str!("gadgets.yaml");

/// Runs a walk in a namespace of its own, with the custom resource defined; then takes both away.
pub fn stage(cluster: &Cluster, namespace: &str, walk: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    kubectl.ok(&format!("create namespace {namespace}"))?;
    kubectl.ok_fed("create -f -", GADGETS)?;
    kubectl.ok("wait crd/gadgets.gadgets.evenkeel.test --for=condition=Established --timeout=30s")?;
    let walked = walk();
    kubectl.ok("delete crd gadgets.gadgets.evenkeel.test --timeout=60s")?;
    let gone = kubectl.ok(&format!("delete namespace {namespace} --timeout=60s"));
    walked.and(gone.map(drop)).with_context(|| namespace.to_owned())
}
