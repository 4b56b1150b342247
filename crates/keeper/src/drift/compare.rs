//! Wanted against seen: which things differ, each with a few words.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// What kind of thing drifted; each has a code of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    Certificate,
    File,
    /// A rule or a table of the firewall.
    Firewall,
    /// An object that a file of the deploy folder brought.
    Manifest,
    Sysctl,
    Unit,
}

/// A thing that somebody keeps, by the name people know it under.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Thing {
    pub kind: Kind,
    pub name: String,
}

/// How a thing shall be, or how it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// A file by its content, and by its mode where that matters.
    Content {
        sha256: String,
        mode: Option<u32>,
    },
    /// A symbolic link.
    Link(String),
    Value(String),
    /// It is there, and its name says all.
    There,
    /// Not as it should be: its owner says in what.
    Told(String),
}

/// One look at a machine. What is equal on both sides may be left out of both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    pub wanted: BTreeMap<Thing, State>,
    pub seen: BTreeMap<Thing, State>,
    /// Kinds that could not be looked at: what is known of them stays as it is.
    pub unknown: BTreeSet<Kind>,
}

// === impl Kind ===

impl Kind {
    pub const ALL: [Kind; 6] =
        [Kind::Certificate, Kind::File, Kind::Firewall, Kind::Manifest, Kind::Sysctl, Kind::Unit];

    pub fn word(self) -> &'static str {
        match self {
            Kind::Certificate => "certificate",
            Kind::File => "file",
            Kind::Firewall => "firewall",
            Kind::Manifest => "manifest",
            Kind::Sysctl => "sysctl",
            Kind::Unit => "unit",
        }
    }
}

// === impl Thing ===

impl Thing {
    pub fn new(kind: Kind, name: impl Into<String>) -> Thing {
        Thing { kind, name: name.into() }
    }
}

// === impl Look ===

impl Look {
    pub fn want(&mut self, thing: Thing, state: State) {
        self.wanted.insert(thing, state);
    }

    pub fn see(&mut self, thing: Thing, state: State) {
        self.seen.insert(thing, state);
    }
}

/// What differs, and how.
pub fn compare(look: &Look) -> BTreeMap<Thing, String> {
    let mut found = BTreeMap::new();
    for (thing, wanted) in &look.wanted {
        let change = match look.seen.get(thing) {
            None => Some("is gone".to_owned()),
            Some(seen) => differs(wanted, seen),
        };
        found.extend(change.map(|change| (thing.clone(), change)));
    }
    for (thing, seen) in look.seen.iter().filter(|(thing, _)| !look.wanted.contains_key(*thing)) {
        let change = match seen {
            State::Told(told) => told.clone(),
            _ => "was added".to_owned(),
        };
        found.insert(thing.clone(), change);
    }
    found
}

fn differs(wanted: &State, seen: &State) -> Option<String> {
    match (wanted, seen) {
        _ if wanted == seen => None,
        (State::Content { sha256: want, mode: mode_wanted }, State::Content { sha256: is, mode }) => {
            if want != is {
                return Some("its content was changed".to_owned());
            }
            let (Some(want), Some(is)) = (mode_wanted, mode) else { return None };
            (want != is).then(|| format!("its mode is {is:04o}, was {want:04o}"))
        }
        (State::Link(want), State::Link(is)) => Some(format!("leads to {is}, led to {want}")),
        (State::Value(want), State::Value(is)) => Some(format!("is {is}, was {want}")),
        (_, State::Told(told)) => Some(told.clone()),
        _ => Some("was replaced by something else".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Look, State, Thing, compare};

    fn content(sha256: &str, mode: u32) -> State {
        State::Content { sha256: sha256.to_owned(), mode: Some(mode) }
    }

    #[test]
    fn differences_are_told_in_a_few_words() {
        let mut look = Look::default();
        let file = |name: &str| Thing::new(Kind::File, name);
        for (name, seen) in [
            ("same", Some(content("a", 0o600))),
            ("mode", Some(content("a", 0o644))),
            ("text", Some(content("b", 0o600))),
            ("link", Some(State::Link("/tmp/x".to_owned()))),
            ("gone", None),
        ] {
            look.want(file(name), content("a", 0o600));
            if let Some(seen) = seen {
                look.see(file(name), seen);
            }
        }
        look.want(Thing::new(Kind::Sysctl, "net.ipv4.ip_forward"), State::Value("1".to_owned()));
        look.see(Thing::new(Kind::Sysctl, "net.ipv4.ip_forward"), State::Value("0".to_owned()));
        look.see(Thing::new(Kind::Firewall, "inet evenkeel forward: drop"), State::There);
        let told: Vec<String> =
            compare(&look).into_iter().map(|(thing, change)| format!("{} {change}", thing.name)).collect();
        let wanted = [
            "gone is gone",
            "link was replaced by something else",
            "mode its mode is 0644, was 0600",
            "text its content was changed",
            "inet evenkeel forward: drop was added",
            "net.ipv4.ip_forward is 0, was 1",
        ];
        assert_eq!(told, wanted);
    }
}
