//! The formats of declarative validation.

use crate::names::{self, Wrong};

/// What is wrong with a text under a format; a format that is not known is no rule.
pub(super) fn wrong(format: &str, text: &str) -> Wrong {
    match format {
        "k8s-short-name" => names::label(text),
        "k8s-long-name" => names::subdomain(text),
        "k8s-long-name-caseless" => names::subdomain(&text.to_ascii_lowercase()),
        "k8s-label-key" => names::qualified(text),
        "k8s-uuid" => one(is_uuid(text), "must be a lowercase UUID in 8-4-4-4-12 format"),
        "k8s-resource-pool-name" => text.split('/').flat_map(names::subdomain).collect(),
        "k8s-extended-resource-name" => extended_resource(text),
        "k8s-resource-fully-qualified-name" => fully_qualified(text),
        _ => Wrong::new(),
    }
}

fn one(holds: bool, rule: &str) -> Wrong {
    if holds { Wrong::new() } else { vec![rule.to_owned()] }
}

fn is_uuid(text: &str) -> bool {
    let hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.split('-').all(hex)
}

/// `example.com/thing`, of nobody's reserved domain.
fn extended_resource(text: &str) -> Wrong {
    let domain = text.split_once('/').map(|(domain, _)| domain);
    let own = domain.is_some_and(|domain| !domain.is_empty() && !domain.ends_with("kubernetes.io"));
    if !own || text.starts_with("requests.") {
        return vec!["must be a valid extended resource name".to_owned()];
    }
    names::qualified(text)
}

fn fully_qualified(text: &str) -> Wrong {
    match text.split_once('/') {
        Some((domain, name)) if !domain.is_empty() && !name.is_empty() => {
            let mut wrong = names::subdomain(domain);
            let identifier = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            wrong.extend(one(identifier && !name.as_bytes()[0].is_ascii_digit(), "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')"));
            wrong
        }
        _ => vec!["a fully qualified name must be a domain and a name separated by a slash".to_owned()],
    }
}
