//! Values that are bare in JSON and messages in protobuf.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Number, json};

use super::wire::{self, Value};
use super::{DecodeError, EncodeError};
use crate::{FieldType, Quantity, Tree};

fn wrong(what: &str) -> EncodeError {
    EncodeError { path: String::new(), what: what.to_owned() }
}

/// Writes one value of a type that is no struct, list or map.
pub(super) fn encode(out: &mut Vec<u8>, number: u32, ty: &FieldType, value: &Tree) -> Result<(), EncodeError> {
    let text = || value.as_str().ok_or_else(|| wrong("expected a string"));
    match ty {
        FieldType::String => wire::text(out, number, text()?),
        FieldType::Bool => {
            let value = value.as_bool().ok_or_else(|| wrong("expected a boolean"))?;
            wire::number(out, number, u64::from(value));
        }
        FieldType::Int32 | FieldType::Int64 => {
            let value = value.as_i64().ok_or_else(|| wrong("expected an integer"))?;
            wire::number(out, number, value.cast_unsigned());
        }
        FieldType::Double => {
            let value = value.as_f64().ok_or_else(|| wrong("expected a number"))?;
            wire::double(out, number, value);
        }
        FieldType::Bytes => {
            let bytes = STANDARD.decode(text()?).map_err(|error| wrong(&error.to_string()))?;
            wire::bytes(out, number, &bytes);
        }
        _ => return wire::nested(out, number, |out| message(out, ty, value)),
    }
    Ok(())
}

fn message(out: &mut Vec<u8>, ty: &FieldType, value: &Tree) -> Result<(), EncodeError> {
    let text = || value.as_str().ok_or_else(|| wrong("expected a string"));
    match ty {
        FieldType::Quantity => {
            let quantity = Quantity::from_tree(value).map_err(|error| wrong(&error.to_string()))?;
            wire::text(out, 1, &quantity.to_string());
        }
        FieldType::IntOrString => {
            let (kind, number) = value.as_i64().map_or((1, 0), |number| (0, number));
            wire::number(out, 1, kind);
            wire::number(out, 2, number.cast_unsigned());
            wire::text(out, 3, if kind == 0 { "" } else { text()? });
        }
        FieldType::Time | FieldType::MicroTime => {
            let at: Timestamp = text()?.parse().map_err(|error: jiff::Error| wrong(&error.to_string()))?;
            let nanos = at.as_nanosecond();
            wire::number(out, 1, i64::try_from(nanos.div_euclid(1_000_000_000)).unwrap_or(i64::MAX).cast_unsigned());
            let rest = if *ty == FieldType::Time { 0 } else { nanos.rem_euclid(1_000_000_000) };
            wire::number(out, 2, u64::try_from(rest).unwrap_or_default());
        }
        FieldType::Duration => {
            let nanos = duration(text()?).ok_or_else(|| wrong("expected a duration"))?;
            wire::number(out, 1, nanos.cast_unsigned());
        }
        FieldType::FieldsV1 | FieldType::RawExtension | FieldType::Any => {
            wire::bytes(out, 1, value.to_string().as_bytes());
        }
        _ => unreachable!("the caller handles the other types"),
    }
    Ok(())
}

/// Reads one value of a type that is no struct, list or map. None stands for an absent value, as an empty time is.
pub(super) fn decode(number: u32, ty: &FieldType, value: Value<'_>) -> Result<Option<Tree>, DecodeError> {
    Ok(Some(match ty {
        FieldType::String => json!(value.text(number)?),
        FieldType::Bool => json!(value.varint(number)? != 0),
        FieldType::Int32 => {
            let value = value.signed(number)?;
            json!(i32::try_from(value).map_err(|_| DecodeError::Range { what: "an int32" })?)
        }
        FieldType::Int64 => json!(value.signed(number)?),
        FieldType::Double => {
            let number = Number::from_f64(value.double(number)?);
            Tree::Number(number.ok_or(DecodeError::Range { what: "a double" })?)
        }
        FieldType::Bytes => json!(STANDARD.encode(value.bytes(number)?)),
        _ => return decode_message(ty, value.bytes(number)?),
    }))
}

