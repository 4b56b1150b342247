//! Who answers what the cluster does not know: the machine's own name servers.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::SystemTime;

/// As resolv.conf(5), which uses no more than three, but machines list more.
pub const SERVERS_MAX: usize = 8;
const PORT: u16 = 53;

/// The servers of a resolv.conf, read again when the file changes.
#[derive(Debug)]
pub struct Upstreams {
    file: std::path::PathBuf,
    fixed: Vec<SocketAddr>,
    own: Vec<IpAddr>,
    read: Option<(SystemTime, Vec<SocketAddr>)>,
}

// === impl Upstreams ===

impl Upstreams {
    pub fn new(file: &Path, fixed: &[SocketAddr], own: &[IpAddr]) -> Upstreams {
        Upstreams { file: file.to_path_buf(), fixed: fixed.to_vec(), own: own.to_vec(), read: None }
    }

    /// The servers now.
    pub fn servers(&mut self) -> Vec<SocketAddr> {
        if !self.fixed.is_empty() {
            return self.fixed.clone();
        }
        let changed = fs::metadata(&self.file).and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        if let Some((at, servers)) = &self.read
            && *at == changed
        {
            return servers.clone();
        }
        let servers = parse(&fs::read_to_string(&self.file).unwrap_or_default(), &self.own);
        self.read = Some((changed, servers.clone()));
        servers
    }
}

/// Our own addresses are left out: asking ourselves would go round for ever.
fn parse(text: &str, own: &[IpAddr]) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        // Link-local servers carry a zone (`fe80::1%eth0`) that only the link's own users can resolve.
        let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        if let Some(address) = address.filter(|address| !own.contains(address)) {
            let server = SocketAddr::new(address, PORT);
            if !servers.contains(&server) && servers.len() < SERVERS_MAX {
                servers.push(server);
            }
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_address_is_no_upstream() {
        let text = "# c\nsearch a b\nnameserver 10.43.0.10\nnameserver 192.0.2.1\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver ::1\n";
        let servers = parse(text, &[IpAddr::from([10, 43, 0, 10])]);
        assert_eq!(servers, ["192.0.2.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
    }
}
