//! `evenkeel certificate`: every certificate of this machine, its end, and when it renews itself; and new authorities.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use base::Clock;
use jiff::Timestamp;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::args::{CertificateArgs, CertificateCommand};
use super::output::table;
use super::rotate;
use crate::layout::Layout;
use crate::pki::{Succession, certificates, due};
use crate::wire::SystemClock;

pub async fn run(args: &CertificateArgs) -> Result<ExitCode> {
    let layout = args.common.layout();
    match &args.command {
        CertificateCommand::Check => check(&layout).map(|()| ExitCode::SUCCESS),
        CertificateCommand::RotateCa(args) => rotate::run(args, &layout).await,
    }
}

fn check(layout: &Layout) -> Result<()> {
    let now = SystemClock.now();
    let mut rows = Vec::new();
    for folder in [layout.server_tls(), layout.agent_tls()] {
        rows.extend(folder_rows(&folder, now)?);
    }
    anyhow::ensure!(!rows.is_empty(), "there are no certificates below {}", layout.data.display());
    print!("{}", table(&["CERTIFICATE", "SUBJECT", "EXPIRES", "RENEWS", "STATE"], &rows));
    if let Some(open) = Succession::noted(&layout.server_tls())? {
        println!("\nnew authorities: {}; see: evenkeel certificate rotate-ca status", rotate::sentence(open.phase));
    }
    Ok(())
}

fn folder_rows(folder: &Path, now: Timestamp) -> Result<Vec<Vec<String>>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut paths: Vec<_> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "crt"));
    paths.sort();
    paths.iter().map(|path| row(path, now).with_context(|| path.display().to_string())).collect()
}

fn row(path: &Path, now: Timestamp) -> Result<Vec<String>> {
    let chain = certificates(&fs::read_to_string(path)?)?;
    let (_, certificate) = X509Certificate::from_der(&chain[0])?;
    let start = Timestamp::from_second(certificate.validity().not_before.timestamp())?;
    let end = Timestamp::from_second(certificate.validity().not_after.timestamp())?;
    let renews = due(start, end);
    let authority = certificate.is_ca();
    let state = match (end <= now, authority, renews <= now) {
        (true, _, _) => "EXPIRED",
        (false, false, true) => "renews at the next check of the running program",
        (false, true, true) => "plan a new authority",
        (false, _, false) => "ok",
    };
    let minute = |at: Timestamp| at.strftime("%Y-%m-%d %H:%MZ").to_string();
    let renews = if authority { "-".to_owned() } else { minute(renews) };
    let name = path.strip_prefix(path.ancestors().nth(3).unwrap_or(path)).unwrap_or(path).display().to_string();
    Ok(vec![name, certificate.subject().to_string(), minute(end), renews, state.to_owned()])
}
