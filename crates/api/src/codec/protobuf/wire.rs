//! Protobuf's wire format: keys, varints, lengths.

use super::{DecodeError, EncodeError};

/// A field's value as the wire tells it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

pub(crate) fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(field) << 3);
    varint(out, value);
}

pub(super) fn double(out: &mut Vec<u8>, field: u32, value: f64) {
    varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// Opens a value of a known length.
pub(super) fn length(out: &mut Vec<u8>, field: u32, length: usize) {
    varint(out, u64::from(field) << 3 | 2);
    varint(out, length as u64);
}

pub(crate) fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    length(out, field, value.len());
    out.extend_from_slice(value);
}

pub(crate) fn text(out: &mut Vec<u8>, field: u32, value: &str) {
    bytes(out, field, value.as_bytes());
}

/// What [`bytes`] writes for so many bytes.
pub(super) fn size_of_bytes(field: u32, length: usize) -> usize {
    let mut head = Vec::new();
    self::length(&mut head, field, length);
    head.len() + length
}

/// Writes a nested message. Most are short: their length is one byte, which is put in afterwards without moving them.
pub(super) fn nested(
    out: &mut Vec<u8>,
    field: u32,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    varint(out, u64::from(field) << 3 | 2);
    let at = out.len();
    out.push(0);
    write(out)?;
    let length = out.len() - at - 1;
    let mut head = Vec::with_capacity(5);
    varint(&mut head, length as u64);
    out.splice(at..=at, head);
    Ok(())
}

/// The fields of a message, in wire order.
pub(super) fn fields(bytes: &[u8]) -> impl Iterator<Item = Result<(u32, Value<'_>), DecodeError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let entry = entry(&mut rest);
        if entry.is_err() {
            rest = &[];
        }
        Some(entry)
    })
}

fn entry<'a>(rest: &mut &'a [u8]) -> Result<(u32, Value<'a>), DecodeError> {
    let key = read_varint(rest)?;
    let field = u32::try_from(key >> 3).ok().filter(|field| *field > 0);
    let field = field.ok_or(DecodeError::Range { what: "a field number" })?;
    let value = match key & 7 {
        0 => Value::Varint(read_varint(rest)?),
        1 => Value::Fixed64(u64::from_le_bytes(take(rest, 8)?.try_into().map_err(|_| DecodeError::Short)?)),
        2 => {
            let length = usize::try_from(read_varint(rest)?).map_err(|_| DecodeError::Short)?;
            Value::Bytes(take(rest, length)?)
        }
        5 => {
            take(rest, 4)?;
            Value::Fixed32
        }
        wire => return Err(DecodeError::WireType { field, wire: (wire & 7) as u8 }),
    };
    Ok((field, value))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], DecodeError> {
    let (head, tail) = rest.split_at_checked(length).ok_or(DecodeError::Short)?;
    *rest = tail;
    Ok(head)
}

pub(super) fn read_varint(rest: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first().ok_or(DecodeError::Short)?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok(value);
        }
    }
    Err(DecodeError::Range { what: "a varint" })
}

impl<'a> Value<'a> {
    fn wrong(self, field: u32) -> DecodeError {
        let wire = match self {
            Value::Varint(_) => 0,
            Value::Fixed64(_) => 1,
            Value::Bytes(_) => 2,
            Value::Fixed32 => 5,
        };
        DecodeError::WireType { field, wire }
    }

    pub(super) fn varint(self, field: u32) -> Result<u64, DecodeError> {
        if let Value::Varint(value) = self { Ok(value) } else { Err(self.wrong(field)) }
    }

    /// Two's complement, as protobuf writes int32 and int64.
    pub(super) fn signed(self, field: u32) -> Result<i64, DecodeError> {
        self.varint(field).map(u64::cast_signed)
    }

    pub(super) fn double(self, field: u32) -> Result<f64, DecodeError> {
        if let Value::Fixed64(bits) = self { Ok(f64::from_bits(bits)) } else { Err(self.wrong(field)) }
    }

    pub(super) fn bytes(self, field: u32) -> Result<&'a [u8], DecodeError> {
        if let Value::Bytes(bytes) = self { Ok(bytes) } else { Err(self.wrong(field)) }
    }

    pub(super) fn text(self, field: u32) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| DecodeError::Text)
    }
}
