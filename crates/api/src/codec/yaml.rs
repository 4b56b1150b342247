//! YAML as `kubectl` writes it: one document, read with the old octal numbers that manifests still use (`0644`).

use serde_saphyr::{DuplicateKeyPolicy, Options};

use super::json::Parsed;
use crate::Tree;

/// Text that is no single YAML document.
#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    #[error(transparent)]
    Syntax(Box<serde_saphyr::Error>),
    #[error("expected one document, found {found}")]
    Documents { found: usize },
    #[error(transparent)]
    Render(Box<serde_saphyr::SerializeError>),
}

/// Parses one document.
///
/// # Errors
/// Malformed text, too deep nesting, or more than one document.
pub fn parse(bytes: &[u8]) -> Result<Tree, YamlError> {
    parse_body(bytes).map(|parsed| parsed.tree)
}

/// As [`parse`], with the paths of duplicate keys.
///
/// # Errors
/// As [`parse`].
pub fn parse_body(bytes: &[u8]) -> Result<Parsed, YamlError> {
    let mut options = Options::default();
    options.legacy_octal_numbers = true;
    options.duplicate_keys = DuplicateKeyPolicy::PassThrough;
    let documents: Vec<Parsed> = serde_saphyr::from_slice_multiple_with_options(bytes, options)
        .map_err(|error| YamlError::Syntax(Box::new(error)))?;
    let mut documents: Vec<Parsed> = documents.into_iter().filter(|document| !document.tree.is_null()).collect();
    match documents.len() {
        0 => Ok(Parsed::default()),
        1 => Ok(documents.remove(0)),
        found => Err(YamlError::Documents { found }),
    }
}

/// One document.
///
/// # Errors
/// None that a tree can cause.
pub fn render(tree: &Tree) -> Result<String, YamlError> {
    serde_saphyr::to_string(tree).map_err(|error| YamlError::Render(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::{YamlError, parse, parse_body, render};
    use serde_json::json;

    #[test]
    fn reads_the_odd_cases_of_manifests() {
        let text = b"mode: 0644\nyes: no\nport: 8080\nversion: \"1.10\"\nfloat: 1.5\nempty:\nkey: |\n  a\n  b\n8: x\n";
        let tree = parse(text).unwrap();
        assert_eq!(tree["mode"], json!(420));
        assert_eq!(tree["port"], json!(8080));
        assert_eq!(tree["version"], json!("1.10"));
        assert_eq!(tree["float"], json!(1.5));
        assert_eq!(tree["empty"], json!(null));
        assert_eq!(tree["key"], json!("a\nb\n"));
        assert_eq!(tree["8"], json!("x"));
    }

    #[test]
    fn refuses_more_than_one_document() {
        assert!(matches!(parse(b"a: 1\n---\nb: 2\n"), Err(YamlError::Documents { found: 2 })));
        assert_eq!(parse(b"---\na: 1\n---\n").unwrap(), json!({"a": 1}));
        assert!(parse("[".repeat(10_000).as_bytes()).is_err());
        assert!(parse(b"a: [1").is_err());
    }

    #[test]
    fn anchors_expand_and_duplicates_are_told() {
        assert_eq!(parse(b"a: &x {b: 1}\nc: *x\n").unwrap(), json!({"a": {"b": 1}, "c": {"b": 1}}));
        assert_eq!(parse_body(b"a: {b: 1, b: 2}\n").unwrap().duplicates, ["a.b"]);
    }

    #[test]
    fn what_it_renders_reads_back() {
        let tree = json!({"a": "yes", "b": "1.0", "c": [1, 2.5, null, {"d": "x: y\n"}], "e": "", "f": "0644", "g": {}, "h": [],
            "i": "null", "j": "~", "k": "2001-01-01", "l": "- x", "m": "1e3", "n": "0x1f", "o": "on", "p": " lead", "q": "#c"});
        assert_eq!(parse(render(&tree).unwrap().as_bytes()).unwrap(), tree);
    }
}
