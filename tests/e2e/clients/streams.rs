//! What the `kube` crate's client streams from and to a pod that runs: its log, commands in it, its own input and
//! output, its ports; and its eviction.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, AttachParams, DeleteParams, EvictParams, LogParams, PostParams};
use kube::{Client, Error};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kubectl::IMAGE;

const NAME: &str = "streams";
/// How long anything here may take.
const BOUND: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_millis(100);
const PORT: u16 = 8080;
/// Where nobody listens.
const SILENT_PORT: u16 = 8081;
/// Serves a page, then answers each line it is given.
const PROGRAM: &str = "mkdir /www; echo from the pod > /www/index.html; busybox httpd -p 8080 -h /www; \
    echo ready; while read line; do echo heard $line; done";
/// Gives back what it is given, complains, fails.
const COMMAND: [&str; 3] = ["sh", "-c", "cat; echo a complaint >&2; exit 3"];

/// Runs a pod and evicts it at the end.
pub async fn walk(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), namespace);
    let pod = serde_json::from_value(json!({
        "metadata": {"name": NAME, "labels": {"app": NAME}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "c", "image": IMAGE, "stdin": true, "command": ["sh", "-c", PROGRAM]}]},
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    bounded("the pod runs", running(&pods)).await?;
    bounded("log and attach", log_and_attach(&pods)).await?;
    bounded("exec", exec(&pods)).await?;
    bounded("portforward", port_forward(&pods)).await?;
    bounded("eviction", evict(&pods, &budgets)).await
}

async fn bounded(what: &str, part: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::time::timeout(BOUND, part).await.map_err(Into::into).flatten().with_context(|| what.to_owned())
}

async fn running(pods: &Api<Pod>) -> anyhow::Result<()> {
    while pods.get(NAME).await?.status.is_none_or(|status| status.phase.as_deref() != Some("Running")) {
        tokio::time::sleep(ASK_AGAIN).await;
    }
    Ok(())
}

/// A log that is followed tells what an attached client makes the program say; so does the client's own stream.
async fn log_and_attach(pods: &Api<Pod>) -> anyhow::Result<()> {
    let following = LogParams { follow: true, ..LogParams::default() };
    let mut log = pods.log_stream(NAME, &following).await?.lines();
    ensure!(log.try_next().await?.as_deref() == Some("ready"), "the log does not begin with what was said");
    let mut attached = pods.attach(NAME, &AttachParams::default().stdin(true)).await?;
    let mut stdin = attached.stdin().context("no input")?;
    let mut stdout = attached.stdout().context("no output")?;
    stdin.write_all(b"one\n").await?;
    let mut said = [0; b"heard one\n".len()];
    stdout.read_exact(&mut said).await?;
    ensure!(&said == b"heard one\n", "attached, the program said {:?}", String::from_utf8_lossy(&said));
    let next = log.try_next().await?;
    ensure!(next.as_deref() == Some("heard one"), "the log went on with {next:?}");
    let whole = pods.logs(NAME, &LogParams::default()).await?;
    ensure!(whole == "ready\nheard one\n", "{whole:?}");
    let last = pods.logs(NAME, &LogParams { tail_lines: Some(1), ..LogParams::default() }).await?;
    ensure!(last == "heard one\n", "{last:?}");
    let other = LogParams { container: Some("other".into()), ..LogParams::default() };
    refused(pods.logs(NAME, &other).await, 400, "other")
}

/// All that was given comes back, both outputs apart, and the exit code at the end.
async fn exec(pods: &Api<Pod>) -> anyhow::Result<()> {
    let mut process = pods.exec(NAME, COMMAND, &AttachParams::default().stdin(true)).await?;
    let mut stdin = process.stdin().context("no input")?;
    let mut stdout = process.stdout().context("no output")?;
    let mut stderr = process.stderr().context("no error output")?;
    let status = process.take_status().context("no status")?;
    stdin.write_all(b"some words\n").await?;
    stdin.shutdown().await?;
    let (mut said, mut complained) = (String::new(), String::new());
    tokio::try_join!(stdout.read_to_string(&mut said), stderr.read_to_string(&mut complained))?;
    ensure!(said == "some words\n" && complained == "a complaint\n", "{said:?} and {complained:?}");
    let status = status.await.context("the command ended without a status")?;
    let causes = status.details.as_ref().and_then(|details| details.causes.as_deref()).unwrap_or_default();
    let code = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    let code = code.and_then(|cause| cause.message.as_deref());
    ensure!(status.reason.as_deref() == Some("NonZeroExitCode") && code == Some("3"), "{status:?}");
    process.join().await?;
    Ok(())
}

/// A page through a forwarded port; and what stands in the way at a port where nobody listens.
async fn port_forward(pods: &Api<Pod>) -> anyhow::Result<()> {
    let mut forwarder = pods.portforward(NAME, &[PORT]).await?;
    let mut stream = forwarder.take_stream(PORT).context("no stream")?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    ensure!(page.starts_with("HTTP/1.") && page.ends_with("\r\n\r\nfrom the pod\n"), "{page:?}");
    // The node ends the connection once the pod has ended its own: nothing is left to join.
    let mut forwarder = pods.portforward(NAME, &[SILENT_PORT]).await?;
    let error = forwarder.take_error(SILENT_PORT).context("no errors")?;
    let said = error.await.context("the forwarding ended without an error")?;
    ensure!(said.contains(&SILENT_PORT.to_string()) && said.contains("refused"), "{said:?}");
    Ok(())
}

/// A budget forbids it; without one a dry run leaves the pod, and the next attempt takes it.
async fn evict(pods: &Api<Pod>, budgets: &Api<PodDisruptionBudget>) -> anyhow::Result<()> {
    let budget = serde_json::from_value(json!({
        "metadata": {"name": NAME},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": NAME}}},
    }))?;
    budgets.create(&PostParams::default(), &budget).await?;
    refused(pods.evict(NAME, &EvictParams::default()).await, 429, "disruption budget")?;
    budgets.delete(NAME, &DeleteParams::default()).await?;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    pods.evict(NAME, &EvictParams { post_options: dry, ..EvictParams::default() }).await?;
    let kept = pods.get(NAME).await?;
    ensure!(kept.metadata.deletion_timestamp.is_none(), "a dry run evicted the pod");
    let status = pods.evict(NAME, &EvictParams::default()).await?;
    ensure!(status.is_success(), "{status:?}");
    while pods.get_opt(NAME).await?.is_some() {
        tokio::time::sleep(ASK_AGAIN).await;
    }
    Ok(())
}

fn refused<T: std::fmt::Debug>(outcome: kube::Result<T>, code: u16, words: &str) -> anyhow::Result<()> {
    match outcome {
        Err(Error::Api(status)) => ensure!(status.code == code && status.message.contains(words), "{status:?}"),
        other => bail!("instead of {code}: {other:?}"),
    }
    Ok(())
}
