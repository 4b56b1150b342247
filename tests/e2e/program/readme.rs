//! The commands of the README's "Use it", run as they stand there: in order, in one folder, by a shell.

use std::fs;

use anyhow::{Context, ensure};
use e2e::{Cluster, Tool};

const README: &str = include_str!("../../../README.md");
/// What needs a build, an init system or a second machine; all the rest must run.
const NOT_HERE: [&str; 5] = ["cargo ", "install -m", "EVENKEEL_URL=", "evenkeel leave", "evenkeel node remove"];
/// What needs another build of the program, a signer, or several servers: `upgrade_story`, `upgrade_of_a_rack`, `rack_loss` and
/// `rack_of_new_authorities` run it.
const CHANGES: [&str; 10] = [
    "evenkeel certificate rotate-ca",
    "evenkeel secrets-encrypt rotate",
    "evenkeel release",
    "evenkeel upgrade",
    "evenkeel watch",
    "evenkeel pause",
    "evenkeel back ",
    "evenkeel journal",
    "evenkeel recover",
    "evenkeel replace",
];
/// What is for an empty machine runs with another data folder.
const ELSEWHERE: [&str; 3] = ["evenkeel restore cluster.bundle --secret-file", "evenkeel stop", "evenkeel uninstall"];
/// They judge, and on a test machine there is something to know.
const JUDGES: [&str; 2] = ["evenkeel check-config", "evenkeel status"];

pub fn commands(cluster: &Cluster) -> anyhow::Result<()> {
    let folder = cluster.data.join("readme");
    for name in ["bin", "units", "elsewhere"] {
        fs::create_dir_all(folder.join(name))?;
    }
    // On this host alone: where units lie, and nobody's settings.
    let mount = cluster.host.tool("mount")?;
    mount.ok(&format!("--bind {} /etc/systemd/system", folder.join("units").display()))?;
    let outcome = lines().try_for_each(|line| run(cluster, line));
    cluster.host.tool("umount")?.ok("/etc/systemd/system")?;
    outcome?;
    ensure!(20 <= lines().count(), "the README lost its commands");
    fs::remove_dir_all(&folder).context("remove what the commands made")
}

/// The lines of the console blocks after "Use it".
fn lines() -> impl Iterator<Item = &'static str> {
    let text = README.split_once("\n## Use it\n").map_or("", |(_, rest)| rest);
    let text = text.split("\n## ").next().unwrap_or_default();
    text.split("```console\n").skip(1).flat_map(|block| block.split("```").next().unwrap_or_default().lines())
}

fn run(cluster: &Cluster, line: &str) -> anyhow::Result<()> {
    if NOT_HERE.iter().chain(&CHANGES).any(|start| line.starts_with(start)) {
        return Ok(());
    }
    let folder = cluster.data.join("readme");
    let elsewhere = ELSEWHERE.iter().any(|start| line.starts_with(start));
    let data = if elsewhere { folder.join("elsewhere/data") } else { cluster.data.clone() };
    let text = line.replace("SERVER", &cluster.host.address);
    let said = shell(cluster)?.call(
        &[
            "-c",
            &format!(
                "cd {} && EVENKEEL_DATA_DIR={} && export EVENKEEL_DATA_DIR && {text}",
                folder.display(),
                data.display()
            ),
        ],
        "",
    )?;
    let fine = said.success || (said.code == 2 && JUDGES.contains(&line));
    ensure!(fine, "{line}\nends with {}: {}{}", said.code, said.stdout, said.stderr);
    Ok(())
}

/// A shell on the host that finds this build and the kubectl of the tests.
fn shell(cluster: &Cluster) -> anyhow::Result<Tool> {
    let mut shell = cluster.host.tool("sh")?;
    let evenkeel = cluster.evenkeel()?.leading.pop().context("the program's path")?;
    let folder = |path: &std::path::Path| path.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    let (ours, tools) = (folder(evenkeel.as_ref()), folder(&cluster.kubectl().program));
    let path = std::env::var("PATH").unwrap_or_default();
    shell.environment.push(("PATH".into(), format!("{ours}:{tools}:{path}").into()));
    Ok(shell)
}
