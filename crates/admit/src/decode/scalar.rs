//! Scalar values: what each type accepts, and its canonical spelling.

use api::{FieldType, Tree};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

const QUANTITY_RULE: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Why a scalar is not of its type.
pub(super) enum Misfit {
    /// The JSON type is wrong; what it is, as the decoder's message names it.
    Type(String),
    /// The type is right and the text is not; the whole message.
    Text(String),
}

pub(super) fn json_type(value: &Tree) -> &'static str {
    match value {
        Tree::Null => "null",
        Tree::Bool(_) => "bool",
        Tree::Number(_) => "number",
        Tree::String(_) => "string",
        Tree::Array(_) => "array",
        Tree::Object(_) => "object",
    }
}

/// Checks a scalar in place; structured types are none of its business.
pub(super) fn check(ty: &FieldType, value: &mut Tree) -> Result<(), Misfit> {
    let wrong = |value: &Tree| Err(Misfit::Type(json_type(value).to_owned()));
    match (ty, &*value) {
        (FieldType::String | FieldType::Duration, Tree::String(_)) => Ok(()),
        (FieldType::Bool, Tree::Bool(_)) => Ok(()),
        (FieldType::Int32, Tree::Number(number)) => match number.as_i64() {
            Some(number) if i32::try_from(number).is_ok() => Ok(()),
            _ => Err(Misfit::Type(format!("number {number}"))),
        },
        (FieldType::Int64, Tree::Number(number)) if number.is_i64() => Ok(()),
        (FieldType::Int64, Tree::Number(number)) => Err(Misfit::Type(format!("number {number}"))),
        (FieldType::Double, Tree::Number(_)) => Ok(()),
        (FieldType::IntOrString, Tree::String(_)) => Ok(()),
        (FieldType::IntOrString, Tree::Number(number)) => match number.as_i64() {
            Some(number) if i32::try_from(number).is_ok() => Ok(()),
            _ => Err(Misfit::Type(format!("number {number}"))),
        },
        (FieldType::Bytes, Tree::String(text)) => match STANDARD.decode(text) {
            Ok(_) => Ok(()),
            Err(error) => Err(Misfit::Text(format!("illegal base64 data at input byte {}", offset(error, text)))),
        },
        (FieldType::Quantity, Tree::String(_) | Tree::Number(_)) => quantity(value),
        (FieldType::Time, Tree::String(text)) => time(text, "%Y-%m-%dT%H:%M:%SZ").map(|text| *value = text.into()),
        (FieldType::MicroTime, Tree::String(text)) => {
            time(text, "%Y-%m-%dT%H:%M:%S%.6fZ").map(|text| *value = text.into())
        }
        _ => wrong(value),
    }
}

fn quantity(value: &mut Tree) -> Result<(), Misfit> {
    let text = match &*value {
        Tree::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    let canonical =
        crate::vocabulary::canonical_quantity(&text).ok_or_else(|| Misfit::Text(QUANTITY_RULE.to_owned()))?;
    *value = Tree::String(canonical);
    Ok(())
}

fn time(text: &str, format: &str) -> Result<String, Misfit> {
    let at: Timestamp = text.parse().map_err(|_| {
        Misfit::Text(format!(
            "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
        ))
    })?;
    Ok(at.strftime(format).to_string())
}

fn offset(error: base64::DecodeError, text: &str) -> usize {
    match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
        _ => text.len(),
    }
}
