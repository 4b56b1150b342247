//! What foreign bytes reach: one function per decoder. None may panic, loop for long or take unbounded memory.
//!
//! `cargo xtask fuzz TARGET` lets a fuzzer search; every finding becomes a file under `corpus/TARGET`, and the test of
//! this crate replays them all.

use api::codec::{json, protobuf, yaml};
use api::{FieldSelector, LabelSelector, Quantity};

/// A decoder under test.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
}

pub const TARGETS: [Target; 5] = [
    Target { name: "json", run: json },
    Target { name: "yaml", run: yaml },
    Target { name: "protobuf", run: protobuf },
    Target { name: "selector", run: selector },
    Target { name: "quantity", run: quantity },
];

fn json(bytes: &[u8]) {
    let Ok(parsed) = json::parse(bytes) else { return };
    let text = serde_json::to_vec(&parsed.tree).expect("a tree can be written");
    let again = json::parse(&text).expect("what was written can be read");
    assert_eq!(parsed.tree, again.tree);
}

fn yaml(bytes: &[u8]) {
    let Ok(tree) = yaml::parse(bytes) else { return };
    let Ok(text) = yaml::render(&tree) else { return };
    let again = yaml::parse(text.as_bytes()).expect("what was written can be read");
    assert_eq!(tree, again);
}

fn protobuf(bytes: &[u8]) {
    let registry = api::builtin::registry();
    let find = |gvk: &api::Gvk| registry.kind(gvk).map(|kind| kind.schema.clone());
    let Ok((gvk, tree)) = protobuf::decode(find, bytes) else { return };
    let schema = find(&gvk).expect("it was decoded by this schema");
    let Ok(written) = protobuf::encode(&schema, &gvk, &tree) else { return };
    let (_, again) = protobuf::decode(find, &written).expect("what was written can be read");
    assert_eq!(tree, again);
}

fn selector(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(selector) = LabelSelector::parse(text) {
        let again = LabelSelector::parse(&selector.to_string()).expect("what was written can be read");
        assert_eq!(selector, again);
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        let again = FieldSelector::parse(&selector.to_string()).expect("what was written can be read");
        assert_eq!(selector, again);
    }
}

fn quantity(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(quantity) = Quantity::parse(text) else { return };
    let again = Quantity::parse(&quantity.to_string()).expect("what was written can be read");
    assert_eq!(quantity, again, "{text:?}");
}

#[cfg(test)]
mod tests {
    use super::TARGETS;
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_corpus_replays() {
        for target in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
            let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            let mut count = 0;
            for file in files {
                let path = file.expect("the folder can be read").path();
                (target.run)(&fs::read(&path).expect("the file can be read"));
                count += 1;
            }
            assert!(count > 0, "the corpus of {} is empty", target.name);
        }
    }
}
