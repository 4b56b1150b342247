//! Reads the table that `build/emit.rs` wrote. Trusts it: it was written by this very build.

use base::SmolStr;
use serde::Deserialize;

use crate::Tree;
use crate::schema::{Field, FieldType, ListKind, MapKind, PatchRule, Rules, Table, Type, TypeId};

/// Reads the whole table. Equal strings share their memory.
pub fn table(bytes: &[u8]) -> Table {
    let mut reader = Reader { bytes, at: 0, strings: Vec::new() };
    let count = reader.number();
    reader.strings = (0..count).map(|_| reader.text()).collect();
    let count = reader.number();
    Table { types: (0..count).map(|_| reader.ty()).collect(), ..Table::default() }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    strings: Vec<SmolStr>,
}

/// Rules as the build writes them.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Written {
    max_items: Option<u64>,
    max_length: Option<u64>,
    minimum: Option<f64>,
    r#enum: Vec<Tree>,
}

impl Reader<'_> {
    fn number(&mut self) -> usize {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = self.bytes[self.at];
            self.at += 1;
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    fn small(&mut self) -> u32 {
        u32::try_from(self.number()).expect("the build writes nothing larger")
    }

    fn text(&mut self) -> SmolStr {
        let length = self.number();
        let bytes = &self.bytes[self.at..self.at + length];
        self.at += length;
        std::str::from_utf8(bytes).expect("the build writes UTF-8").into()
    }

    fn string(&mut self) -> SmolStr {
        let id = self.number();
        self.strings[id].clone()
    }

    fn ty(&mut self) -> Type {
        let name = self.string();
        let description = self.small();
        let map = if self.number() == 1 { MapKind::Atomic } else { MapKind::Granular };
        let count = self.number();
        let fields = (0..count).map(|_| self.field()).collect();
        Type { name, fields, map, description, ..Type::default() }
    }

    fn field(&mut self) -> Field {
        let name = self.string();
        let description = self.small();
        let number = self.small();
        let ty = self.shape();
        let flags = self.number();
        let flag = |at: usize| flags & 1 << at != 0;
        let patch = PatchRule { merge: flag(4), retain_keys: flag(5), merge_key: self.string() };
        let default = self.string();
        let default = (!default.is_empty()).then(|| serde_json::from_str(&default).expect("defaults are JSON"));
        let rules = rules(&self.string(), matches!(ty, FieldType::List(_)));
        let list = self.list();
        Field {
            name,
            number,
            ty,
            required: flag(0),
            nullable: false,
            default,
            list,
            map: if flag(3) { MapKind::Atomic } else { MapKind::Granular },
            patch,
            rules,
            description,
            inline: flag(1),
            proto_optional: flag(2),
        }
    }

    fn list(&mut self) -> ListKind {
        match self.number() {
            0 => ListKind::Atomic,
            1 => ListKind::Set,
            keys => ListKind::Map((1..keys).map(|_| self.string()).collect()),
        }
    }

    fn shape(&mut self) -> FieldType {
        match self.number() {
            0 => FieldType::String,
            1 => FieldType::Bool,
            2 => FieldType::Int32,
            3 => FieldType::Int64,
            4 => FieldType::Double,
            5 => FieldType::Bytes,
            6 => FieldType::Quantity,
            7 => FieldType::IntOrString,
            8 => FieldType::Time,
            9 => FieldType::MicroTime,
            10 => FieldType::Duration,
            11 => FieldType::FieldsV1,
            12 => FieldType::RawExtension,
            13 => FieldType::Any,
            14 => FieldType::Struct(TypeId(self.small())),
            15 => FieldType::List(Box::new(self.shape())),
            16 => FieldType::Map(Box::new(self.shape())),
            other => unreachable!("the build writes no shape {other}"),
        }
    }
}

/// Enumerations of a list are its elements'.
fn rules(text: &str, of_list: bool) -> Option<Box<Rules>> {
    if text.is_empty() {
        return None;
    }
    let written: Written = serde_json::from_str(text).expect("the build writes JSON");
    let mut rules = Rules {
        minimum: written.minimum,
        length_max: written.max_length,
        items_max: written.max_items,
        enumeration: written.r#enum,
        ..Rules::default()
    };
    if of_list && !rules.enumeration.is_empty() {
        let enumeration = std::mem::take(&mut rules.enumeration);
        rules.items = Some(Box::new(Rules { enumeration, ..Rules::default() }));
    }
    Some(Box::new(rules))
}
