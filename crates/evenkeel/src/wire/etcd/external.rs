//! The etcd engine from the server's flags.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::Chain;
use store::etcd::{Config, ReachError};
use tokio::time::Instant;
use tracing::warn;

use super::PREFIX;
use crate::cli::DatastoreArgs;
use crate::pki::{Leaf, client_config};

/// After a power cut in the rack etcd may be up later than we are. Past this the service manager tries again.
const APPEAR_TIMEOUT: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_secs(1);

/// Reaches the etcd and makes the engine. What waiting cannot cure is told at once.
pub async fn connect(args: &DatastoreArgs, endpoints: &str) -> Result<Arc<dyn store::Engine>> {
    let config = config(args, endpoints)?;
    let deadline = Instant::now() + APPEAR_TIMEOUT;
    let mut said = false;
    loop {
        match store::etcd::reach(&config).await {
            Ok(()) => return Ok(store::etcd::connect(config)?),
            Err(failure @ ReachError::Absent(_)) if Instant::now() < deadline => {
                if !said {
                    warn!(error = %Chain(&failure), "waiting for etcd at {endpoints}");
                    said = true;
                }
                tokio::time::sleep(AGAIN).await;
            }
            Err(failure) => return Err(failure).with_context(|| format!("--datastore-endpoint {endpoints}")),
        }
    }
}

fn config(args: &DatastoreArgs, endpoints: &str) -> Result<Config> {
    let endpoints: Vec<String> = endpoints.split(',').map(|text| text.trim().to_owned()).collect();
    if let Some(other) = endpoints.iter().find(|text| !text.starts_with("http://") && !text.starts_with("https://")) {
        let scheme = other.split("://").next().unwrap_or_default();
        bail!("--datastore-endpoint: {scheme:?} is no store of Evenkeel; it takes an etcd, http(s)://HOST:2379");
    }
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    let tls: Option<store::etcd::TlsProvider> = match &args.datastore_cafile {
        None => None,
        Some(ca) => {
            let leaf = match (&args.datastore_certfile, &args.datastore_keyfile) {
                (Some(certificate), Some(key)) => {
                    let leaf = Leaf::of_pem(&read(certificate)?, &read(key)?);
                    Some(leaf.with_context(|| format!("{} and {}", certificate.display(), key.display()))?)
                }
                _ => None,
            };
            let config = client_config(&read(ca)?, leaf.as_ref(), true).with_context(|| ca.display().to_string())?;
            Some(Arc::new(move || config.clone()))
        }
    };
    Ok(Config { endpoints, others: None, prefix: PREFIX.to_owned(), tls })
}

#[cfg(test)]
mod tests {
    use super::config;
    use crate::cli::DatastoreArgs;

    #[test]
    fn stores_of_others_are_named() {
        let args = DatastoreArgs {
            datastore_endpoint: None,
            datastore_cafile: None,
            datastore_certfile: None,
            datastore_keyfile: None,
        };
        let error = |text: &str| config(&args, text).err().unwrap().to_string();
        assert!(error("mysql://user:secret@tcp(db:3306)/k3s").contains("\"mysql\" is no store of Evenkeel"));
        assert!(!error("postgres://user:secret@db/k3s").contains("secret"));
        assert_eq!(
            config(&args, "http://a:2379, http://b:2379").unwrap().endpoints,
            ["http://a:2379", "http://b:2379"]
        );
    }
}
