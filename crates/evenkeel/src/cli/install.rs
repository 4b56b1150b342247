//! `evenkeel install` and `uninstall`: a systemd unit that leaves pods alone when the program restarts.
//!
//! What the environment says to Evenkeel (`EVENKEEL_TOKEN`, `K3S_URL`, ...) goes into a file that only root reads; no
//! secret is in the unit. Installing again rewrites the unit and keeps the settings.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::args::{InstallArgs, StopArgs, UninstallArgs};
use super::stop;
use crate::layout::DATA;
use crate::pki::{self, Access};
use crate::wire;

const UNIT: &str = "evenkeel.service";
const UNITS: &str = "/etc/systemd/system";
/// The unit's settings, beside it or where the administrator looks.
const ENVIRONMENT: &str = "evenkeel.env";

/// The unit's text. No secret is in it: tokens come from the configuration file or the environment file.
fn unit(role: &str, program: &Path, data: &Path, environment: &Path) -> String {
    let data = if data == Path::new(DATA) { String::new() } else { format!(" --data-dir={}", data.display()) };
    let (program, environment) = (program.display(), environment.display());
    format!(
        "[Unit]\nDescription=Evenkeel: Kubernetes ({role})\nWants=network-online.target\n\
         After=network-online.target time-sync.target\n\n[Service]\nType=exec\nExecStart={program} {role}{data}\n\
         EnvironmentFile=-{environment}\n\
         # Pods and containerd outlive this process: only it is stopped, and it manages cgroups of its own.\n\
         KillMode=process\nDelegate=yes\nRestart=always\nRestartSec=2s\nTimeoutStartSec=0\nTimeoutStopSec=30s\n\
         LimitNOFILE=1048576\nLimitNPROC=infinity\nLimitCORE=infinity\nTasksMax=infinity\nOOMScoreAdjust=-999\n\n\
         [Install]\nWantedBy=multi-user.target\n"
    )
}

/// The environment file: what is there, with what this call's environment says to Evenkeel put over it.
fn environment(kept: &str, given: impl Iterator<Item = (String, String)>) -> String {
    let line = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut settings: BTreeMap<String, String> =
        kept.lines().filter(|text| !text.trim_start().starts_with('#')).filter_map(line).collect();
    let ours = |name: &str| name.starts_with("EVENKEEL_") || name.starts_with("K3S_");
    // Quoted as systemd reads it; a line's end would begin another setting.
    let quote = |value: &str| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " "));
    settings.extend(given.filter(|(name, _)| ours(name)).map(|(name, value)| (name, quote(&value))));
    let lines: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    format!("# Settings of Evenkeel: EVENKEEL_<FLAG>=\"value\". Only root may read this file.\n{}", lines.concat())
}

pub fn install(args: &InstallArgs) -> Result<()> {
    if !matches!(args.role.as_str(), "server" | "agent") {
        bail!("{:?} is no role: server or agent", args.role);
    }
    let program = std::env::current_exe().context("find this program")?;
    let settings = args.unit_dir.join(ENVIRONMENT);
    let text = unit(&args.role, &program, &args.common.data_dir, &settings);
    if args.print {
        print!("{text}");
        return Ok(());
    }
    let systemd = Path::new("/run/systemd/system").is_dir();
    if !systemd && Path::new("/sbin/openrc-run").exists() {
        bail!(
            "this machine runs OpenRC, which `install` does not know; have it start: {} {}",
            program.display(),
            args.role
        );
    }
    let kept = pki::read(&settings)?.unwrap_or_default();
    pki::write(&settings, environment(&kept, std::env::vars()).as_bytes(), Access::Secret)?;
    let path = args.unit_dir.join(UNIT);
    pki::write(&path, text.as_bytes(), Access::Public)?;
    println!("wrote {} and {}", path.display(), settings.display());
    if !systemd {
        println!("this machine does not run systemd; start with: {} {}", program.display(), args.role);
        return Ok(());
    }
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", UNIT])?;
    // Also where it runs already: an upgrade is a new program under the old unit.
    systemctl(&["restart", UNIT])?;
    println!("started; see: journalctl -u evenkeel");
    Ok(())
}

