//! Field errors with upstream's wording (`field.Error`), collected under a path.

use std::fmt;

use api::{Cause, Tree};

/// Where in a document: `spec.containers[0].name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At(String);

/// What is wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Causes(Vec<Cause>);

// === impl At ===

impl At {
    pub(crate) fn root() -> At {
        At::default()
    }

    pub(crate) fn of(path: &str) -> At {
        At(path.to_owned())
    }

    pub(crate) fn child(&self, name: &str) -> At {
        if self.0.is_empty() { At(name.to_owned()) } else { At(format!("{}.{name}", self.0)) }
    }

    pub(crate) fn index(&self, index: usize) -> At {
        At(format!("{}[{index}]", self.0))
    }

    pub(crate) fn key(&self, key: &str) -> At {
        At(format!("{}[{key}]", self.0))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Causes ===

impl Causes {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_vec(self) -> Vec<Cause> {
        self.0
    }

    pub(crate) fn extend(&mut self, others: impl IntoIterator<Item = Cause>) {
        self.0.extend(others);
    }

    /// Adds causes about fields of which nothing is said yet, nor of anything above them.
    pub(crate) fn extend_where_silent(&mut self, others: Vec<Cause>) {
        let said = self.0.len();
        for cause in others {
            let above = |known: &Cause| {
                let rest = cause.field.strip_prefix(known.field.as_str());
                rest.is_some_and(|rest| {
                    known.field.is_empty() || matches!(rest.as_bytes().first(), None | Some(b'.' | b'['))
                })
            };
            if !self.0[..said].iter().any(above) {
                self.0.push(cause);
            }
        }
    }

    pub(crate) fn push(&mut self, reason: &str, at: &At, message: String) {
        let cause = Cause { reason: reason.to_owned(), message, field: at.0.clone() };
        if !self.0.contains(&cause) {
            self.0.push(cause);
        }
    }

    pub(crate) fn required(&mut self, at: &At, detail: &str) {
        self.push("FieldValueRequired", at, with_detail("Required value".to_owned(), detail));
    }

    pub(crate) fn invalid(&mut self, at: &At, value: &Tree, detail: &str) {
        self.push("FieldValueInvalid", at, with_detail(format!("Invalid value: {}", shown(value)), detail));
    }

    pub(crate) fn invalid_text(&mut self, at: &At, value: &str, detail: &str) {
        self.push("FieldValueInvalid", at, with_detail(format!("Invalid value: {value:?}"), detail));
    }

    pub(crate) fn wrong_type(&mut self, at: &At, value: &str, detail: &str) {
        self.push("FieldValueTypeInvalid", at, with_detail(format!("Invalid value: {value:?}"), detail));
    }

    pub(crate) fn immutable(&mut self, at: &At, value: &Tree) {
        self.invalid(at, value, "field is immutable");
    }

    pub(crate) fn duplicate(&mut self, at: &At, value: &Tree) {
        self.push("FieldValueDuplicate", at, format!("Duplicate value: {}", shown(value)));
    }

    pub(crate) fn forbidden(&mut self, at: &At, detail: &str) {
        self.push("FieldValueForbidden", at, with_detail("Forbidden".to_owned(), detail));
    }

    pub(crate) fn not_found(&mut self, at: &At, value: &str) {
        self.push("FieldValueNotFound", at, format!("Not found: {value:?}"));
    }

    pub(crate) fn not_supported(&mut self, at: &At, value: &Tree, supported: &[&str]) {
        let list: Vec<String> = supported.iter().map(|word| format!("{word:?}")).collect();
        let message = format!("Unsupported value: {}: supported values: {}", shown(value), list.join(", "));
        self.push("FieldValueNotSupported", at, message);
    }

    pub(crate) fn too_long(&mut self, at: &At, max: usize) {
        self.push("FieldValueTooLong", at, format!("Too long: may not be more than {max} bytes"));
    }

    pub(crate) fn too_many(&mut self, at: &At, have: usize, max: usize) {
        self.push("FieldValueTooMany", at, format!("Too many: {have}: must have at most {max} items"));
    }
}

fn with_detail(text: String, detail: &str) -> String {
    if detail.is_empty() { text } else { format!("{text}: {detail}") }
}

/// Text in quotes, everything else as JSON.
pub(crate) fn shown(value: &Tree) -> String {
    match value {
        Tree::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}
