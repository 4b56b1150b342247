//! What this machine alone can see of itself, without asking any API.

mod disk;
mod drift;
mod kernel;
mod names;
mod process;

use std::fs;
use std::path::Path;

use base::Clock;
use jiff::Timestamp;
use keeper::wrong::{EngineKind, Fact, Name, What};
use x509_parser::prelude::{FromDer, X509Certificate};

pub use kernel::default_link;

use super::{fact, notice};
use crate::config;
use crate::layout::Layout;
use crate::pki::{certificates, due, read};
use crate::wire::SystemClock;
use crate::wire::etcd::Managed;

/// All of it; a machine that never ran anything has nothing to say.
pub async fn facts(layout: &Layout, config: &Path) -> Vec<Fact> {
    if !layout.data.exists() {
        return Vec::new();
    }
    let node = node_name(layout);
    let (disks, processes, names, rules) =
        tokio::join!(disk::facts(layout), process::facts(layout), names::fact(layout), kernel::rules(layout));
    let whats = disks.into_iter().chain(processes).chain(names).chain(rules).chain(kernel::facts());
    let whats = whats.chain(notice::facts(layout, SystemClock.now()));
    let whats = whats.chain(own_certificates(layout)).chain(config_file(config)).chain(drift::facts(layout));
    let own = whats.map(|what| fact(&node, &node, what));
    let narrow = net::PathReport::load(&layout.net()).narrow_paths.into_iter();
    let narrow =
        narrow.map(|path| fact(&node, &path.node, What::PathMtu { wanted: path.link_mtu, works: path.path_mtu }));
    own.chain(narrow).chain(engine(layout).map(|engine| fact(&node, "cluster", What::Store { engine }))).collect()
}

/// The name that this machine's certificate carries; before it has one, the host's.
pub fn node_name(layout: &Layout) -> Name {
    let of_certificate = || {
        let pem = read(&layout.agent_tls().join("node-client.crt")).ok().flatten()?;
        let chain = certificates(&pem).ok()?;
        let (_, certificate) = X509Certificate::from_der(chain.first()?).ok()?;
        let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
        name.strip_prefix("system:node:").map(Name::from)
    };
    of_certificate().unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().to_lowercase().into())
}

/// Where the state of a server is.
fn engine(layout: &Layout) -> Option<EngineKind> {
    if !layout.server_tls().exists() {
        return None;
    }
    Some(if layout.database().exists() && !Managed::found(layout) { EngineKind::Sqlite } else { EngineKind::Etcd })
}

fn own_certificates(layout: &Layout) -> Vec<What> {
    let folders = [("server/tls", layout.server_tls()), ("agent/tls", layout.agent_tls())];
    let files = folders.iter().flat_map(|(short, folder)| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(move |entry| (format!("{short}/{}", entry.file_name().to_string_lossy()), entry.path()))
    });
    files.filter(|(name, _)| name.ends_with(".crt")).filter_map(|(name, path)| certificate(name, &path)).collect()
}

fn certificate(name: String, path: &Path) -> Option<What> {
    let chain = certificates(&fs::read_to_string(path).ok()?).ok()?;
    let (_, certificate) = X509Certificate::from_der(chain.first()?).ok()?;
    let start = Timestamp::from_second(certificate.validity().not_before.timestamp()).ok()?;
    let ends = Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?;
    Some(What::Certificate { name, ends, due: due(start, ends), authority: certificate.is_ca() })
}

fn config_file(path: &Path) -> Option<What> {
    let error = config::read_files(path).err()?;
    Some(What::ConfigFile { path: path.display().to_string(), error: base::Chain(&error).to_string() })
}
