//! `evenkeel stop`: ends the program on this machine, which leaves pods running; with `--pods` ends those too.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::args::StopArgs;
use crate::layout::Layout;
use crate::wire::keeper::Home;
use crate::wire::{containerd_config, cri_socket, pid};

const END_TIMEOUT: Duration = Duration::from_secs(40);
/// Seconds that containers get, before they are killed.
const GRACE: Duration = Duration::from_secs(10);

pub async fn run(args: StopArgs) -> Result<()> {
    let layout = args.common.layout();
    // Else what is on trial would be started again.
    let home = Home::new(&layout);
    if let Some(trial) = home.trial()? {
        trial.give_up(&home, "this machine was stopped")?;
    }
    match pid::running(&layout) {
        Some(pid) => {
            end(pid).await?;
            println!("stopped evenkeel (process {pid})");
        }
        None => println!("evenkeel does not run with {}", layout.data.display()),
    }
    if args.pods {
        pods(&layout).await?;
    }
    Ok(())
}

async fn end(pid: u32) -> Result<()> {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process id")?;
    kill_process(target, Signal::TERM).context("signal evenkeel")?;
    let gone = async {
        while rustix::process::test_kill_process(target).is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(END_TIMEOUT, gone).await.is_err() {
        kill_process(target, Signal::KILL).context("kill evenkeel")?;
    }
    Ok(())
}

/// Containers, sandboxes, containerd, the process of names, etcd, then what pods and the network left on the machine.
async fn pods(layout: &Layout) -> Result<()> {
    let socket = cri_socket(layout, None);
    // Nobody to wait for.
    if socket.exists() {
        containers(&container::Cri::connect(socket)).await?;
    }
    if container::containerd::stop(&containerd_config(layout)).await.context("stop containerd")? {
        println!("stopped containerd");
    }
    if crate::wire::names::stop(layout).await? {
        println!("stopped the process of names");
    }
    if crate::wire::etcd::stop(layout).await? {
        println!("stopped etcd");
    }
    crate::wire::clean_mounts(layout)?;
    crate::wire::clean_cgroups(layout)?;
    crate::wire::clean_network(layout).await
}

async fn containers(cri: &container::Cri) -> Result<()> {
    match cri.list_containers(None).await {
        Ok(containers) => {
            let stops = containers.iter().map(|one| cri.stop_container(&one.id, GRACE));
            let failed = futures::future::join_all(stops).await.into_iter().filter(Result::is_err).count();
            println!("stopped {} containers", containers.len() - failed);
            for sandbox in cri.list_sandboxes(None).await.context("list pods")? {
                cri.stop_sandbox(&sandbox.id).await.with_context(|| format!("stop pod {}", sandbox.id))?;
                cri.remove_sandbox(&sandbox.id).await.with_context(|| format!("remove pod {}", sandbox.id))?;
            }
        }
        Err(error) => println!("containerd does not answer ({error}); nothing to stop in it"),
    }
    Ok(())
}
