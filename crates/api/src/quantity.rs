//! Resource quantities: `250m`, `1.5Gi`, `1e3`. Exact decimal arithmetic in nano units, canonical text.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Add, Neg, Sub};

use crate::Tree;

/// A parsed quantity (`apimachinery/pkg/api/resource`), kept exactly in units of 10^-9.
///
/// Equality and order are of the amount; the notation it was written in only decides how it prints.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    pub nanos: i128,
    pub notation: Notation,
}

/// How a quantity is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Notation {
    /// `1500m`, `2k`.
    #[default]
    DecimalSi,
    /// `64Mi`.
    BinarySi,
    /// `1e3`.
    DecimalExponent,
}

/// Text that is no quantity. The words are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const NANO: i128 = 1_000_000_000;
/// Upstream caps what it cannot hold in 63 bits.
const NANOS_MAX: i128 = i64::MAX as i128 * NANO;
/// Longer text is noise: no amount within the cap needs more digits.
const TEXT_BYTES_MAX: usize = 128;
const DECIMAL_SUFFIXES: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY_SUFFIXES: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

// === impl Quantity ===

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, notation: Notation::DecimalSi };

    pub const fn from_units(units: i64) -> Quantity {
        Quantity { nanos: units as i128 * NANO, notation: Notation::DecimalSi }
    }

    pub const fn from_milli(milli: i64) -> Quantity {
        Quantity { nanos: milli as i128 * 1_000_000, notation: Notation::DecimalSi }
    }

    /// An amount of bytes, printed with binary suffixes.
    pub const fn from_bytes(bytes: i64) -> Quantity {
        Quantity { nanos: bytes as i128 * NANO, notation: Notation::BinarySi }
    }

    pub const fn from_nanos(nanos: i128) -> Quantity {
        Quantity { nanos, notation: Notation::DecimalSi }
    }

    /// # Errors
    /// Text of another form, or with an unknown suffix.
    pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
        if text.is_empty() || text.len() > TEXT_BYTES_MAX {
            return Err(QuantityError::Format);
        }
        let (negative, rest) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError::Format);
        }
        let (scale, notation) = scale(suffix)?;
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        let amount = scaled(digits, fraction.len(), scale).min(NANOS_MAX);
        Ok(Quantity { nanos: if negative { -amount } else { amount }, notation })
    }

    /// From a JSON value: text, or a bare number as YAML gives it.
    ///
    /// # Errors
    /// As [`Quantity::parse`]; other JSON types are of the wrong form.
    pub fn from_tree(tree: &Tree) -> Result<Quantity, QuantityError> {
        match tree {
            Tree::String(text) => Quantity::parse(text),
            Tree::Number(number) => Quantity::parse(&number.to_string()),
            Tree::Null => Ok(Quantity::ZERO),
            _ => Err(QuantityError::Format),
        }
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// In thousandths, rounded up: `cpu` as millicores.
    pub fn milli_ceil(self) -> i64 {
        clamp(divide_up(self.nanos, 1_000_000))
    }

    /// In whole units, rounded up.
    pub fn value_ceil(self) -> i64 {
        clamp(divide_up(self.nanos, NANO))
    }

    fn of(self, nanos: i128, other: Quantity) -> Quantity {
        // A zero has no notation of its own: it takes the other's, as upstream does.
        let notation = if self.nanos == 0 { other.notation } else { self.notation };
        Quantity { nanos, notation }
    }
}

impl Add for Quantity {
    type Output = Quantity;

    fn add(self, other: Quantity) -> Quantity {
        self.of(self.nanos.saturating_add(other.nanos), other)
    }
}

impl Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Quantity) -> Quantity {
        self.of(self.nanos.saturating_sub(other.nanos), other)
    }
}

impl Neg for Quantity {
    type Output = Quantity;

