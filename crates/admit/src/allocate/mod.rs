//! Addresses, ports and ranges that an object claims, in the same batch as the object.
//!
//! A claim is a document whose absence the batch expects: IPAddress objects for Service addresses, documents in
//! `_nodeports` and `_podranges` for what no kind serves. Two writers that choose the same one cannot both commit; the
//! later one runs again and chooses another. A claim goes in the batch that removes what needed it.

mod address;
mod node_port;
mod pod_range;
mod service;

use api::{Key, Status, Tree};
use base::SmolStr;
use serde_json::json;

use crate::context::{Cx, Gathered, delete, put};
use crate::{Change, Place, doc};

/// What an object of some kind needs claimed.
pub(crate) fn claim(cx: &Cx<'_>, tree: &mut Tree, old: Option<&Tree>, gathered: &mut Gathered) -> Result<(), Status> {
    if cx.is("", "Service") && cx.sub().is_empty() {
        return service::claim(cx, tree, old, gathered);
    }
    if cx.is("", "Node") && cx.sub().is_empty() && old.is_none() {
        pod_range::claim(cx, tree, gathered);
    }
    Ok(())
}

/// What goes with an object.
pub(crate) fn release(cx: &Cx<'_>, old: &Tree) -> Vec<Change> {
    let places = if cx.is("", "Service") {
        service::places(old)
    } else if cx.is("", "Node") {
        pod_range::places(old)
    } else {
        Vec::new()
    };
    places.into_iter().filter_map(|place| released(cx, place)).collect()
}

/// A claim that exists is deleted at the version it has.
fn released(cx: &Cx<'_>, place: Place) -> Option<Change> {
    let claim = cx.ports.reader.get(&place)?;
    Some(delete(place, claim.revision))
}

fn is_free(cx: &Cx<'_>, place: &Place) -> bool {
    cx.ports.reader.get(place).is_none()
}

/// A claim that no kind serves, as a document with a name and who holds it.
fn plain_claim(storage: &str, name: &str, holder: &Tree) -> Change {
    let document = json!({
        "metadata": {"name": name},
        "holder": format!("{}/{}", doc::text(holder, "metadata.namespace"), doc::text(holder, "metadata.name")),
    });
    put(plain_place(storage, name), None, &document)
}

fn plain_place(storage: &str, name: &str) -> Place {
    Place { storage: SmolStr::from(storage), key: Key::cluster(name) }
}

#[cfg(test)]
mod tests;
