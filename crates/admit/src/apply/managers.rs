//! `metadata.managedFields`: who set which field, when, how, through which subresource.

use std::collections::BTreeMap;

use api::Tree;
use serde_json::{Map, json};

use super::set::Set;
use super::versions::Touched;
use crate::doc;

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) manager: String,
    pub(crate) apply: bool,
    pub(crate) api_version: String,
    pub(crate) time: String,
    pub(crate) subresource: String,
    pub(crate) set: Set,
}

/// All entries of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Managers {
    pub(crate) entries: Vec<Entry>,
}

/// Entries of updating managers that are kept apart; the oldest beyond are merged into one.
const UPDATERS_MAX: usize = 10;
const ANCIENT: &str = "ancient-changes";
/// Manager names are cut to this (upstream's validation).
const MANAGER_BYTES_MAX: usize = 128;

/// The manager of a request: named by the client, else by its user agent's first word.
pub(crate) fn manager_of(options: &crate::Options) -> String {
    let name = match options.field_manager.as_str() {
        "" => options.user_agent.split('/').next().unwrap_or_default(),
        name => name,
    };
    let printable: String = name.chars().filter(|letter| !letter.is_control()).collect();
    let cut = printable.char_indices().take_while(|(at, letter)| at + letter.len_utf8() <= MANAGER_BYTES_MAX);
    let name: String = cut.map(|(_, letter)| letter).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

// === impl Entry ===

impl Entry {
    pub(crate) fn is_same_manager(&self, other: &Entry) -> bool {
        self.apply == other.apply
            && self.manager == other.manager
            && self.subresource == other.subresource
            && (self.apply || self.api_version == other.api_version)
    }

    /// As conflict messages name a manager.
    pub(crate) fn shown(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text = format!("{text} with subresource {:?}", self.subresource);
        }
        if !self.apply {
            text = format!("{text} using {}", self.api_version);
            if !self.time.is_empty() {
                text = format!("{text} at {}", self.time);
            }
        }
        text
    }

    fn parse(tree: &Tree) -> Option<Entry> {
        Some(Entry {
            manager: doc::text(tree, "manager").to_owned(),
            apply: match doc::text(tree, "operation") {
                "Apply" => true,
                "Update" => false,
                _ => return None,
            },
            api_version: doc::text(tree, "apiVersion").to_owned(),
            time: doc::text(tree, "time").to_owned(),
            subresource: doc::text(tree, "subresource").to_owned(),
            set: Set::parse(tree.get("fieldsV1").unwrap_or(&json!({})))?,
        })
    }

    fn to_tree(&self) -> Tree {
        let mut tree = Map::new();
        tree.insert("manager".into(), json!(self.manager));
        tree.insert("operation".into(), json!(if self.apply { "Apply" } else { "Update" }));
        tree.insert("apiVersion".into(), json!(self.api_version));
        tree.insert("fieldsType".into(), json!("FieldsV1"));
        tree.insert("fieldsV1".into(), self.set.to_tree());
        for (name, text) in [("time", &self.time), ("subresource", &self.subresource)] {
            if !text.is_empty() {
                tree.insert(name.into(), json!(text));
            }
        }
        Tree::Object(tree)
    }
}

// === impl Managers ===

impl Managers {
    /// What an object says, or None where it says nothing that can be read.
    pub(crate) fn of(tree: &Tree) -> Option<Managers> {
        let list = doc::items(tree, "metadata.managedFields");
        let entries: Option<Vec<Entry>> = list.iter().map(Entry::parse).collect();
        entries.filter(|entries| !entries.is_empty()).map(|entries| Managers { entries })
    }

    /// `managedFields: [{}]` asks to forget all.
    pub(crate) fn is_reset(tree: &Tree) -> bool {
        matches!(doc::items(tree, "metadata.managedFields"), [Tree::Object(only)] if only.is_empty())
    }

    pub(crate) fn find(&self, like: &Entry) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.is_same_manager(like))
    }

    /// Puts an entry in the place of the same manager's.
    pub(crate) fn put(&mut self, entry: Entry) {
        self.entries.retain(|have| !have.is_same_manager(&entry));
        if !entry.set.is_empty() || entry.apply {
            self.entries.push(entry);
        }
    }

    /// Takes what was touched from everybody but one. Entries of a version that nobody serves any more are forgotten.
    pub(crate) fn take_from_others(&mut self, like: &Entry, touched: &Touched) {
        for entry in self.entries.iter_mut().filter(|entry| !entry.is_same_manager(like)) {
            entry.set = match touched.of_entry(entry) {
                Some(touched) => entry.set.difference(&touched.gone),
                None => Set::default(),
            };
        }
        self.entries.retain(|entry| entry.is_same_manager(like) || !entry.set.is_empty());
    }

    /// What all own together, by the version that names it.
    pub(crate) fn everybody(&self) -> BTreeMap<&str, Set> {
        let mut all: BTreeMap<&str, Set> = BTreeMap::new();
        for entry in &self.entries {
            let set = all.entry(&entry.api_version).or_default();
            *set = set.union(&entry.set);
        }
        all
    }

    pub(crate) fn write(mut self, tree: &mut Tree) {
        self.cap();
        self.entries.retain(|entry| !entry.set.is_empty());
        self.entries.sort_by(|a, b| {
            let key = |entry: &Entry| {
                let Entry { manager, api_version, subresource, time, .. } = entry.clone();
                (!entry.apply, time, manager, api_version, subresource)
            };
            key(a).cmp(&key(b))
        });
        if self.entries.is_empty() {
            doc::remove(tree, "metadata.managedFields");
            return;
        }
        let list: Vec<Tree> = self.entries.iter().map(Entry::to_tree).collect();
        doc::set(tree, "metadata.managedFields", list);
    }

    /// Merges the oldest updaters into one entry when there are too many.
    fn cap(&mut self) {
        let (mut updaters, mut rest): (Vec<Entry>, Vec<Entry>) =
            self.entries.drain(..).partition(|entry| !entry.apply && entry.subresource.is_empty());
        updaters.sort_by(|a, b| a.time.cmp(&b.time));
        while updaters.len() > UPDATERS_MAX {
            let (first, second) = (updaters.remove(0), updaters.remove(0));
            let set = first.set.union(&second.set);
            updaters.insert(0, Entry { manager: ANCIENT.into(), set, ..second });
        }
        rest.append(&mut updaters);
        self.entries = rest;
    }
}
