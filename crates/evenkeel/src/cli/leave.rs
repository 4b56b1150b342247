//! `evenkeel leave` and `evenkeel node remove`: a machine's way out of its cluster, asked for on it or elsewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base::Clock;

use super::args::{LeaveArgs, NodeCommand, NodeCommandArgs, StopArgs};
use super::{install, stop};
use crate::layout::Layout;
use crate::wire::{Leaving, SystemClock, admin, leaving};

/// Between two looks at a node that is being emptied.
const LOOK: Duration = Duration::from_millis(500);

pub async fn run(args: LeaveArgs) -> Result<()> {
    let layout = args.common.layout();
    if !args.local {
        let machine = leaving::ThisMachine::load(&layout)?;
        wait(machine.node.clone(), args.timeout.unsigned_abs(), async || machine.step().await).await?;
    }
    install::disable()?;
    stop::run(StopArgs { common: args.common.clone(), pods: true }).await?;
    let aside = put_aside(&layout)?;
    println!("this machine belongs to no cluster now; what it knew is in {}", aside.display());
    Ok(())
}

pub async fn node(args: NodeCommandArgs) -> Result<()> {
    let layout = args.common.layout();
    let NodeCommand::Remove { name, timeout, now } = args.command;
    wait(name.clone(), timeout.unsigned_abs(), async || admin::remove_node(&layout, &name, now).await).await?;
    println!("{name} is no node of this cluster any more");
    Ok(())
}

/// Goes on until nothing of the node is left. Says what is waited for when that changes.
async fn wait(node: String, timeout: Duration, step: impl AsyncFn() -> Result<Leaving>) -> Result<()> {
    let deadline = Instant::now() + timeout;
    let mut said = BTreeSet::new();
    loop {
        let leaving = step().await?;
        if leaving.gone {
            return Ok(());
        }
        let waiting: BTreeSet<String> = leaving.waiting.into_iter().collect();
        for line in waiting.difference(&said) {
            println!("waiting for {line}");
        }
        said = waiting;
        if Instant::now() >= deadline {
            bail!(
                "{node} is not empty after {} s: {}; it takes no new pods, `kubectl uncordon {node}` lets it again",
                timeout.as_secs(),
                said.into_iter().collect::<Vec<_>>().join("; ")
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What this machine knew of the cluster, out of the way: nothing to clean by hand, and nothing lost by mistake. Images
/// and local volumes stay.
fn put_aside(layout: &Layout) -> Result<PathBuf> {
    let _locks = (store::DataLock::acquire(&layout.server())?, store::DataLock::acquire(&layout.agent())?);
    let time = SystemClock.now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let aside = layout.data.join(format!("left-{time}"));
    fs::create_dir_all(&aside).with_context(|| format!("create {}", aside.display()))?;
    for from in [layout.server(), layout.agent(), layout.machine(), layout.kubeconfig()] {
        let name = from.file_name().context("a path of ours has a name")?;
        shift(&from, &aside.join(name))?;
    }
    fs::create_dir_all(layout.agent())?;
    shift(&aside.join("agent/images"), &layout.images())?;
    Ok(aside)
}

fn shift(from: &Path, to: &Path) -> Result<()> {
    if !from.exists() {
        return Ok(());
    }
    match fs::rename(from, to) {
        // The kubeconfig may lie on another file system.
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
            fs::copy(from, to).and_then(|_| fs::remove_file(from))
        }
        outcome => outcome,
    }
    .with_context(|| format!("move {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::put_aside;
    use crate::layout::Layout;

    #[test]
    fn what_a_machine_knew_is_put_aside_and_its_images_stay() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        layout.make().unwrap();
        crate::pki::write(&layout.machine_key(), b"key", crate::pki::Access::Secret).unwrap();
        std::fs::create_dir_all(layout.local_storage()).unwrap();
        std::fs::write(layout.images().join("a.tar"), "image").unwrap();
        let aside = put_aside(&layout).unwrap();
        assert!(!layout.server().exists() && !layout.machine_key().exists());
        assert!(aside.join("machine/key").exists() && aside.join("server/db").exists());
        assert!(layout.images().join("a.tar").exists() && layout.local_storage().exists());
    }
}