fn decode_message(ty: &FieldType, bytes: &[u8]) -> Result<Option<Tree>, DecodeError> {
    let (mut first, mut second, mut text) = (None, 0, None);
    for entry in wire::fields(bytes) {
        match entry? {
            (1, value @ Value::Varint(_)) => first = Some(value.signed(1)?),
            (2, value) => second = value.signed(2)?,
            (_, Value::Bytes(bytes)) => text = Some(bytes),
            _ => {}
        }
    }
    let words = || std::str::from_utf8(text.unwrap_or_default()).map_err(|_| DecodeError::Text);
    Ok(match ty {
        FieldType::Quantity => Some(json!(if words()?.is_empty() { "0" } else { words()? })),
        FieldType::IntOrString if first.unwrap_or_default() == 0 => Some(json!(second)),
        FieldType::IntOrString => Some(json!(words()?)),
        FieldType::Time | FieldType::MicroTime => first.map(|seconds| time(ty, seconds, second)).transpose()?,
        FieldType::Duration => Some(json!(duration_text(first.unwrap_or_default()))),
        _ => match text {
            None | Some([]) => None,
            Some(raw) => Some(serde_json::from_slice(raw).map_err(|error| DecodeError::Json(error.to_string()))?),
        },
    })
}

fn time(ty: &FieldType, seconds: i64, nanos: i64) -> Result<Tree, DecodeError> {
    let nanos = i32::try_from(nanos).map_err(|_| DecodeError::Range { what: "a time" })?;
    let at = Timestamp::new(seconds, nanos).map_err(|_| DecodeError::Range { what: "a time" })?;
    let format = if *ty == FieldType::Time { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%.6fZ" };
    Ok(json!(at.strftime(format).to_string()))
}

/// Go's duration text (`1h30m`, `1.5s`, `-200ms`) in nanoseconds.
fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = text.strip_prefix('-').map_or((1.0, text.trim_start_matches('+')), |rest| (-1.0, rest));
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let amount: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += amount * unit;
        rest = &rest[end..];
    }
    #[expect(clippy::cast_possible_truncation, reason = "saturates; a duration of centuries is no duration")]
    (!text.is_empty()).then_some((total * sign) as i64)
}

fn duration_text(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let total = nanos.unsigned_abs();
    if total == 0 {
        return "0s".to_owned();
    }
    let fraction = |value: u64, per: u64, unit: &str| {
        let digits = format!("{:0width$}", value % per, width = per.ilog10() as usize);
        let digits = digits.trim_end_matches('0');
        let point = if digits.is_empty() || per == 1 { String::new() } else { format!(".{digits}") };
        format!("{sign}{}{point}{unit}", value / per)
    };
    match total {
        ..1_000 => format!("{sign}{total}ns"),
        1_000..1_000_000 => fraction(total, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(total, 1_000_000, "ms"),
        _ => {
            let (hours, minutes) = (total / 3_600_000_000_000, total / 60_000_000_000 % 60);
            let seconds = fraction(total % 60_000_000_000, 1_000_000_000, "s");
            let seconds = seconds.trim_start_matches('-');
            match (hours, minutes) {
                (0, 0) => format!("{sign}{seconds}"),
                (0, _) => format!("{sign}{minutes}m{seconds}"),
                _ => format!("{sign}{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{duration, duration_text};

    #[test]
    fn durations_read_and_print_as_in_go() {
        for text in ["0s", "1.5s", "1h30m0s", "-200ms", "10ns", "1.5µs", "1m0.5s", "2m0s"] {
            assert_eq!(duration_text(duration(text).unwrap()), text);
        }
        for bad in ["", "5", "1x", "s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
