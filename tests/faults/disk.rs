//! A full disk under the store: writes are refused with a clear error, reads go on, nothing is lost, and it recovers.

use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Cluster, Endpoint, Options, eventually};
use serde_json::json;

const STORE_MEGABYTES: u32 = 48;
const PATH: &str = "/api/v1/namespaces/default/configmaps";

pub fn recovers(_: &()) -> anyhow::Result<()> {
    let options = Options { store_megabytes: Some(STORE_MEGABYTES), ..Options::lane("disk", 3) };
    let cluster = Cluster::start(options)?;
    let mut connection = Endpoint::of(&cluster.kubectl())?.connect()?;
    let map = |name: &str, bytes: usize| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "z".repeat(bytes)}})
            .to_string()
    };
    ensure!(connection.call("POST", PATH, &map("kept", 10))?.code == 201);
    let filler = cluster.data.join("server/filler");
    let fill = format!("if=/dev/zero of={} bs=1M count={STORE_MEGABYTES}", filler.display());
    ensure!(!cluster.host.tool("dd")?.call(&fill.split(' ').collect::<Vec<_>>(), "")?.success, "the disk is not full");
    let mut refused = None;
    for number in 0..200 {
        let answer = connection.call("POST", PATH, &map(&format!("big-{number}"), 200_000))?;
        if answer.code != 201 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.context("writes went on with a full disk")?;
    let said = String::from_utf8_lossy(&refused.body).into_owned();
    ensure!(refused.code >= 500 && said.contains("full"), "a full disk was answered {} {said}", refused.code);
    ensure!(connection.call("GET", &format!("{PATH}/kept"), "")?.code == 200, "reads do not go on");
    cluster.host.tool("rm")?.ok(&filler.display().to_string())?;
    eventually("writes are accepted again", Duration::from_secs(30), || {
        let answer = connection.call("POST", PATH, &map("after", 10))?;
        ensure!(answer.code == 201 || answer.code == 409, "create answered {}", answer.code);
        Ok(())
    })?;
    ensure!(connection.call("GET", &format!("{PATH}/kept"), "")?.code == 200, "an object was lost");
    Ok(())
}
