//! `evenkeel names`: the process itself. It knows the API server, the node's certificate and the sockets it is given.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use anyhow::{Context, Result};
use base::Chain;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};
use tracing::{info, warn};
use view::{Client, Drain, Https, TlsConfig, View};

use super::Settings;
use crate::pki::{self, Leaf, PkiError, client_config};
use crate::wire::SystemRng;
use crate::wire::signals::Signals;

const CERTIFICATE: &str = "node-client";
const AUTHORITY: &str = "server-ca.crt";

pub async fn run(path: &Path) -> Result<()> {
    let mut signals = Signals::new().context("receive signals")?;
    confine().context("give up privileges")?;
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let settings: Settings = serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
    let drain = Drain::new();
    let transport = Https::among(settings.known.endpoints(), tls(&settings)?);
    let agent = format!("evenkeel-names/{}", env!("CARGO_PKG_VERSION"));
    let client = Client::new(Arc::new(transport), &agent).with_rng(Arc::new(SystemRng));
    let view = View::start(&client, net::dns::watched(), &drain);
    let control = path.with_extension("sock");
    let mut serving = std::pin::pin!(net::dns::run(settings.dns, settings.ranges, view, &control, drain.clone()));
    tokio::select! {
        ended = &mut serving => return ended.context("serve names"),
        () = signals.received() => {}
    }
    info!("draining");
    drain.cancel();
    serving.await.context("serve names")
}

/// Reads what every pod sends, and needs no privilege for it: the sockets are bound by others, and what it reads is its
/// own user's. For this thread and those it starts: called before there are any.
fn confine() -> io::Result<()> {
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(set_no_new_privs(true)?)
}

/// The node's certificate and whom it trusts as they are now: read again when their files change.
fn tls(settings: &Settings) -> Result<TlsConfig> {
    let folder = settings.tls.clone();
    let files = [format!("{CERTIFICATE}.crt"), AUTHORITY.to_owned()].map(|name| folder.join(name));
    let load = move || -> Result<Arc<rustls::ClientConfig>, PkiError> {
        let missing = |name: &str| PkiError::Content { path: folder.join(name), why: "it is not there".to_owned() };
        let ca = pki::read(&folder.join(AUTHORITY))?.ok_or_else(|| missing(AUTHORITY))?;
        let leaf = Leaf::load(&folder, CERTIFICATE)?.ok_or_else(|| missing(CERTIFICATE))?;
        client_config(&ca, Some(&leaf), true)
    };
    let first = (changed(&files), load()?);
    let current = Mutex::new(first);
    Ok(Arc::new(move || {
        let mut current = current.lock().expect("no holder of this lock panics");
        let now = changed(&files);
        if current.0 != now {
            match load() {
                Ok(config) => *current = (now, config),
                Err(error) => warn!(error = %Chain(&error), "the renewed certificate is not used"),
            }
        }
        current.1.clone()
    }))
}

fn changed(files: &[PathBuf; 2]) -> [Option<SystemTime>; 2] {
    files.each_ref().map(|file| fs::metadata(file).and_then(|meta| meta.modified()).ok())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use base::Clock;
    use rcgen::KeyPair;

    use super::{CERTIFICATE, Settings, tls};
    use crate::layout::Layout;
    use crate::pki::leaf::LEAF_LIFE;
    use crate::pki::{Leaf, NodeIdentity, Profile, ServerPki};
    use crate::wire::SystemClock;
    use crate::wire::endpoints::KnownServers;

    #[test]
    fn a_renewed_certificate_is_used_and_a_damaged_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (layout, now) = (Layout::new(folder.path()), SystemClock.now());
        let authorities = ServerPki::load_or_make(&layout, LEAF_LIFE, now).unwrap();
        NodeIdentity::of_server(&layout, &authorities, "n", &BTreeSet::new(), now).unwrap();
        let settings = Settings {
            known: KnownServers::new(&layout, "n", Some(&view::Endpoint::new("127.0.0.1", 6443)), None),
            tls: layout.agent_tls(),
            dns: net::Config::new("n", folder.path()).dns.unwrap(),
            ranges: Vec::new(),
        };
        let current = tls(&settings).unwrap();
        let first = current();
        assert!(Arc::ptr_eq(&first, &current()));
        let key = KeyPair::generate().unwrap();
        let pem = authorities.current().client.issue(&Profile::node_client("n"), &key, now).unwrap();
        Leaf::store(&settings.tls, CERTIFICATE, &pem, &key.serialize_pem()).unwrap();
        let second = current();
        assert!(!Arc::ptr_eq(&first, &second));
        std::fs::write(settings.tls.join("node-client.crt"), "half of it").unwrap();
        assert!(Arc::ptr_eq(&second, &current()));
    }
}
