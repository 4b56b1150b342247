//! `evenkeel backup kit`: print the recovery kit, check a copy of it, or draw another.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::cli::args::KitArgs;
use crate::layout::Layout;
use crate::pki;
use crate::wire::backup::kit;

pub fn run(layout: &Layout, args: &KitArgs) -> Result<()> {
    if let Some(copy) = &args.check {
        let text = fs::read_to_string(copy).with_context(|| format!("read {}", copy.display()))?;
        kit::check(layout, &text)?;
        println!("this opens the backups of this cluster");
        return Ok(());
    }
    if args.rotate {
        kit::draw(layout)?;
        println!(
            "Backups from now on open with this kit; those made before open with the one before. The other servers go"
        );
        println!("along within minutes.\n");
    }
    let path = layout.recovery_kit();
    let Some(text) = kit::find(layout)? else {
        bail!(
            "no copy of the kit has come to this server yet; look again in some minutes, or draw another with --rotate"
        );
    };
    print!("{text}");
    if pki::read(&path)?.as_deref() == Some(text.as_str()) {
        println!("\nIt lies in {}.", path.display());
    }
    println!("\nEvery server keeps a sealed copy, which only this cluster's servers open.");
    Ok(())
}
