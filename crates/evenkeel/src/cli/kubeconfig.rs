//! `evenkeel kubeconfig`: the administrator's kubeconfig on the standard output, for this machine or a laptop.

use anyhow::{Context, Result};

use super::args::KubeconfigArgs;
use crate::pki::Kubeconfig;

pub fn run(args: &KubeconfigArgs) -> Result<()> {
    let path = args.common.layout().kubeconfig();
    let mut config = Kubeconfig::load(&path).context("has `evenkeel server` run on this machine?")?;
    if let Some(server) = &args.server {
        config.server = server.clone();
    }
    print!("{}", config.render(&args.name));
    Ok(())
}
