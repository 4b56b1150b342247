//! The node's pod addresses: one durable record per sandbox, written before the address is used.
//!
//! The records are the truth and the only one: the pool in memory is read from them at start. An address is not given
//! out again soon after it came back, so that late packets of its last owner meet nobody.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Addresses of one range that are looked at before it counts as full.
const SEARCH_MAX: u128 = 1 << 16;
/// Records one node may hold.
pub const RECORDS_MAX: usize = 4096;

/// Which end of which sandbox an address belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    pub sandbox: String,
    pub interface: String,
}

/// A port of the host that leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: String,
    #[serde(default, rename = "hostIP")]
    pub host_ip: String,
}

/// What a sandbox has of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub owner: Owner,
    /// One per range of the node, in the ranges' order.
    pub addresses: Vec<IpAddr>,
    /// Where the runtime keeps the network namespace.
    pub netns: PathBuf,
    /// `namespace/name` of the pod, for people.
    #[serde(default)]
    pub pod: String,
    #[serde(default)]
    pub ports: Vec<PortMapping>,
}

/// The records of a node and the ranges new ones come from.
#[derive(Debug)]
pub struct Pool {
    folder: PathBuf,
    ranges: Vec<IpNet>,
    records: BTreeMap<Owner, Record>,
    /// The address given out last, per range: the search begins behind it.
    last: Vec<u128>,
}

#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    #[error("{action} {path}")]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no free address in {range}")]
    Full { range: IpNet },
    #[error("this node already keeps {RECORDS_MAX} addresses")]
    Many,
    #[error("{name:?} cannot be part of a file name")]
    Name { name: String },
}

// === impl Pool ===

impl Pool {
    /// Reads all records. One that cannot be read was being written when power failed, before its address was used.
    pub fn open(folder: &Path, ranges: Vec<IpNet>) -> Result<Pool, PoolError> {
        let fail = |action, path: &Path| {
            let path = path.to_path_buf();
            move |source| PoolError::File { action, path, source }
        };
        fs::create_dir_all(folder).map_err(fail("make", folder))?;
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(fail("read", folder))? {
            let path = entry.map_err(fail("read", folder))?.path();
            let bytes = fs::read(&path).map_err(fail("read", &path))?;
            let part = path.extension().is_some_and(|ending| ending == "part");
            match serde_json::from_slice::<Record>(&bytes) {
                Ok(record) if !part => drop(records.insert(record.owner.clone(), record)),
                _ => {
                    tracing::warn!(path = %path.display(), "dropping an unfinished address record");
                    fs::remove_file(&path).map_err(fail("remove", &path))?;
                }
            }
        }
        let last = ranges.iter().map(|range| highest(range, &records)).collect();
        Ok(Pool { folder: folder.to_path_buf(), ranges, records, last })
    }

    pub fn ranges(&self) -> &[IpNet] {
        &self.ranges
    }

    pub fn get(&self, owner: &Owner) -> Option<&Record> {
        self.records.get(owner)
    }

    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// Addresses for an owner, one per range, on disk when this returns. Asking again gives the same ones.
    pub fn take(&mut self, mut record: Record) -> Result<Record, PoolError> {
        if let Some(old) = self.records.get(&record.owner) {
            record.addresses = old.addresses.clone();
        } else {
            if RECORDS_MAX <= self.records.len() {
                return Err(PoolError::Many);
            }
            record.addresses.clear();
            for at in 0..self.ranges.len() {
                let number = self.free(at).ok_or(PoolError::Full { range: self.ranges[at] })?;
                self.last[at] = number;
                record.addresses.push(address(&self.ranges[at], number));
            }
        }
        self.write(&record)?;
        self.records.insert(record.owner.clone(), record.clone());
        Ok(record)
    }

