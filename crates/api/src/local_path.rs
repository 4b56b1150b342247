//! What the control plane and a node say to each other about `local-path` volumes.
//!
//! They speak through annotations of the Node: a node may write its own Node, but neither list nor write volumes.

use std::collections::BTreeSet;

/// Named as the provisioner that users of small clusters know, so that their classes and claims carry over.
pub const PROVISIONER: &str = "rancher.io/local-path";
/// On a volume: who made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Keeps a volume until its folder is gone from the node's disk.
pub const FINALIZER: &str = "evenkeel.io/local-path";
/// Folders that the node is to remove. Written by the control plane.
pub const RECLAIM: &str = "evenkeel.io/reclaim-local-path";
/// Those of them that are gone. Written by the node.
pub const RECLAIMED: &str = "evenkeel.io/reclaimed-local-path";
/// Folders asked of one node at a time: annotations of an object share 256 KiB.
pub const RECLAIM_FOLDERS_MAX: usize = 200;
/// What file systems take as a name.
pub const FOLDER_BYTES_MAX: usize = 255;

const _: () = assert!(2 * RECLAIM_FOLDERS_MAX * (FOLDER_BYTES_MAX + 1) < 128 << 10);

/// The folders that an annotation names.
pub fn folders(annotation: Option<&str>) -> BTreeSet<String> {
    let names = annotation.unwrap_or_default().split(',');
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// An annotation that names these folders; None for none, which removes it.
pub fn annotation(folders: &BTreeSet<String>) -> Option<String> {
    let names: Vec<&str> = folders.iter().map(String::as_str).collect();
    (!names.is_empty()).then(|| names.join(","))
}

/// The folder of a claim's volume: names hold no comma.
pub fn folder(volume: &str, namespace: &str, claim: &str) -> String {
    let mut name = format!("{volume}_{namespace}_{claim}");
    name.truncate(FOLDER_BYTES_MAX);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_folders_survive_their_annotation() {
        let two = BTreeSet::from([folder("pvc-1", "a", "b"), folder("pvc-2", "a", &"c".repeat(300))]);
        assert_eq!(folders(annotation(&two).as_deref()), two);
        assert_eq!((annotation(&BTreeSet::new()), folders(None).len()), (None, 0));
    }
}
