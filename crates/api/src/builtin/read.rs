//! Reads the table that `build/emit.rs` wrote. Trusts it: it was written by this very build.

use base::SmolStr;

use crate::schema::{Field, FieldType, ListKind, MapKind, PatchRule, Rules, Table, Type, TypeId};
use crate::shape::{Declared, LIST_CODE, MAP_CODE, STRUCT_CODE, plain};

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
            STRUCT_CODE => FieldType::Struct(TypeId(self.small())),
            LIST_CODE => FieldType::List(Box::new(self.shape())),
            MAP_CODE => FieldType::Map(Box::new(self.shape())),
            code => plain().into_iter().nth(code).expect("the build writes no other shape"),
        }
    }
}

/// Enumerations and formats of a list are its elements'.
fn rules(text: &str, of_list: bool) -> Option<Box<Rules>> {
    if text.is_empty() {
        return None;
    }
    let declared: Declared = serde_json::from_str(text).expect("the build writes JSON");
    let unique = declared.unique.map(|keys| match keys.as_slice() {
        [] => ListKind::Set,
        keys => ListKind::Map(keys.iter().map(SmolStr::from).collect()),
    });
    let mut rules = Rules {
        filled: declared.filled.map(SmolStr::from),
        minimum: declared.minimum.map(|minimum| minimum as f64),
        length_max: declared.length_max,
        items_max: declared.items_max,
        enumeration: declared.enumeration,
        format: declared.format.into(),
        unique,
        immutable: declared.immutable,
        no_modify: declared.no_modify,
        union_member: declared.union_member,
        ..Rules::default()
    };
    if of_list && !(rules.enumeration.is_empty() && rules.format.is_empty()) {
        let (enumeration, format) = (std::mem::take(&mut rules.enumeration), std::mem::take(&mut rules.format));
        rules.items = Some(Box::new(Rules { enumeration, format, ..Rules::default() }));
    }
    Some(Box::new(rules))
}
