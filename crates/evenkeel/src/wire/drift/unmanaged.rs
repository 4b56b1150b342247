//! What is on the machine that Evenkeel does not manage, recorded when the node joined: units, cron, packages, rules of
//! others. What came later is listed, and that is all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Names of one kind that are recorded.
const NAMES_MAX: usize = 20_000;
const PACKAGES_BYTES_MAX: u64 = 64 << 20;
const UNITS: [&str; 2] = ["/etc/systemd/system", "/usr/local/lib/systemd/system"];
const CRON: [&str; 7] = [
    "/etc/cron.d",
    "/etc/cron.hourly",
    "/etc/cron.daily",
    "/etc/cron.weekly",
    "/etc/cron.monthly",
    "/var/spool/cron/crontabs",
    "/var/spool/cron",
];

/// Names by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inventory {
    pub units: BTreeSet<String>,
    pub cron: BTreeSet<String>,
    pub packages: BTreeSet<String>,
    pub firewall: BTreeSet<String>,
}

/// What was there when the node joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    pub at: Timestamp,
    #[serde(flatten)]
    pub inventory: Inventory,
}

// === impl Inventory ===

impl Inventory {
    /// Everything but the firewall, which its own collector brings.
    pub fn of_machine(root: &Path) -> Inventory {
        let at = |path: &str| root.join(path.trim_start_matches('/'));
        let files = |folders: &[&str]| {
            let entries = folders.iter().flat_map(|folder| {
                let found = fs::read_dir(at(folder)).into_iter().flatten().flatten();
                found
                    .filter(|entry| !entry.path().is_dir())
                    .map(move |entry| format!("{folder}/{}", entry.file_name().to_string_lossy()))
            });
            entries.take(NAMES_MAX).collect::<BTreeSet<String>>()
        };
        let mut cron = files(&CRON);
        let table = fs::read_to_string(at("/etc/crontab")).unwrap_or_default();
        cron.extend(table.lines().filter(|line| is_job(line)).map(|line| format!("/etc/crontab: {line}")));
        let own = |name: &String| !name.ends_with("/evenkeel.service") && !name.ends_with("/evenkeel.env");
        let units = files(&UNITS).into_iter().filter(own).collect();
        Inventory {
            units,
            cron,
            packages: packages(&at("/var/lib/dpkg/status"), &at("/lib/apk/db/installed")),
            firewall: BTreeSet::new(),
        }
    }

    /// What this has and `before` had not, by kind.
    pub fn added(&self, before: &Inventory) -> BTreeMap<&'static str, Vec<String>> {
        let kinds = [
            ("units", &self.units, &before.units),
            ("cron", &self.cron, &before.cron),
            ("packages", &self.packages, &before.packages),
            ("firewall", &self.firewall, &before.firewall),
        ];
        let new = kinds.map(|(kind, now, then)| (kind, now.difference(then).cloned().collect::<Vec<_>>()));
        new.into_iter().filter(|(_, names)| !names.is_empty()).collect()
    }
}

/// A line of a crontab that has something run.
fn is_job(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with('#') && line.split_whitespace().count() > 5
}

/// Names of installed packages, as dpkg or apk has them.
fn packages(dpkg: &Path, apk: &Path) -> BTreeSet<String> {
    let read = |path: &Path| {
        fs::metadata(path).is_ok_and(|found| found.len() <= PACKAGES_BYTES_MAX).then(|| fs::read(path).ok()).flatten()
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let mut found = BTreeSet::new();
    for entry in read(dpkg).map(text).unwrap_or_default().split("\n\n") {
        let field = |name: &str| entry.lines().find_map(|line| line.strip_prefix(name));
        if field("Status: ").is_some_and(|status| status.ends_with(" installed")) {
            found.extend(field("Package: ").map(str::to_owned));
        }
    }
    found.extend(
        read(apk).map(text).unwrap_or_default().lines().filter_map(|line| line.strip_prefix("P:")).map(str::to_owned),
    );
    found.into_iter().take(NAMES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Inventory;

    #[test]
    fn what_came_later_is_listed() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "var/lib/dpkg/status",
            "Package: a\nStatus: install ok installed\n\nPackage: b\nStatus: deinstall ok config-files\n",
        );
        write("etc/systemd/system/old.service", "");
        write("etc/systemd/system/evenkeel.service", "");
        let before = Inventory::of_machine(root.path());
        assert_eq!((before.units.len(), before.packages.len()), (1, 1));
        write(
            "var/lib/dpkg/status",
            "Package: a\nStatus: install ok installed\n\nPackage: b\nStatus: install ok installed\n",
        );
        write("etc/systemd/system/new.timer", "");
        write("etc/crontab", "# comment\nSHELL=/bin/sh\n5 4 * * * root /root/fix.sh\n");
        let now = Inventory::of_machine(root.path());
        let added = now.added(&before);
        assert_eq!(added["packages"], ["b"]);
        assert_eq!(added["units"], ["/etc/systemd/system/new.timer"]);
        assert_eq!(added["cron"], ["/etc/crontab: 5 4 * * * root /root/fix.sh"]);
        assert_eq!(added.len(), 3);
    }
}