    /// Gives an owner's addresses back. None where it has none: that is success.
    pub fn release(&mut self, owner: &Owner) -> Result<Option<Record>, PoolError> {
        if !self.records.contains_key(owner) {
            return Ok(None);
        }
        let path = self.path(owner)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.map_err(|source| PoolError::File { action: "remove", path, source })?,
        }
        Ok(self.records.remove(owner))
    }

    /// The first free number behind the last one, round the range once.
    fn free(&self, at: usize) -> Option<u128> {
        let range = &self.ranges[at];
        let (first, count) = usable(range);
        let start = self.last[at].checked_sub(first).map_or(0, |last| (last + 1) % count.max(1));
        let numbers = (0..count.min(SEARCH_MAX)).map(|step| first + (start + step) % count);
        let taken: std::collections::BTreeSet<IpAddr> =
            self.records.values().flat_map(|record| record.addresses.iter().copied()).collect();
        numbers.into_iter().find(|number| !taken.contains(&address(range, *number)))
    }

    fn path(&self, owner: &Owner) -> Result<PathBuf, PoolError> {
        let name = format!("{}.{}", owner.sandbox, owner.interface);
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !plain || owner.sandbox.is_empty() || name.starts_with('.') || 200 < name.len() {
            return Err(PoolError::Name { name });
        }
        Ok(self.folder.join(name))
    }

    fn write(&self, record: &Record) -> Result<(), PoolError> {
        let path = self.path(&record.owner)?;
        let text = serde_json::to_vec(record).expect("a record is JSON");
        let part = self.folder.join(format!("{}.{}.part", record.owner.sandbox, record.owner.interface));
        let write = || -> io::Result<()> {
            let mut file = File::create(&part)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&part, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|source| PoolError::File { action: "write", path: path.clone(), source })
    }
}

/// The node's own address in a range: the first.
pub fn gateway(range: &IpNet) -> IpAddr {
    address(range, number(range.network()) + 1)
}

/// The first number for pods and how many there are: without the network, the gateway and the broadcast address.
fn usable(range: &IpNet) -> (u128, u128) {
    let first = number(range.network()) + 2;
    let last = match range {
        IpNet::V4(_) => number(range.broadcast()).saturating_sub(1),
        IpNet::V6(_) => number(range.broadcast()),
    };
    (first, (last + 1).saturating_sub(first))
}

fn highest(range: &IpNet, records: &BTreeMap<Owner, Record>) -> u128 {
    let used = records.values().flat_map(|record| &record.addresses).filter(|address| range.contains(*address));
    used.map(|address| number(*address)).max().unwrap_or(0)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn address(range: &IpNet, number: u128) -> IpAddr {
    match range {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).expect("a number of an IPv4 range"))),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sandbox: &str) -> Record {
        let owner = Owner { sandbox: sandbox.into(), interface: "eth0".into() };
        Record { owner, addresses: Vec::new(), netns: PathBuf::new(), pod: String::new(), ports: Vec::new() }
    }

    fn ranges() -> Vec<IpNet> {
        vec!["10.42.1.0/29".parse().unwrap(), "fd00:42:1::/64".parse().unwrap()]
    }

    fn take(pool: &mut Pool, sandbox: &str) -> String {
        pool.take(record(sandbox)).unwrap().addresses[0].to_string()
    }

    #[test]
    fn addresses_survive_and_come_round() {
        let folder = tempfile::tempdir().unwrap();
        let mut pool = Pool::open(folder.path(), ranges()).unwrap();
        assert_eq!(gateway(&pool.ranges()[0]).to_string(), "10.42.1.1");
        assert_eq!(
            [take(&mut pool, "a"), take(&mut pool, "b"), take(&mut pool, "a")],
            ["10.42.1.2", "10.42.1.3", "10.42.1.2"]
        );
        assert_eq!(pool.get(&record("a").owner).unwrap().addresses[1].to_string(), "fd00:42:1::2");
        // A power cut during a write leaves a part behind; a restart forgets it and remembers the rest.
        fs::write(folder.path().join("c.eth0.part"), "{").unwrap();
        let mut pool = Pool::open(folder.path(), ranges()).unwrap();
        assert!(pool.release(&record("a").owner).unwrap().is_some());
        assert!(pool.release(&record("a").owner).unwrap().is_none());
        assert_eq!(take(&mut pool, "d"), "10.42.1.4", "an address that came back rests");
        assert_eq!(
            [take(&mut pool, "e"), take(&mut pool, "f"), take(&mut pool, "g")],
            ["10.42.1.5", "10.42.1.6", "10.42.1.2"]
        );
        assert!(matches!(pool.take(record("h")), Err(PoolError::Full { .. })));
    }

    #[test]
    fn ids_that_lead_out_of_the_folder_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut pool = Pool::open(folder.path(), ranges()).unwrap();
        for bad in ["", "../x", ".x", "a/b"] {
            assert!(matches!(pool.take(record(bad)), Err(PoolError::Name { .. })), "{bad}");
        }
    }
}
