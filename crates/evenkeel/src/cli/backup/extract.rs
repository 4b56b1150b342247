//! `evenkeel backup extract`: what an application kept, out of the files beside a bundle, as the application gave it.

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result, bail, ensure};
use keeper::backup::BundleName;

use crate::cli::args::ExtractArgs;
use crate::cli::restore::{Source, opener};
use crate::wire::backup::apps::{App, Index};
use crate::wire::backup::signed::Key;

/// Among the sealed keys of a bundle.
const PROOF_KEY: &str = "server/cred/proof.key";

pub async fn run(args: &ExtractArgs) -> Result<()> {
    let mut out = std::io::stdout().lock();
    ensure!(!out.is_terminal(), "it is no text: send it into a file or a program");
    let Some((namespace, name)) = args.app.split_once('/') else {
        bail!("{:?} is not NAMESPACE/NAME, as `evenkeel backup list` shows them", args.app)
    };
    let source = Source::of(&args.bundle, &args.s3)?;
    let bundle: BundleName = source.name.parse().context("the files beside a bundle are found by its own name")?;
    let opener = opener(args.secret_file.as_deref(), args.passphrase_file.as_deref())?;
    let keys = source.bundle().await?.keys(&opener).with_context(|| args.bundle.clone())?;
    let key =
        keys.get(std::path::Path::new(PROOF_KEY)).context("the bundle lacks the key that its indexes are made with")?;
    let key = Key::parse(std::str::from_utf8(key).context("the proof key is no text")?)?;
    let app = App { namespace: namespace.to_owned(), name: name.to_owned() };
    let index = Index::read(&source.file(&Index::file_of(&bundle, &app)).await?, &key)?;
    for piece in 0..index.pieces.len() {
        let sealed = source.file(&index.piece(piece)).await?;
        out.write_all(&index.open(piece, &sealed, &key)?).context("write it")?;
    }
    out.flush().context("write it")
}
