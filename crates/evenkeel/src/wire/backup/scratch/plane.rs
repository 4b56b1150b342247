//! The parts of a control plane that the scratch one has: the state and the API, and none that acts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use admit::NoWebhooks;
use anyhow::{Context, Result, ensure};
use api::builtin::git_version;
use apiserver::{Audit, AuditConfig, Config, Deps, NoExtension, NoNodes, NoTokens, Server, TokenKeys};
use base::Clock;

use super::Found;
use crate::layout::Layout;
use crate::pki::leaf::LEAF_LIFE;
use crate::pki::{self, Access, ServerPki};
use crate::wire::backup::bundle::{Bundle, Manifest};
use crate::wire::{SystemClock, SystemRng, keys};

/// The audit log of a proof is thrown away with it.
const AUDIT_BYTES_MAX: u64 = 1 << 20;

/// Imports the snapshot as a restore does and opens it with the keys of the bundle, and with no others.
pub async fn load(bundle: &Bundle, files: &BTreeMap<PathBuf, Vec<u8>>, layout: &Layout) -> Found<store::Store> {
    let format = bundle.manifest.snapshot_format;
    ensure!(format <= store::SNAPSHOT_FORMAT, "the snapshot has format {format}, newer than this program");
    layout.make().with_context(|| format!("prepare {}", layout.data.display()))?;
    for (name, content) in files {
        pki::write(&layout.data.join(name), content, Access::Secret)?;
    }
    let keys = keys::read(layout)?.context("server/cred/encryption.keys is missing")?;
    let engine = store::sqlite::open(&layout.database()).context("make an empty state")?;
    let summary = store::import(&*engine, bundle.snapshot.as_slice()).await.context("fill the state")?;
    let store = store::Store::open(engine, keys, Arc::new(SystemClock)).await.context("open the state")?;
    Ok((store, format!("{} records; the next write comes after revision {}", summary.records, summary.revision)))
}

/// The API over that state. It listens nowhere: who asks is in this process.
pub async fn serve(store: &store::Store, layout: &Layout, manifest: &Manifest) -> Found<Server> {
    let pki = ServerPki::load_or_make(layout, LEAF_LIFE, SystemClock.now()).context("load the authorities")?;
    let domain = manifest.settings.as_ref().map_or("cluster.local", |settings| &settings.cluster_domain);
    let issuer = format!("https://kubernetes.default.svc.{domain}");
    let audit = AuditConfig { path: layout.audit_log(), file_bytes_max: AUDIT_BYTES_MAX, files_max: 1 };
    let config = Config {
        admit: admit_config(manifest)?,
        issuers: vec![issuer.clone()],
        audiences: vec![issuer],
        advertise: ([127, 0, 0, 1], 6443).into(),
        server_ca_pem: pki.current().server.pem.clone(),
        client_ca_pem: pki.current().client.pem.clone(),
        front_proxy_ca_pem: pki.current().request_header.pem.clone(),
        version: git_version(),
    };
    let server = Server::new(Deps {
        store: store.clone(),
        clock: Arc::new(SystemClock),
        rng: Arc::new(SystemRng),
        hooks: Arc::new(NoWebhooks),
        keys: TokenKeys::from_pems(&pki.current().signing_keys).context("service-account keys")?,
        tokens: Arc::new(NoTokens),
        nodes: Arc::new(NoNodes),
        extension: Arc::new(NoExtension),
        checks: Vec::new(),
        revoked: tokio::sync::watch::channel(BTreeSet::new()).1,
        audit: Audit::start(audit).context("open the audit log")?,
        config,
    });
    Ok((server, "the API answers in its own process".to_owned()))
}

fn admit_config(manifest: &Manifest) -> Result<admit::Config> {
    let Some(settings) = &manifest.settings else { return Ok(admit::Config::default()) };
    let networks = |list: &[String]| {
        let parsed: Result<Vec<_>, _> = list.iter().map(|text| text.parse()).collect();
        parsed.context("the noted flags hold a range that is none")
    };
    let (service_cidrs, pod_cidrs) = (networks(&settings.service_cidr)?, networks(&settings.cluster_cidr)?);
    Ok(admit::Config { service_cidrs, pod_cidrs, ..admit::Config::default() })
}
