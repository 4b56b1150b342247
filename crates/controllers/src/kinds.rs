//! Which stream stands for which kind when a loop reads every kind there is.

use std::collections::BTreeMap;

use api::kind::KindRef;
use api::{Gvk, Gvr, Registry, Verb};
use base::SmolStr;

/// One resource per stored kind: those that can be listed, watched and deleted. The driver watches exactly these for
/// controllers with `every_kind`. Where several versions or groups serve one storage, the stored version stands for
/// all.
pub fn every_kind(registry: &Registry) -> Vec<KindRef> {
    let mut chosen: BTreeMap<&SmolStr, &KindRef> = BTreeMap::new();
    let usable = |kind: &&KindRef| [Verb::List, Verb::Watch, Verb::Delete].into_iter().all(|verb| kind.verbs.has(verb));
    for kind in registry.iter().filter(usable) {
        let before = chosen.get(&kind.storage);
        let better = before.is_none_or(|before| {
            before.gvk.version != before.storage_version && kind.gvk.version == kind.storage_version
        });
        if better {
            chosen.insert(&kind.storage, kind);
        }
    }
    chosen.into_values().cloned().collect()
}

/// The stream that holds objects of this kind, in whatever version they are named, and whether they have a namespace.
pub fn stream_of(registry: &Registry, gvk: &Gvk) -> Option<(Gvr, bool)> {
    let named = registry.kind(gvk)?;
    let kind = every_kind(registry).into_iter().find(|kind| kind.storage == named.storage)?;
    Some((kind.gvr(), kind.is_namespaced()))
}
