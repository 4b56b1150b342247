//! Nodes that no machine stands behind, removed after asking. Two doors: `evenkeel recover ghosts`, for servers that were
//! given up, with a code; `evenkeel restore --prune`, for whatever did not come back to a restored cluster, with a question.

use std::io::{BufRead, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use base::Clock;

use super::output::table;
use super::refused;
use crate::layout::Layout;
use crate::wire::ghosts::{self, Ghost};
use crate::wire::recover::consent;
use crate::wire::{SystemClock, admin, pid};

pub async fn given_up(layout: &Layout, confirm: Option<&str>) -> Result<ExitCode> {
    let client = admin::own_client(layout).context("does a server run on this machine?")?;
    let found = ghosts::given_up(&client).await?;
    if found.is_empty() {
        println!("no node is left of a server that was given up");
        return Ok(ExitCode::SUCCESS);
    }
    let now = SystemClock.now();
    let mut subject = vec!["ghosts"];
    subject.extend(found.iter().map(|ghost| ghost.node.as_str()));
    match confirm {
        None => {
            show(&found);
            println!(
                "Removing them ends their pods' records; those are made anew elsewhere. To do it:\n  \
                 evenkeel recover ghosts --data-dir {} --confirm {}",
                layout.data.display(),
                consent::code(&subject, now)
            );
            Ok(super::attention())
        }
        Some(code) if consent::holds(code, &subject, now) => {
            remove(layout, &found).await?;
            Ok(ExitCode::SUCCESS)
        }
        Some(_) => {
            println!("refused: this code was not shown for these nodes; run `evenkeel recover ghosts` again");
            Ok(refused())
        }
    }
}

pub async fn silent(layout: &Layout, yes: bool) -> Result<()> {
    let client = admin::own_client(layout).context("the restored server must run first")?;
    let wait = |left: std::time::Duration| {
        println!("The server has just started: up to {} s for nodes to come back ...", left.as_secs());
    };
    let found = ghosts::silent(&client, pid::age(layout).unwrap_or_default(), wait).await?;
    if found.is_empty() {
        println!("Every node reports; nothing is to be pruned.");
        return Ok(());
    }
    show(&found);
    println!(
        "Machines that come back rejoin by themselves, servers by their one command; those that never will are ghosts."
    );
    if !yes && !agreed()? {
        println!("Nothing was removed.");
        return Ok(());
    }
    remove(layout, &found).await
}

fn show(found: &[Ghost]) {
    let row = |ghost: &Ghost| {
        let why = if ghost.given_up { "given up, has not joined anew" } else { "does not report" };
        vec![ghost.node.clone(), ghost.pods.to_string(), why.to_owned()]
    };
    println!("{}", table(&["NODE", "PODS", "MACHINE"], &found.iter().map(row).collect::<Vec<_>>()));
}

/// As `evenkeel node remove` does it: the machine is let in no more until it joins anew.
async fn remove(layout: &Layout, found: &[Ghost]) -> Result<()> {
    for Ghost { node, pods, .. } in found {
        let leaving = admin::remove_node(layout, node, true).await.with_context(|| format!("remove {node}"))?;
        if !leaving.gone {
            bail!("{node} is not removed yet: {}; run this again", leaving.waiting.join("; "));
        }
        println!("removed node {node}; its {pods} pods go with it and come up elsewhere");
    }
    Ok(())
}

fn agreed() -> Result<bool> {
    print!("\nRemove them with their pods? Volumes on their disks stay there and are no longer reached. [y/N] ");
    std::io::stdout().flush()?;
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line)? == 0 {
        bail!("nobody answered; --yes removes them without asking");
    }
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}
