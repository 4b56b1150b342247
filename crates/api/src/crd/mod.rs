//! A CustomResourceDefinition as a row of kinds: the same row that a built-in kind has, made at run time.

mod structural;

use std::sync::Arc;

use base::SmolStr;

use crate::schema::{Schema, TypeId};
use crate::{Cause, Column, Gvk, Kind, Scope, Subresource, Tree, Verb, Verbs, columns, meta};

pub use structural::table;

/// Versions of one definition.
const VERSIONS_MAX: usize = 64;

/// The kinds of all served versions of a definition.
///
/// # Errors
/// The causes that upstream reports for a definition that is not structural.
pub fn kinds(crd: &Tree, generation: u64) -> Result<Vec<Kind>, Vec<Cause>> {
    let versions = meta::list_at(crd, "spec.versions").iter().take(VERSIONS_MAX);
    let served = versions.filter(|version| meta::bool_at(version, "served"));
    served.map(|version| kind_of(crd, meta::str_at(version, "name"), generation)).collect()
}

/// The row of one version of a definition.
///
/// # Errors
/// A version that the definition does not have, or whose schema is not structural: upstream's causes, with paths from
/// `spec.versions`.
pub fn kind_of(crd: &Tree, version: &str, generation: u64) -> Result<Kind, Vec<Cause>> {
    let versions = meta::list_at(crd, "spec.versions");
    let at = versions.iter().position(|one| meta::str_at(one, "name") == version);
    let at = at.ok_or_else(|| {
        let message = format!("Invalid value: {version:?}: no such version");
        vec![Cause { reason: "FieldValueInvalid".into(), message, field: "spec.versions".into() }]
    })?;
    let declared = &versions[at];
    let path = format!("spec.versions[{at}].schema.openAPIV3Schema");
    let schema = meta::tree_at(declared, "schema.openAPIV3Schema");
    let schema = schema.filter(|schema| !schema.is_null()).ok_or_else(|| {
        let message = "Required value: schemas are required".to_owned();
        vec![Cause { reason: "FieldValueRequired".into(), message, field: path.clone() }]
    })?;
    let text = |name: &str| meta::str_at(crd, &format!("spec.{name}"));
    let group = text("group");
    let gvk = Gvk::new(group, version, text("names.kind"));
    let plural = text("names.plural");
    let table = table(schema, &path, meta::bool_at(crd, "spec.preserveUnknownFields"))?;
    let list_kind = match text("names.listKind") {
        "" => format!("{}List", gvk.kind).into(),
        given => given.into(),
    };
    let singular = match text("names.singular") {
        "" => gvk.kind.to_lowercase().into(),
        given => given.into(),
    };
    Ok(Kind {
        resource: plural.into(),
        singular,
        list_kind,
        short_names: names(crd, "spec.names.shortNames"),
        categories: names(crd, "spec.names.categories"),
        scope: if text("scope") == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
        verbs: Verbs::of(&Verb::ALL[..8]),
        subresources: subresources(declared, &gvk),
        columns: columns_of(declared),
        selectable: selectable(declared),
        schema: Schema::new(Arc::new(table), TypeId(0)),
        storage: format!("{group}/{plural}").into(),
        storage_version: storage_version(versions).into(),
        custom: true,
        generation,
        gvk,
    })
}

fn names(crd: &Tree, path: &str) -> Vec<SmolStr> {
    meta::list_at(crd, path).iter().filter_map(Tree::as_str).map(SmolStr::from).collect()
}

fn storage_version(versions: &[Tree]) -> &str {
    let stored = versions.iter().find(|version| meta::bool_at(version, "storage"));
    stored.map_or("", |version| meta::str_at(version, "name"))
}

fn subresources(version: &Tree, gvk: &Gvk) -> Vec<Subresource> {
    let verbs = Verbs::of(&[Verb::Get, Verb::Patch, Verb::Update]);
    let declared = |name: &str| meta::tree_at(version, "subresources").and_then(|all| all.get(name)).is_some();
    let mut found = Vec::new();
    if declared("scale") {
        found.push(Subresource { name: "scale".into(), gvk: Gvk::new("autoscaling", "v1", "Scale"), verbs });
    }
    if declared("status") {
        found.push(Subresource { name: "status".into(), gvk: gvk.clone(), verbs });
    }
    found
}

fn selectable(version: &Tree) -> Vec<SmolStr> {
    let fields = meta::list_at(version, "selectableFields").iter();
    fields.map(|field| meta::str_at(field, "jsonPath").trim_start_matches('.').into()).collect()
}

/// The name, then the declared columns; the age where none are declared.
fn columns_of(version: &Tree) -> Vec<Column> {
    let mut name = columns::builtin("").remove(0);
    name.path = ".metadata.name".into();
    let declared = meta::list_at(version, "additionalPrinterColumns");
    let mut columns = vec![name];
    columns.extend(declared.iter().map(|column| Column {
        name: meta::str_at(column, "name").into(),
        r#type: meta::str_at(column, "type").into(),
        format: meta::str_at(column, "format").into(),
        description: meta::str_at(column, "description").into(),
        priority:
            meta::i64_at(column, "priority").and_then(|priority| i32::try_from(priority).ok()).unwrap_or_default(),
        path: meta::str_at(column, "jsonPath").into(),
    }));
    if declared.is_empty() {
        columns.push(Column {
            name: "Age".into(),
            r#type: "date".into(),
            format: SmolStr::default(),
            description: "When the object was created.".into(),
            priority: 0,
            path: ".metadata.creationTimestamp".into(),
        });
    }
    columns
}

#[cfg(test)]
mod tests;
