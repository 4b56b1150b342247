//! The rows of the built-in kinds, read from `kinds.txt` and joined with their schemas and columns.

use base::SmolStr;

use super::schema_of;
use crate::{Gvk, Kind, Scope, Subresource, Verb, Verbs, columns};

const ROWS: &str = include_str!("kinds.txt");

const ALL: [Verb; 8] =
    [Verb::Get, Verb::List, Verb::Watch, Verb::Create, Verb::Update, Verb::Patch, Verb::Delete, Verb::DeleteCollection];

/// All built-in kinds, in the order discovery lists them.
pub fn all() -> Vec<Kind> {
    let mut kinds: Vec<Kind> = Vec::new();
    let (mut group, mut version) = ("", "v1");
    for line in ROWS.lines().filter(|line| !line.starts_with('#')) {
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            (group, version) = header.split_once('/').unwrap_or(("", header));
            continue;
        }
        kinds.push(row(group, version, line));
    }
    kinds
}

/// Groups in the order that discovery lists them, each with its versions, most preferred first.
pub fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    let headers = ROWS.lines().filter_map(|line| line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')));
    for header in headers {
        let (group, version) = header.split_once('/').unwrap_or(("", header));
        match groups.last_mut() {
            Some((last, versions)) if *last == group => versions.push(version),
            _ => groups.push((group, vec![version])),
        }
    }
    groups
}

fn row(group: &str, version: &str, line: &str) -> Kind {
    let mut words = line.split(' ');
    let mut word = || words.next().expect("a row has a kind, plural, singular, scope and verbs");
    let gvk = Gvk::new(group, version, word());
    let (resource, singular) = (SmolStr::from(word()), SmolStr::from(word()));
    let scope = if word() == "namespaced" { Scope::Namespaced } else { Scope::Cluster };
    let verbs = verbs(word());
    let (storage, storage_version) = storage(group, version, &resource);
    let mut kind = Kind {
        list_kind: format!("{}List", gvk.kind).into(),
        columns: columns::builtin(&gvk.kind),
        schema: schema_of(group, version, &gvk.kind).unwrap_or_else(|| panic!("{gvk} has no schema")),
        gvk,
        resource,
        singular,
        short_names: Vec::new(),
        categories: Vec::new(),
        scope,
        verbs,
        subresources: Vec::new(),
        selectable: Vec::new(),
        storage,
        storage_version,
        custom: false,
        generation: 0,
    };
    for word in words {
        extend(&mut kind, word);
    }
    kind
}

fn extend(kind: &mut Kind, word: &str) {
    let list = |text: &str| text.split(',').map(SmolStr::from).collect();
    if let Some(names) = word.strip_prefix("short=") {
        kind.short_names = list(names);
    } else if let Some(names) = word.strip_prefix("in=") {
        kind.categories = list(names);
    } else if let Some(paths) = word.strip_prefix("select=") {
        kind.selectable = list(paths);
    } else {
        let text = word.strip_prefix('+').unwrap_or_else(|| panic!("{word}: no word of a row"));
        kind.subresources.push(subresource(&kind.gvk, text));
    }
}

fn subresource(parent: &Gvk, text: &str) -> Subresource {
    let Some((name, rest)) = text.split_once(':') else {
        let verbs = Verbs::of(&[Verb::Get, Verb::Patch, Verb::Update]);
        return Subresource { name: text.into(), gvk: parent.clone(), verbs };
    };
    let (kind, words) = rest.split_once(':').expect("a subresource of its own kind names its verbs");
    let gvk = match kind.rsplit_once('/') {
        Some((api_version, kind)) => Gvk::parse(api_version, kind).expect("a kind's group and version"),
        None if kind.is_empty() => parent.clone(),
        None => Gvk::new(&parent.group, &parent.version, kind),
    };
    Subresource { name: name.into(), gvk, verbs: verbs(words) }
}

fn verbs(text: &str) -> Verbs {
    match text {
        "all" => Verbs::of(&ALL),
        "all-but-collection" => Verbs::of(&ALL[..7]),
        words => {
            let verbs: Vec<Verb> = words.split(',').map(|word| Verb::parse(word).expect("a verb")).collect();
            Verbs::of(&verbs)
        }
    }
}

/// Where a kind is kept and in which version's form. Both event groups are one storage, autoscaling's versions too.
fn storage(group: &str, version: &str, resource: &str) -> (SmolStr, SmolStr) {
    match (group, resource) {
        ("events.k8s.io", _) => ("/events".into(), "v1".into()),
        ("autoscaling", _) => ("autoscaling/horizontalpodautoscalers".into(), "v2".into()),
        _ => (format!("{group}/{resource}").into(), version.into()),
    }
}
