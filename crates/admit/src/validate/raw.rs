//! What a CRD schema says in raw OpenAPI: `allOf`, `anyOf`, `oneOf`, `not`; formats and patterns.

use api::Tree;
use regex::RegexBuilder;

use crate::causes::{At, Causes};
use crate::doc;

/// Compiled size of one pattern.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// Nesting of combined schemas.
const DEPTH_MAX: usize = 32;

/// The combinations beside a value's own rules.
pub(super) fn combined(schema: &Tree, value: &Tree, at: &At, causes: &mut Causes) {
    let holds = |schema: &Tree| holds(schema, value, 0);
    let count = |name: &str| doc::items(schema, name).iter().filter(|part| holds(part)).count();
    let shown = if at.as_str().is_empty() { "\"\"" } else { at.as_str() };
    if doc::has(schema, "allOf") && count("allOf") < doc::items(schema, "allOf").len() {
        causes.invalid(at, value, &format!("{shown} must validate all the schemas (allOf)"));
    }
    if doc::has(schema, "anyOf") && count("anyOf") == 0 {
        causes.invalid(at, value, &format!("{shown} must validate at least one schema (anyOf)"));
    }
    if doc::has(schema, "oneOf") && count("oneOf") != 1 {
        let found = match count("oneOf") {
            0 => "Found none valid".to_owned(),
            many => format!("Found {many} valid alternatives"),
        };
        causes.invalid(at, value, &format!("{shown} must validate one and only one schema (oneOf). {found}"));
    }
    if doc::at(schema, "not").is_some_and(holds) {
        causes.invalid(at, value, &format!("{shown} must not validate the schema (not)"));
    }
}

/// Does a value satisfy a raw schema?
fn holds(schema: &Tree, value: &Tree, depth: usize) -> bool {
    if depth > DEPTH_MAX {
        return false;
    }
    let all = |name: &str| doc::items(schema, name).iter();
    let inner = |schema: &Tree, value: &Tree| holds(schema, value, depth + 1);
    is_type(doc::text(schema, "type"), value)
        && (!doc::has(schema, "enum") || doc::items(schema, "enum").contains(value))
        && scalar(schema, value)
        && all("required").all(|name| name.as_str().is_some_and(|name| value.get(name).is_some()))
        && doc::entries(schema, "properties")
            .all(|(name, schema)| value.get(name).is_none_or(|value| inner(schema, value)))
        && doc::at(schema, "items")
            .is_none_or(|schema| value.as_array().is_none_or(|items| items.iter().all(|item| inner(schema, item))))
        && all("allOf").all(|schema| inner(schema, value))
        && (!doc::has(schema, "anyOf") || all("anyOf").any(|schema| inner(schema, value)))
        && (!doc::has(schema, "oneOf") || all("oneOf").filter(|schema| inner(schema, value)).count() == 1)
        && doc::at(schema, "not").is_none_or(|schema| !inner(schema, value))
}

fn is_type(name: &str, value: &Tree) -> bool {
    match name {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    }
}

fn scalar(schema: &Tree, value: &Tree) -> bool {
    let bound = |name: &str| doc::at(schema, name).and_then(Tree::as_f64);
    if let Some(number) = value.as_f64() {
        let (low, high) = (doc::is_true(schema, "exclusiveMinimum"), doc::is_true(schema, "exclusiveMaximum"));
        return bound("minimum").is_none_or(|min| number > min || !low && number == min)
            && bound("maximum").is_none_or(|max| number < max || !high && number == max);
    }
    let size = |length: usize, low: &str, high: &str| {
        let length = length as f64;
        bound(low).is_none_or(|min| length >= min) && bound(high).is_none_or(|max| length <= max)
    };
    match value {
        Tree::String(text) => {
            let pattern = doc::text(schema, "pattern");
            size(text.chars().count(), "minLength", "maxLength")
                && (pattern.is_empty() || matches(pattern, text))
                && is_format(doc::text(schema, "format"), text)
        }
        Tree::Array(items) => size(items.len(), "minItems", "maxItems"),
        Tree::Object(map) => size(map.len(), "minProperties", "maxProperties"),
        _ => true,
    }
}

/// A pattern that does not compile matches nothing; CRDs with one are refused when they are made.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let regex = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
    regex.is_ok_and(|regex| regex.is_match(text))
}

/// Formats nobody knows are no rule.
pub(super) fn is_format(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => is_duration(text),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => {
            matches("^(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$", text)
        }
        "email" => text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.contains('.')),
        "hostname" => crate::names::subdomain(&text.to_lowercase()).is_empty(),
        "uri" => text.contains(':') || text.starts_with('/'),
        "byte" => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.decode(text).is_ok()
        }
        "mac" => matches("^(?i)([0-9a-f]{2}[:-]){5}[0-9a-f]{2}$", text),
        _ => true,
    }
}

/// Go's spelling: `1h30m`, `-1.5s`.
fn is_duration(text: &str) -> bool {
    matches(r"^[-+]?([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h|d|w))+$|^0$", text)
}
