//! `evenkeel names`: the process itself. It knows the API server, the node's certificate and the sockets it is given.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use anyhow::{Context, Result};
use base::Chain;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};
use tracing::{info, warn};
use view::{Client, Drain, Https, TlsConfig, View};

use super::Settings;
use crate::pki::{Leaf, PkiError, client_config};
use crate::wire::SystemRng;
use crate::wire::signals::Signals;

const CERTIFICATE: &str = "node-client";

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

/// The node's certificate as it is now: read again when its file changes.
fn tls(settings: &Settings) -> Result<TlsConfig> {
    let (ca, folder) = (settings.server_ca_pem.clone(), settings.tls.clone());
    let load = move || -> Result<Arc<rustls::ClientConfig>, PkiError> {
        let missing = || PkiError::Content { path: folder.join(CERTIFICATE), why: "no certificate".to_owned() };
        let leaf = Leaf::load(&folder, CERTIFICATE)?.ok_or_else(missing)?;
        client_config(&ca, Some(&leaf), true)
    };
    let file = settings.tls.join(format!("{CERTIFICATE}.crt"));
    let first = (changed(&file), load()?);
    let current = Mutex::new(first);
    Ok(Arc::new(move || {
        let mut current = current.lock().expect("no holder of this lock panics");
        let now = changed(&file);
        if current.0 != now {
            match load() {
                Ok(config) => *current = (now, config),
                Err(error) => warn!(error = %Chain(&error), "the renewed certificate is not used"),
            }
        }
        current.1.clone()
    }))
}

fn changed(file: &Path) -> Option<SystemTime> {
    fs::metadata(file).and_then(|meta| meta.modified()).ok()
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
            server_ca_pem: authorities.server.pem.clone(),
            tls: layout.agent_tls(),
            dns: net::Config::new("n", folder.path()).dns.unwrap(),
            ranges: Vec::new(),
        };
        let current = tls(&settings).unwrap();
        let first = current();
        assert!(Arc::ptr_eq(&first, &current()));
        let key = KeyPair::generate().unwrap();
        let pem = authorities.client.issue(&Profile::node_client("n"), &key, now).unwrap().pem();
        Leaf::store(&settings.tls, CERTIFICATE, &pem, &key.serialize_pem()).unwrap();
        let second = current();
        assert!(!Arc::ptr_eq(&first, &second));
        std::fs::write(settings.tls.join("node-client.crt"), "half of it").unwrap();
        assert!(Arc::ptr_eq(&second, &current()));
    }
}
