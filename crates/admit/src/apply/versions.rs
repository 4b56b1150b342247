//! Managed fields that another version of the kind recorded: their paths hold in that version's form alone, so states are
//! converted to it and compared there.

use std::collections::BTreeMap;

use api::convert::{convert, in_form};
use api::{FieldType, Gvk, Kind, Tree};

use super::managed;
use super::managers::{Entry, Managers};
use super::merge::{with_dangling, with_owned, without};
use super::set::Set;
use super::typed::{Differences, Typed, compare};
use crate::context::Cx;

/// A row's schema, ready to be walked.
pub(crate) struct Form<'a> {
    row: &'a Kind,
    root: FieldType,
}

/// What a write changed and what it took, in one version's paths.
pub(crate) struct Fields {
    pub(crate) changed: Set,
    /// Changed or removed.
    pub(crate) gone: Set,
}

/// What a write touched, in the paths of every version that some manager recorded. None: nobody serves that version.
pub(crate) struct Touched {
    by_version: BTreeMap<String, Option<Fields>>,
}

// === impl Form ===

impl<'a> Form<'a> {
    pub(crate) fn of(row: &'a Kind) -> Form<'a> {
        Form { row, root: FieldType::Struct(row.schema.id()) }
    }

    pub(crate) fn typed(&self) -> Typed<'_> {
        Typed::root(&self.row.schema, &self.root, self.row.custom)
    }
}

// === impl Touched ===

impl Touched {
    /// `states` and `differences` are in the form that was asked for.
    pub(crate) fn of(
        cx: &Cx<'_>,
        managers: &Managers,
        mine: &Entry,
        [old, new]: [&Tree; 2],
        differences: &Differences,
    ) -> Touched {
        let fields = |row: &Kind, differences: &Differences| {
            let changed = managed(cx, row, differences.changed());
            let gone = changed.union(&managed(cx, row, differences.removed.clone()));
            Some(Fields { changed, gone })
        };
        let asked = (cx.asked.gvk.api_version(), fields(cx.asked, differences));
        let mut by_version = BTreeMap::from([asked]);
        for entry in managers.entries.iter().filter(|entry| !entry.is_same_manager(mine)) {
            if by_version.contains_key(&entry.api_version) {
                continue;
            }
            let found = row(cx, &entry.api_version).and_then(|row| {
                let form = Form::of(row);
                fields(row, &compare(form.typed(), &in_form(old, row), &in_form(new, row)))
            });
            by_version.insert(entry.api_version.clone(), found);
        }
        Touched { by_version }
    }

    pub(crate) fn of_entry(&self, entry: &Entry) -> Option<&Fields> {
        self.by_version.get(&entry.api_version)?.as_ref()
    }
}

/// The row of the same objects in another version.
fn row<'a>(cx: &Cx<'a>, api_version: &str) -> Option<&'a Kind> {
    let gvk = Gvk::parse(api_version, &cx.asked.gvk.kind)?;
    let row: &Kind = cx.ports.registry.kind(&gvk)?;
    (row.storage == cx.kind.storage).then_some(row)
}

/// Takes out of `merged` what the applier owned before and no longer applies, unless somebody else owns it.
pub(crate) fn prune(cx: &Cx<'_>, merged: Tree, last: &Entry, managers: &Managers) -> Tree {
    let Some(then) = row(cx, &last.api_version) else { return merged };
    let form = Form::of(then);
    let merged = convert(merged, then);
    let mut pruned = without(form.typed(), &merged, &last.set);
    // The version that it was applied in comes first: what it adds back may be what others need to convert.
    let mut owned = managers.everybody();
    let first = owned.remove_entry(last.api_version.as_str());
    for (api_version, owned) in first.into_iter().chain(owned) {
        let Some(row) = row(cx, api_version) else { continue };
        let kept = with_owned(Form::of(row).typed(), &in_form(&merged, row), &in_form(&pruned, row), &owned);
        pruned = convert(kept, then);
    }
    convert(with_dangling(form.typed(), &merged, &pruned, &last.set), cx.asked)
}
