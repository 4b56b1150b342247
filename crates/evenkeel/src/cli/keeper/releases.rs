//! `evenkeel release`: whose programs this cluster runs.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::cli::args::{ReleaseArgs, ReleaseCommand};
use crate::cli::output::table;
use crate::pki::Kubeconfig;
use crate::wire::admin;
use crate::wire::keeper::trust::{self, Keys};

pub async fn release(args: ReleaseArgs) -> Result<ExitCode> {
    let path = args.keeper.kubeconfig.clone().unwrap_or_else(|| args.keeper.common.layout().kubeconfig());
    let client = admin::client(&Kubeconfig::load(&path)?)?;
    match args.command {
        ReleaseCommand::Keys => {
            let keys = Keys::read(&client).await?;
            let rows: Vec<Vec<String>> = keys.list().map(|(name, key)| vec![name.clone(), key.clone()]).collect();
            if args.keeper.json {
                println!("{}", serde_json::to_string_pretty(&rows)?);
            } else if rows.is_empty() {
                println!("no key is trusted: any program may be brought to the nodes; evenkeel release trust KEYFILE");
            } else {
                print!("{}", table(&["NAME", "KEY"], &rows));
            }
        }
        ReleaseCommand::Trust { file, name } => {
            let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            let name = name.unwrap_or(stem);
            trust::trust(&client, &name, &text).await?;
            println!("programs signed by {name} are trusted, and no others than those of trusted keys");
        }
        ReleaseCommand::Distrust { name } => {
            trust::distrust(&client, &name).await?;
            println!("{name} is trusted no more");
        }
    }
    Ok(ExitCode::SUCCESS)
}
