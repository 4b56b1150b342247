//! All kinds served at one moment: the built-in rows and those made from CRDs. Immutable; a change makes a new one.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::kind::KindRef;
use crate::{Gvk, Gvr, Kind};

/// A set of kinds, found by resource or by kind.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    by_gvr: BTreeMap<Gvr, KindRef>,
    by_gvk: BTreeMap<Gvk, Gvr>,
}

// === impl Registry ===

impl Registry {
    pub fn new(kinds: impl IntoIterator<Item = Kind>) -> Registry {
        let mut registry = Registry::default();
        for kind in kinds {
            registry.insert(Arc::new(kind));
        }
        registry
    }

    pub fn insert(&mut self, kind: KindRef) {
        self.by_gvk.insert(kind.gvk.clone(), kind.gvr());
        self.by_gvr.insert(kind.gvr(), kind);
    }

    pub fn resource(&self, gvr: &Gvr) -> Option<&KindRef> {
        self.by_gvr.get(gvr)
    }

    pub fn kind(&self, gvk: &Gvk) -> Option<&KindRef> {
        self.by_gvr.get(self.by_gvk.get(gvk)?)
    }

    /// The row in whose form objects of this kind are stored: the row itself, but for the other versions of a kind.
    pub fn stored<'a>(&'a self, kind: &'a KindRef) -> &'a KindRef {
        if kind.is_stored() {
            return kind;
        }
        let (group, resource) = kind.storage.rsplit_once('/').unwrap_or_default();
        self.resource(&Gvr::new(group, &kind.storage_version, resource)).unwrap_or(kind)
    }

    /// In order of group, version, resource.
    pub fn iter(&self) -> impl Iterator<Item = &KindRef> {
        self.by_gvr.values()
    }
}
