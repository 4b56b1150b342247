//! `evenkeel kubectl`: the kubectl that is on this machine, pointed at this cluster. None is brought along.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Result, bail};

use super::args::KubectlArgs;
use crate::layout::{DATA, Layout};

pub fn run(args: &KubectlArgs) -> Result<()> {
    let mut command = Command::new("kubectl");
    if std::env::var_os("KUBECONFIG").is_none() {
        let data = std::env::var_os("EVENKEEL_DATA_DIR").unwrap_or_else(|| DATA.into());
        command.env("KUBECONFIG", Layout::new(data).kubeconfig());
    }
    let error = command.args(&args.args).exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        bail!("there is no kubectl on this machine; install one of version 1.35 or newer");
    }
    Err(error.into())
}