    fn neg(self) -> Quantity {
        Quantity { nanos: -self.nanos, ..self }
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Quantity>>(all: I) -> Quantity {
        all.fold(Quantity::ZERO, Add::add)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that keeps the number whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A fraction, and what is below the first binary suffix, print in decimal: nothing is rounded away.
        let binary = self.nanos % NANO == 0 && 1024 * NANO <= self.nanos.abs();
        match self.notation {
            Notation::BinarySi if binary => {
                let mut value = self.nanos / NANO;
                let mut suffix = "";
                for (next, _) in BINARY_SUFFIXES {
                    if value % 1024 != 0 {
                        break;
                    }
                    value /= 1024;
                    suffix = next;
                }
                write!(f, "{value}{suffix}")
            }
            Notation::DecimalSi | Notation::BinarySi => {
                let (value, exponent) = self.thousands();
                let suffix = DECIMAL_SUFFIXES.iter().find(|(_, power)| *power == exponent).map_or("", |(name, _)| name);
                write!(f, "{value}{suffix}")
            }
            Notation::DecimalExponent => match self.thousands() {
                (value, 0) => write!(f, "{value}"),
                (value, exponent) => write!(f, "{value}e{exponent}"),
            },
        }
    }
}

impl Quantity {
    /// The number and the largest power of a thousand that leave it whole.
    fn thousands(self) -> (i128, i32) {
        let (mut value, mut exponent) = (self.nanos, -9);
        if value == 0 {
            return (0, 0);
        }
        while value % 1000 == 0 && exponent < 18 {
            value /= 1000;
            exponent += 3;
        }
        (value, exponent)
    }
}

enum Scale {
    Ten(i32),
    Two(u32),
}

fn scale(suffix: &str) -> Result<(Scale, Notation), QuantityError> {
    if let Some((_, power)) = DECIMAL_SUFFIXES.iter().find(|(name, _)| *name == suffix) {
        return Ok((Scale::Ten(*power), Notation::DecimalSi));
    }
    if let Some((_, power)) = BINARY_SUFFIXES.iter().find(|(name, _)| *name == suffix) {
        return Ok((Scale::Two(*power), Notation::BinarySi));
    }
    if let Some(exponent) = suffix.strip_prefix(['e', 'E'])
        && let Ok(power) = exponent.parse::<i32>()
    {
        return Ok((Scale::Ten(power.clamp(-100, 100)), Notation::DecimalExponent));
    }
    let known = |c: char| "eEinumkKMGTP".contains(c) || c.is_ascii_digit() || c == '-' || c == '+';
    Err(if suffix.chars().all(known) { QuantityError::Suffix } else { QuantityError::Format })
}

/// `digits` with `decimals` of them after the point, in nanos, rounded up; the cap where it does not fit.
fn scaled(digits: &str, decimals: usize, scale: Scale) -> i128 {
    let decimals = i32::try_from(decimals).unwrap_or(i32::MAX);
    let (power, factor) = match scale {
        Scale::Ten(power) => (9 + power - decimals, 1),
        Scale::Two(bits) => (9 - decimals, 1i128 << bits),
    };
    // More digits than an i128 holds are either above the cap or below a nano.
    let kept = digits.len().min(36);
    let power = power + i32::try_from(digits.len() - kept).unwrap_or(i32::MAX);
    let mut value: i128 = digits[..kept].parse().unwrap_or(0);
    if value == 0 {
        return 0;
    }
    for _ in 0..power {
        value = value.saturating_mul(10);
    }
    if power >= 0 {
        return value.saturating_mul(factor);
    }
    let divisor = (power..0).try_fold(1i128, |divisor, _| divisor.checked_mul(10));
    match (divisor, value.checked_mul(factor)) {
        (Some(divisor), Some(value)) => divide_up(value, divisor),
        (Some(divisor), None) => divide_up(value, divisor).saturating_mul(factor),
        (None, _) => 1,
    }
}

/// Division that rounds away from zero, as upstream rounds what it cannot hold.
fn divide_up(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by == 0 { quotient } else { quotient + value.signum() }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::{Quantity, QuantityError};

    fn canonical(text: &str) -> String {
        Quantity::parse(text).map_or_else(|error| error.to_string(), |quantity| quantity.to_string())
    }

    #[test]
    fn prints_as_upstream_does() {
        for (text, wanted) in [
            ("0", "0"),
            ("1", "1"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1.1Gi", "1181116006400m"),
            ("1.2Gi", "1288490188800m"),
            ("100Ki", "100Ki"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("12e4", "120e3"),
            ("1000", "1k"),
            ("-1.5", "-1500m"),
            ("+5", "5"),
            (".5", "500m"),
            ("5.", "5"),
            ("100M", "100M"),
            ("0.0000000001", "1n"),
            ("1Ei", "1Ei"),
            ("9999999E", "9223372036854775807"),
            ("128974848", "128974848"),
            ("0Ki", "0"),
        ] {
            assert_eq!(canonical(text), wanted, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_quantity() {
        for text in ["", "abc", "1.2.3", "-", ".", "1 Gi", "0x10", "1,5"] {
            assert_eq!(Quantity::parse(text), Err(QuantityError::Format), "{text}");
        }
        for text in ["1gi", "1mi", "5KMi", "1ee3", "1Kii"] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rounds_up_and_adds() {
        let half = Quantity::parse("0.0005").unwrap();
        assert_eq!((half.milli_ceil(), half.value_ceil()), (1, 1));
        let sum = Quantity::parse("1Gi").unwrap() + Quantity::parse("512Mi").unwrap();
        assert_eq!(sum.to_string(), "1536Mi");
        assert_eq!((Quantity::ZERO + Quantity::parse("1Mi").unwrap()).to_string(), "1Mi");
        assert!(Quantity::parse("1").unwrap() > Quantity::parse("999m").unwrap());
        assert_eq!(Quantity::parse("1Ki").unwrap(), Quantity::parse("1024").unwrap());
    }
}
