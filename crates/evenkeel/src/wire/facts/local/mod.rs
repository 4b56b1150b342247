//! What this machine alone can see of itself, without asking any API.

mod disk;
mod drift;
mod kernel;
mod names;
mod process;
mod routes;

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;

use base::Clock;
use jiff::Timestamp;
use keeper::wrong::{CLUSTER, EngineKind, Fact, Name, What};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

pub use disk::{PROBE_COMMAND, tell as tell_disk};
pub use kernel::default_link;
pub use routes::unrouted;

use super::{course, fact, notice, refused};
use crate::cli;
use crate::layout::Layout;
use crate::pki::{certificates, due, read};
use crate::wire::SystemClock;
use crate::wire::etcd::Managed;
use crate::wire::vip::Noted;

/// All of it; a machine that never ran anything has nothing to say.
///
/// With a `prober` its disks are tried by that program.
pub async fn facts(layout: &Layout, config: &Path, prober: Option<&Path>) -> Vec<Fact> {
    if !layout.data.exists() {
        return Vec::new();
    }
    let node = node_name(layout);
    let (disks, processes, names, rules) =
        tokio::join!(disk::facts(layout, prober), process::facts(layout), names::fact(layout), kernel::rules(layout));
    let whats = disks.into_iter().chain(processes).chain(names).chain(rules).chain(kernel::facts(layout));
    let whats = whats.chain(notice::facts(layout, SystemClock.now()));
    let whats = whats.chain(own_certificates(layout)).chain(config_file(layout, config)).chain(virtual_address(layout));
    let whats = whats.chain(address(layout)).chain(drift::facts(layout));
    let own = whats.map(|what| fact(&node, &node, what));
    let narrow = net::PathReport::load(&layout.net()).narrow_paths.into_iter();
    let narrow =
        narrow.map(|path| fact(&node, &path.node, What::PathMtu { wanted: path.link_mtu, works: path.path_mtu }));
    let noted = refused::facts(layout, &node, SystemClock.now()).into_iter().chain(course::facts(layout, &node));
    let state = engine(layout).map(|engine| What::Store { engine }).into_iter().chain(restored(layout));
    own.chain(narrow).chain(noted).chain(state.map(|what| fact(&node, CLUSTER, what))).collect()
}

/// What a restore notes for later.
#[derive(Debug, Serialize, Deserialize)]
pub struct Restored {
    /// When the bundle was made, and when it was restored.
    pub to: String,
    pub when: String,
}

fn restored(layout: &Layout) -> Option<What> {
    let noted: Restored = serde_json::from_slice(&fs::read(layout.restored()).ok()?).ok()?;
    Some(What::Restored { to: noted.to.parse().ok()?, when: noted.when.parse().ok()? })
}

/// Whether a link of this machine has the virtual address, and whether it should.
fn virtual_address(layout: &Layout) -> Option<What> {
    let noted: Noted = serde_json::from_slice(&fs::read(layout.virtual_address()).ok()?).ok()?;
    let held = UdpSocket::bind((noted.address.addr(), 0)).is_ok();
    Some(What::VirtualAddress { address: noted.address.to_string(), held, leased: noted.here })
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

/// The address that this machine's serving certificate names is the one by which others know it.
fn address(layout: &Layout) -> Option<What> {
    let chain = certificates(&read(&layout.agent_tls().join("kubelet-serving.crt")).ok().flatten()?).ok()?;
    let (_, certificate) = X509Certificate::from_der(chain.first()?).ok()?;
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    let known: Vec<IpAddr> = names.iter().filter_map(ip).filter(|address| !address.is_loopback()).collect();
    let present = known.iter().any(|address| UdpSocket::bind((*address, 0)).is_ok());
    Some(What::Address { address: known.first()?.to_string(), present, link: String::new() })
}

fn ip(name: &GeneralName<'_>) -> Option<IpAddr> {
    let GeneralName::IPAddress(bytes) = name else { return None };
    let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok()
}

fn config_file(layout: &Layout, path: &Path) -> Option<What> {
    let role = if layout.server_tls().exists() { "server" } else { "agent" };
    let error = cli::check_file(role, path).err()?;
    Some(What::ConfigFile { path: path.display().to_string(), error: base::Chain(error.as_ref()).to_string() })
}
