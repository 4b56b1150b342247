//! What the compiler does not check: layers, purity, sizes, module docs, reasons, words.
//!
//! Every check returns sentences; no sentence is a pass. Runs as a test of this crate too.

mod edges;
mod sizes;
mod source;
mod words;

use anyhow::bail;

/// Runs all checks. With `bless`, rewrites the ratchet list when it can shrink.
pub fn run(bless: bool) -> anyhow::Result<()> {
    let sources = source::all()?;
    let mut findings = edges::check()?;
    findings.extend(sizes::check(&sources, bless)?);
    findings.extend(words::check(&sources)?);
    if findings.is_empty() {
        println!("tidy: {} files hold", sources.len());
        return Ok(());
    }
    for finding in &findings {
        println!("tidy: {finding}");
    }
    bail!("{} findings", findings.len())
}

/// Prints the figures that STYLE asks for: sizes of files and functions, totals.
pub fn figures() -> anyhow::Result<()> {
    sizes::figures(&source::all()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_house_is_tidy() {
        std::env::set_current_dir(crate::process::workspace_root()).expect("the workspace exists");
        super::run(false).expect("cargo xtask tidy prints what is wrong");
    }
}
