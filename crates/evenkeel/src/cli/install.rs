//! `evenkeel install` and `uninstall`: a systemd unit that leaves pods alone when the program restarts.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::args::{InstallArgs, StopArgs, UninstallArgs};
use super::stop;
use crate::layout::DATA;

const UNIT: &str = "evenkeel.service";

/// The unit's text. No secret is in it: tokens come from the configuration file or a file of their own.
pub fn unit(role: &str, program: &Path, data: &Path) -> String {
    let data = if data == Path::new(DATA) { String::new() } else { format!(" --data-dir={}", data.display()) };
    let program = program.display();
    format!(
        "[Unit]\nDescription=Evenkeel: Kubernetes ({role})\nDocumentation=man:evenkeel(1)\nWants=network-online.target\n\
         After=network-online.target\n\n[Service]\nType=exec\nExecStart={program} {role}{data}\n\
         EnvironmentFile=-/etc/default/evenkeel\n\
         # Pods and containerd outlive this process: only it is stopped, and it manages cgroups of its own.\n\
         KillMode=process\nDelegate=yes\nRestart=always\nRestartSec=2s\nTimeoutStartSec=0\nTimeoutStopSec=30s\n\
         LimitNOFILE=1048576\nLimitNPROC=infinity\nLimitCORE=infinity\nTasksMax=infinity\nOOMScoreAdjust=-999\n\n\
         [Install]\nWantedBy=multi-user.target\n"
    )
}

pub fn install(args: &InstallArgs) -> Result<()> {
    if !matches!(args.role.as_str(), "server" | "agent") {
        bail!("{:?} is no role: server or agent", args.role);
    }
    let program = std::env::current_exe().context("find this program")?;
    let text = unit(&args.role, &program, &args.common.data_dir);
    if args.print {
        print!("{text}");
        return Ok(());
    }
    let path = args.unit_dir.join(UNIT);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    println!("wrote {}", path.display());
    if !Path::new("/run/systemd/system").is_dir() {
        println!("this machine does not run systemd; start with: {} {}", program.display(), args.role);
        return Ok(());
    }
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "--now", UNIT])?;
    println!("started; see: journalctl -u evenkeel");
    Ok(())
}

pub async fn uninstall(args: UninstallArgs) -> Result<()> {
    let path = args.unit_dir.join(UNIT);
    if Path::new("/run/systemd/system").is_dir() && path.exists() {
        systemctl(&["disable", "--now", UNIT])?;
    }
    stop::run(StopArgs { common: args.common.clone(), pods: true }).await?;
    match fs::remove_file(&path) {
        Ok(()) => println!("removed {}", path.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("remove {}", path.display())),
    }
    let layout = args.common.layout();
    if args.data {
        for folder in [layout.data.clone(), layout.run()] {
            if folder.exists() {
                fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
                println!("removed {}", folder.display());
            }
        }
    } else {
        println!("kept {}: state, keys and local volumes; remove it with --data", layout.data.display());
    }
    Ok(())
}

fn systemctl(words: &[&str]) -> Result<()> {
    let status = Command::new("systemctl").args(words).status().context("run systemctl")?;
    anyhow::ensure!(status.success(), "systemctl {} ended with {status}", words.join(" "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::unit;
    use std::path::Path;

    #[test]
    fn the_unit_leaves_pods_alone_and_holds_no_secret() {
        let text = unit("server", Path::new("/usr/local/bin/evenkeel"), Path::new("/srv/ek"));
        for line in ["KillMode=process", "Delegate=yes", "ExecStart=/usr/local/bin/evenkeel server --data-dir=/srv/ek"]
        {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
        assert!(!text.contains("token") && !text.contains("KillMode=control-group"));
        let sections: Vec<_> = text.lines().filter(|line| line.starts_with('[')).collect();
        assert_eq!(sections, ["[Unit]", "[Service]", "[Install]"]);
        assert!(text.lines().all(|line| line.is_empty() || line.starts_with(['[', '#']) || line.contains('=')));
    }
}
