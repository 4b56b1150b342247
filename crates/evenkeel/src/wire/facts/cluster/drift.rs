//! What nodes told the cluster of changes by hand.

use keeper::wrong::{Name, What};

use super::{Lists, text};
use crate::wire::drift::Published;

pub fn facts(lists: &Lists) -> Vec<(Name, What)> {
    let told = lists.nodes.items.iter().filter_map(|node| Some((node, Published::of_node(node)?)));
    told.flat_map(|(node, told)| {
        let name: Name = text(node, "/metadata/name").into();
        told.whats().map(|what| (name.clone(), what)).collect::<Vec<_>>()
    })
    .collect()
}
