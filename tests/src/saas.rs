//! The example application on several servers, and its HTTP API as outsiders use it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::http::Http;
use crate::tool::Tool;
use crate::wait::eventually;

/// Where the application answers from outside; the node port of `examples/saas`.
pub const NODE_PORT: u16 = 30080;
/// A client's patience.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(5);
const BOUND: Duration = Duration::from_secs(180);
const PSQL: &str = "PGPASSWORD=\"$POSTGRES_PASSWORD\" exec /usr/lib/postgresql/15/bin/psql -h 127.0.0.1 -U \"$POSTGRES_USER\" -v ON_ERROR_STOP=1";

/// Applies all of it, the second PostgreSQL as well, and waits until it is healthy.
pub fn apply(kubectl: &Tool) -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/saas");
    kubectl.ok(&format!("apply -f {0} -f {0}/standby", folder.display()))?;
    healthy(kubectl)
}

pub fn healthy(kubectl: &Tool) -> anyhow::Result<()> {
    let sets = ["statefulset/postgres", "statefulset/postgres-standby"];
    for workload in sets.into_iter().chain(["deployment/api", "deployment/worker", "deployment/prometheus"]) {
        eprintln!("   waiting for {workload}");
        kubectl.ok(&format!("-n saas rollout status {workload} --timeout=600s"))?;
    }
    follows(kubectl)
}

/// The second PostgreSQL follows the first: commits wait for it.
pub fn follows(kubectl: &Tool) -> anyhow::Result<()> {
    let ask = "SELECT application_name || ' ' || sync_state FROM pg_stat_replication";
    eventually("the standby follows", BOUND, || {
        let said = sql(kubectl, "postgres-0", "postgres", ask)?;
        ensure!(said.trim() == "standby sync", "it says {said:?}");
        Ok(())
    })
}

/// One statement after the other in a database's own pod; what it answers, without decoration.
pub fn sql(kubectl: &Tool, pod: &str, database: &str, statements: &str) -> anyhow::Result<String> {
    let ask = format!("{PSQL} -d {database} -qtA");
    kubectl.ok_with_input(&["-n", "saas", "exec", "-i", pod, "--", "/bin/bash-static", "-c", &ask], statements)
}

/// The rows as PostgreSQL's own dump writes them.
pub fn dump(kubectl: &Tool) -> anyhow::Result<String> {
    let ask = "PGPASSWORD=\"$POSTGRES_PASSWORD\" exec /usr/lib/postgresql/15/bin/pg_dump -h 127.0.0.1 -U \"$POSTGRES_USER\" \
               --data-only --table=items \"$POSTGRES_DB\"";
    kubectl.ok_with(&["-n", "saas", "exec", "postgres-0", "--", "/bin/bash-static", "-c", ask])
}

/// The node that runs a pod.
pub fn node_of(kubectl: &Tool, pod: &str) -> anyhow::Result<String> {
    kubectl.ok(&format!("-n saas get pod {pod} -o jsonpath={{.spec.nodeName}}"))
}

/// One row, through the node port of a host: its number.
pub fn store(address: &str, text: &str) -> anyhow::Result<u64> {
    eventually("a row is stored", BOUND, || post(address, text))
}

/// One attempt.
pub fn post(address: &str, text: &str) -> anyhow::Result<u64> {
    let (code, body) = Http::connect(address, NODE_PORT, HTTP_TIMEOUT)?.call("POST", "/items", text)?;
    ensure!(code == 201, "answered {code}: {body}");
    let row: Value = serde_json::from_str(&body).context("the answer")?;
    row["id"].as_u64().with_context(|| format!("no id in {body}"))
}
