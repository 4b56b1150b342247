//! `evenkeel restore`: a bundle into an empty data folder. The cluster goes on with its keys, and its revisions never go
//! backwards.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::args::RestoreArgs;
use super::backup::passphrase;
use super::bundle::{self, KEYS, SNAPSHOT};
use crate::pki::{self, Access, Opener, open_with};

pub async fn run(args: RestoreArgs) -> Result<()> {
    let (manifest, members) = bundle::open(&args.file)?;
    if args.show {
        println!("{}", serde_json::to_string_pretty(&manifest)?);
        return Ok(());
    }
    let opener = match (&args.secret_file, &args.passphrase_file) {
        (Some(file), None) => {
            let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
            Opener::secret(&text)?
        }
        (None, Some(file)) => passphrase(file)?,
        _ => bail!("say what opens the keys: --secret-file or --passphrase-file"),
    };
    let layout = args.common.layout();
    let _lock = store::DataLock::acquire(&layout.server()).context("stop the server first")?;
    for taken in [layout.database(), layout.server_tls()] {
        ensure!(!taken.exists(), "{} is there already; restore into an empty folder", taken.display());
    }
    // Keys first: when they do not open, nothing was written.
    let keys = open_with(&opener, &members[Path::new(KEYS)]).context("open the sealed keys")?;
    layout.make().with_context(|| format!("prepare {}", layout.data.display()))?;
    let engine = store::sqlite::open(&layout.database()).context("make the state")?;
    let summary = store::import(&*engine, members[Path::new(SNAPSHOT)].as_slice()).await.context("fill the state")?;
    drop(engine);
    for (name, content) in bundle::unpack(keys.as_slice()).context("read the sealed keys")? {
        let access = if name.extension().is_some_and(|end| end == "crt") { Access::Public } else { Access::Secret };
        pki::write(&layout.data.join(&name), &content, access)?;
    }
    println!("restored {} objects; the next write comes after revision {}", summary.records, summary.revision);
    println!("start with: evenkeel server --data-dir {}", layout.data.display());
    println!("not restored: {}", manifest.not_included.join("; "));
    Ok(())
}
