//! What the machine must have: Debian packages, installed only when missing and after saying which.

use anyhow::{Context, bail};

use crate::process::{output, run};

/// What a machine needs to run a node: the container runtime and the packet filter.
pub const NODE_PACKAGES: [&str; 6] = ["containerd", "runc", "nftables", "iproute2", "conntrack", "ca-certificates"];
/// What building the images and the binary needs beside Rust.
pub const BUILD_PACKAGES: [&str; 5] = ["gcc", "libc6-dev", "mmdebstrap", "busybox-static", "python3-pip"];
/// What several servers on simulated hosts need.
pub const RACK_PACKAGES: [&str; 4] = ["etcd-server", "etcd-client", "procps", "mount"];
/// What the tests run against beside all that.
pub const TEST_PACKAGES: [&str; 4] = ["docker-registry", "skopeo", "systemd", "faketime"];

/// Installs the missing ones of these packages through apt.
///
/// # Errors
/// Not Debian, not root, or apt failed; the message says which packages to install by hand.
pub fn require(packages: &[&str]) -> anyhow::Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing through apt: {}", missing.join(" "));
    let by_hand = || format!("install by hand: {}", missing.join(" "));
    if output("id", &["-u"])?.trim() != "0" {
        bail!("not root; {}", by_hand());
    }
    run("apt-get", &["-qq", "update"]).with_context(by_hand)?;
    let mut arguments = vec!["-qq", "install", "--yes", "--no-install-recommends"];
    arguments.extend(&missing);
    run("env", &[&["DEBIAN_FRONTEND=noninteractive", "apt-get"], arguments.as_slice()].concat()).with_context(by_hand)
}

fn is_installed(package: &str) -> bool {
    let status = output("dpkg-query", &["--show", "--showformat=${db:Status-Status}", package]);
    status.is_ok_and(|status| status == "installed")
}
