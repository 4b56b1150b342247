//! Facts of ours about the description: what neither source says. One line is a type, a fact, and words.
//!
//! `core.v1.PodSpec number schedulingGroup=43`: a word is a field, with a value (JSON without spaces) where the fact has
//! one. Facts about types or fields that do not exist fail the build, so nothing here outlives its use.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

#[derive(Default)]
pub struct Facts {
    types: BTreeMap<String, BTreeMap<(String, String), String>>,
}

/// The facts that exist; a misspelt one would be silently without effect.
const WORDS: [&str; 11] =
    ["pointer", "keep", "value", "number", "list", "patch", "default", "enum", "filled", "optional", "required"];

pub fn read(folder: &Path) -> Facts {
    let mut facts = Facts::default();
    for name in ["shape.txt", "release.txt", "defaults.txt", "enums.txt", "filled.txt"] {
        let text = fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            facts.add(line);
        }
    }
    facts
}

impl Facts {
    fn add(&mut self, line: &str) {
        let mut words = line.split(' ');
        let (Some(ty), Some(fact)) = (words.next(), words.next()) else { panic!("{line}: a type and a fact") };
        assert!(WORDS.contains(&fact), "{line}: {fact} is not a fact");
        let of_type = self.types.entry(full_name(ty)).or_default();
        for word in words {
            let (field, value) = word.split_once('=').unwrap_or((word, ""));
            let old = of_type.insert((fact.to_owned(), field.to_owned()), value.to_owned());
            assert!(old.is_none(), "{line}: {field} is told twice");
        }
    }

    pub fn value(&self, ty: &str, fact: &str, field: &str) -> Option<&str> {
        let of_type = self.types.get(ty)?;
        of_type.get(&(fact.to_owned(), field.to_owned())).map(String::as_str)
    }

    pub fn has(&self, ty: &str, fact: &str, field: &str) -> bool {
        self.value(ty, fact, field).is_some()
    }

    /// Fails on facts about nothing.
    pub fn assert_used(&self, fields: &BTreeSet<(String, String)>) {
        let all =
            self.types.iter().flat_map(|(ty, facts)| facts.keys().map(move |(_, field)| (ty.clone(), field.clone())));
        let idle: Vec<_> = all.filter(|place| !fields.contains(place)).collect();
        assert!(idle.is_empty(), "facts about fields that do not exist: {idle:?}");
    }
}

fn full_name(short: &str) -> String {
    for (group, package) in [
        ("meta.", "io.k8s.apimachinery.pkg.apis.meta."),
        ("apiextensions.", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions."),
        ("apiregistration.", "io.k8s.kube-aggregator.pkg.apis.apiregistration."),
        ("io.k8s.", "io.k8s."),
    ] {
        if let Some(rest) = short.strip_prefix(group) {
            return format!("{package}{rest}");
        }
    }
    format!("io.k8s.api.{short}")
}
