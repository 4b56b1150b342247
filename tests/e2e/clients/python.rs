//! The Python client, as its users run it: a script of its own, with its packages beside it.

use std::path::Path;

use anyhow::ensure;
use e2e::Cluster;

use super::stage;

const NAMESPACE: &str = "client-python";

pub fn walk(cluster: &Cluster) -> anyhow::Result<()> {
    stage(cluster, NAMESPACE, || {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut python = cluster.client("python");
        let packages = std::mem::replace(&mut python.program, "python3".into());
        python.environment.push(("PYTHONPATH".into(), packages.into()));
        python.leading.push(here.join("e2e/clients/walk.py").into());
        let said = python.ok_with(&[&here.join("samples.yaml").display().to_string(), NAMESPACE])?;
        let last = said.lines().last().unwrap_or_default();
        ensure!(last.ends_with(" resources") && last.contains(" cells held "), "{said}");
        println!("{last}");
        Ok(())
    })
}
