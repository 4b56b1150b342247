//! `$(VAR)` in commands, arguments, values and sub-paths. `$$` is a literal `$`; an unknown reference stays as written.

use std::collections::BTreeMap;

/// Expands references to `vars` in `text`.
pub fn expand(text: &str, vars: &BTreeMap<String, String>) -> String {
    expand_with(text, |name| vars.get(name).cloned())
}

/// As `expand`; the names that `vars` lacks are returned beside the text.
pub fn expand_strict(text: &str, vars: &BTreeMap<String, String>) -> Result<String, Vec<String>> {
    let mut missing = Vec::new();
    let expanded = expand_with(text, |name| {
        let value = vars.get(name).cloned();
        if value.is_none() {
            missing.push(name.to_owned());
        }
        value
    });
    if missing.is_empty() { Ok(expanded) } else { Err(missing) }
}

fn expand_with(text: &str, mut lookup: impl FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands_as_upstream_does() {
        let vars = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())]);
        let cases = [
            ("$(A)", "1"),
            ("x$(A)y$(B)", "x1y$(A)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$$$$(A)", "$$(A)"),
            ("$(NO)", "$(NO)"),
            ("$A $(A", "$A $(A"),
            ("cost: 5$", "cost: 5$"),
            ("$()", "$()"),
        ];
        for (text, wanted) in cases {
            assert_eq!(expand(text, &vars), wanted, "{text}");
        }
        assert_eq!(expand_strict("$(A)/$(NO)", &vars), Err(vec!["NO".to_owned()]));
    }
}
