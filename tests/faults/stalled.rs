//! Clients that never read: bounded, and nobody else notices.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{Connection, Endpoint, Tool, eventually};
use serde_json::json;

use crate::Shared;

const STALLED: usize = 30;
const EVENTS: usize = 3000;
const EVENT_BYTES: usize = 4096;
/// What the server may grow by: the events once, as objects and as history, and never once more per watcher.
const GROWTH_MEGABYTES: u64 = 150;
/// More than the sockets between node, server and client hold, so that every follower does come to a stop.
const LOG_BYTES: usize = 30_000_000;
const LINE_BYTES: usize = 1000;
/// An ordinary request while others stall, on a busy machine.
const PROMPT: Duration = Duration::from_secs(5);

pub fn watchers(shared: &Shared) -> anyhow::Result<()> {
    let cluster = shared.lock().expect("cases run one at a time");
    cluster.kubectl().ok("create namespace stalled")?;
    let endpoint = Endpoint::of(&cluster.kubectl())?;
    let path = "/api/v1/namespaces/stalled/configmaps";
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut connection = endpoint.connect()?;
        connection.watch(&format!("{path}?watch=1"))?;
        stalled.push(connection);
    }
    let mut reader = endpoint.connect()?;
    reader.watch(&format!("{path}?watch=1&timeoutSeconds=120"))?;
    let mut writer = endpoint.connect()?;
    let data = "y".repeat(EVENT_BYTES);
    let before = cluster.server_megabytes()?;
    for number in 0..EVENTS {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m-{number:05}")},
            "data": {"k": data}});
        let answer = writer.call("POST", path, &body.to_string())?;
        ensure!(answer.code == 201, "create answered {}", answer.code);
    }
    read_until(&mut reader, &format!("m-{:05}", EVENTS - 1))?;
    let after = cluster.server_megabytes()?;
    println!("{STALLED} stalled watchers: the server grew from {before} to {after} MiB");
    ensure!(after < before + GROWTH_MEGABYTES, "the server grew from {before} to {after} MiB");
    drop(stalled);
    cluster.kubectl().ok("delete namespace stalled --timeout=90s").map(drop)
}

fn read_until(reader: &mut Connection, last: &str) -> anyhow::Result<()> {
    let needle = format!("\"name\":\"{last}\"");
    let mut tail = String::new();
    loop {
        let chunk = reader.chunk()?.context("the watch ended early")?;
        tail.push_str(&String::from_utf8_lossy(&chunk));
        if tail.contains(&needle) {
            return Ok(());
        }
        let mut keep = tail.len().saturating_sub(needle.len());
        while !tail.is_char_boundary(keep) {
            keep += 1;
        }
        tail.drain(..keep);
    }
}

pub fn streams(shared: &Shared) -> anyhow::Result<()> {
    let cluster = shared.lock().expect("cases run one at a time");
    let kubectl = cluster.kubectl();
    kubectl.ok("create namespace streams")?;
    let line = "y".repeat(LINE_BYTES);
    let loud = format!("yes {line} | head -c {LOG_BYTES}; while true; do date; sleep 0.2; done");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "loud", "namespace": "streams"}, "spec": {
        "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "evenkeel.local/busybox:1",
            "command": ["sh", "-c", loud]}]}});
    kubectl.ok_fed("create -f -", &pod.to_string())?;
    kubectl.ok("-n streams wait pod/loud --for=condition=Ready --timeout=60s")?;
    let endpoint = Endpoint::of(&kubectl)?;
    let mut followers = Vec::new();
    for _ in 0..STALLED {
        let mut connection = endpoint.connect()?;
        connection.watch("/api/v1/namespaces/streams/pods/loud/log?follow=true")?;
        followers.push(connection);
    }
    // A client that started an exec and then hangs: its output is piped to nobody who reads.
    let mut hung = kubectl.spawn("-n streams exec loud -- yes")?;
    eventually("an exec beside stalled streams", Duration::from_secs(30), || prompt_exec(&kubectl))?;
    hung.kill()?;
    hung.wait()?;
    drop(followers);
    kubectl.ok("delete namespace streams --timeout=90s").map(drop)
}

fn prompt_exec(kubectl: &Tool) -> anyhow::Result<()> {
    let start = Instant::now();
    ensure!(kubectl.ok("-n streams exec loud -- echo prompt")?.contains("prompt"));
    ensure!(start.elapsed() < PROMPT, "an exec took {} s", start.elapsed().as_secs());
    Ok(())
}