pub async fn uninstall(args: UninstallArgs) -> Result<()> {
    let path = args.unit_dir.join(UNIT);
    if Path::new("/run/systemd/system").is_dir() && path.exists() {
        systemctl(&["disable", "--now", UNIT])?;
    }
    stop::run(StopArgs { common: args.common.clone(), pods: true }).await?;
    for path in [path, args.unit_dir.join(ENVIRONMENT)] {
        match fs::remove_file(&path) {
            Ok(()) => println!("removed {}", path.display()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("remove {}", path.display())),
        }
    }
    if Path::new("/run/systemd/system").is_dir() {
        systemctl(&["daemon-reload"])?;
    }
    let layout = args.common.layout();
    if args.data {
        // What lies on another file system is not ours to empty.
        let mounts = wire::foreign_mounts(&layout)?;
        if let Some(mount) = mounts.first() {
            bail!("{} is mounted inside the data folder; unmount it, then call this again", mount.display());
        }
        for folder in [layout.data.clone(), layout.run()].into_iter().filter(|folder| folder.exists()) {
            remove(&folder).with_context(|| format!("remove {}", folder.display()))?;
            println!("removed {}", folder.display());
        }
        // The kubeconfig of the default instance lies outside; it opens nothing any more.
        if layout.kubeconfig().exists() {
            fs::remove_file(layout.kubeconfig())
                .with_context(|| format!("remove {}", layout.kubeconfig().display()))?;
            println!("removed {}", layout.kubeconfig().display());
        }
    } else {
        println!("kept {}: state, keys and local volumes; remove it with --data", layout.data.display());
    }
    Ok(())
}

/// Keeps an installed unit from starting the program again on a machine that is to be left alone.
pub fn disable() -> Result<()> {
    let installed = Path::new("/run/systemd/system").is_dir() && Path::new(UNITS).join(UNIT).exists();
    if installed { systemctl(&["disable", "--now", UNIT]) } else { Ok(()) }
}

/// A folder with all that is in it; of a mount point, all that is in it.
fn remove(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
            if fs::read_dir(folder)?.next().is_none() {
                Ok(())
            } else {
                Err(error)
            }
        }
        outcome => outcome,
    }
}

fn systemctl(words: &[&str]) -> Result<()> {
    let status = Command::new("systemctl").args(words).status().context("run systemctl")?;
    anyhow::ensure!(status.success(), "systemctl {} ended with {status}", words.join(" "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{environment, unit};
    use std::path::Path;

    /// Every directive, for each is there for a reason.
    const WHOLE: &str = "\
[Unit]
Description=Evenkeel: Kubernetes (server)
Wants=network-online.target
After=network-online.target time-sync.target

[Service]
Type=exec
ExecStart=/usr/local/bin/evenkeel server --data-dir=/srv/ek
EnvironmentFile=-/etc/systemd/system/evenkeel.env
# Pods and containerd outlive this process: only it is stopped, and it manages cgroups of its own.
KillMode=process
Delegate=yes
Restart=always
RestartSec=2s
TimeoutStartSec=0
TimeoutStopSec=30s
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
OOMScoreAdjust=-999

[Install]
WantedBy=multi-user.target
";

    #[test]
    fn the_unit_leaves_pods_alone_and_holds_no_secret() {
        let environment = Path::new("/etc/systemd/system/evenkeel.env");
        let text = |data: &str| unit("server", Path::new("/usr/local/bin/evenkeel"), Path::new(data), environment);
        assert_eq!(text("/srv/ek"), WHOLE);
        assert_eq!(text(crate::layout::DATA), WHOLE.replace(" --data-dir=/srv/ek", ""));
    }

    #[test]
    fn settings_are_kept_and_taken_over_from_the_environment() {
        let given = |list: &[(&str, &str)]| {
            let owned = list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            owned.collect::<Vec<_>>().into_iter()
        };
        let first =
            environment("", given(&[("K3S_URL", "https://a:6443"), ("PATH", "/bin"), ("EVENKEEL_TOKEN", "a\"b")]));
        assert!(first.ends_with("EVENKEEL_TOKEN=\"a\\\"b\"\nK3S_URL=\"https://a:6443\"\n"), "{first}");
        assert_eq!(environment(&first, given(&[])), first, "installing again changes nothing");
        let moved = environment(&first, given(&[("K3S_URL", "https://b:6443")]));
        assert!(moved.contains("K3S_URL=\"https://b:6443\"\n") && moved.contains("EVENKEEL_TOKEN="), "{moved}");
    }
}
