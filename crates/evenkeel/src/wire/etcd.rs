//! The etcd engine from the server's flags.

use std::sync::Arc;

use anyhow::{Context, Result};
use store::etcd::Config;

use crate::cli::ServerArgs;
use crate::pki::{Leaf, client_config};

/// Everything of ours in that etcd is below this.
const PREFIX: &str = "/evenkeel";

pub fn connect(args: &ServerArgs, endpoints: &str) -> Result<Arc<dyn store::Engine>> {
    let endpoints = endpoints.split(',').map(|text| text.trim().to_owned()).collect();
    let tls: Option<store::etcd::TlsProvider> = match &args.datastore_cafile {
        None => None,
        Some(ca) => {
            let read = |path: &std::path::Path| {
                std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
            };
            let leaf = match (&args.datastore_certfile, &args.datastore_keyfile) {
                (Some(certificate), Some(key)) => Some(Leaf::of_pem(&read(certificate)?, &read(key)?)?),
                _ => None,
            };
            let config = client_config(&read(ca)?, leaf.as_ref(), true)?;
            Some(Arc::new(move || config.clone()))
        }
    };
    Ok(store::etcd::connect(Config { endpoints, prefix: PREFIX.to_owned(), tls })?)
}
