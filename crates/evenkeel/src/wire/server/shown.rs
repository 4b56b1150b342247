//! What a server shows to others: its port, its addresses, its certificates, and the kubeconfig of this machine.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use base::Clock;
use jiff::Timestamp;
use tokio::net::TcpSocket;

use super::Setup;
use crate::pki::{self, Access, Kubeconfig, NodeIdentity};
use crate::wire::SystemClock;
use crate::wire::apiserver::Tls;
use crate::wire::etcd::Managed;
use crate::wire::node::NodeTls;

impl Setup {
    /// Nobody else can have the port from here on; who connects is refused until there is somebody to answer.
    pub(super) fn take_port(&self) -> Result<TcpSocket> {
        let wanted = SocketAddr::new(self.args.bind_address, self.args.https_listen_port);
        match bound(wanted) {
            Ok(socket) => Ok(socket),
            // A machine without IPv6 has no `::`.
            Err(error) if wanted.ip().is_unspecified() && error.raw_os_error() == Some(AFNOSUPPORT) => {
                let four = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), wanted.port());
                bound(four).with_context(|| format!("listen on {four}"))
            }
            Err(error) => Err(error).with_context(|| format!("listen on {wanted}")),
        }
    }

    /// Where this machine reaches its own server.
    pub(super) fn own_address(&self) -> IpAddr {
        let bound = self.args.bind_address;
        if bound.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { bound }
    }

    pub(super) fn advertise(&self) -> SocketAddr {
        let address = self.args.advertise_address.unwrap_or(self.addresses[0]);
        SocketAddr::new(address, self.args.https_listen_port)
    }

    /// This machine's own kubeconfig names the loopback, unless the operator said which address is the right one.
    pub(super) fn kubeconfig_url(&self) -> String {
        let named = self.args.advertise_address.is_some() || !self.args.node.node_ip.is_empty();
        let bound = Some(self.args.bind_address).filter(|address| !address.is_unspecified());
        let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.args.https_listen_port);
        let address =
            if named { self.advertise() } else { bound.map_or(loopback, |ip| SocketAddr::new(ip, loopback.port())) };
        format!("https://{address}")
    }

    pub(super) fn kubeconfig_path(&self) -> PathBuf {
        self.args.write_kubeconfig.clone().unwrap_or_else(|| self.layout.kubeconfig())
    }

    /// Where this program's own commands look, whatever was asked for.
    pub(super) fn own_kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig()
    }

    pub(super) fn node_identity(&self) -> Result<NodeIdentity> {
        let addresses: BTreeSet<IpAddr> =
            self.addresses.iter().chain(&self.args.node.node_external_ip).copied().collect();
        let made = NodeIdentity::of_server(&self.layout, &self.pki, &self.name, &addresses, SystemClock.now());
        Ok(made.context("certificates of the node")?.0)
    }

    /// Issues what is due of everything this process shows to others; answers when the first of it is due next.
    pub(super) fn renew(&self, tls: &Tls, node: Option<&NodeTls>, etcd: Option<&Managed>) -> Result<Timestamp> {
        let mut due = tls.renew(&SystemClock)?.min(self.write_kubeconfig()?);
        if let Some(etcd) = etcd {
            due = due.min(etcd.renew(SystemClock.now())?);
        }
        if let Some(node) = node {
            let identity = self.node_identity()?;
            node.renew(&identity)?;
            due = due.min(identity.due());
        }
        Ok(due)
    }

    /// Answers when the certificate in it is due.
    pub(super) fn write_kubeconfig(&self) -> Result<Timestamp> {
        let text = self.args.write_kubeconfig_mode.trim_start_matches("0o");
        let mode = u32::from_str_radix(text, 8).context("--write-kubeconfig-mode is octal: 0600")?;
        let (admin, _) = self.pki.admin(SystemClock.now())?;
        let config = Kubeconfig::new(&self.kubeconfig_url(), &self.pki.current().server.pem, &admin);
        let text = config.render("default");
        for path in BTreeSet::from([self.kubeconfig_path(), self.own_kubeconfig()]) {
            let has_mode = fs::metadata(&path).is_ok_and(|found| found.permissions().mode() & 0o7777 == mode);
            if !has_mode || pki::read(&path)?.as_deref() != Some(text.as_str()) {
                pki::write(&path, text.as_bytes(), Access::Mode(mode))?;
            }
        }
        Ok(admin.due())
    }
}

/// `EAFNOSUPPORT`.
const AFNOSUPPORT: i32 = 97;

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
