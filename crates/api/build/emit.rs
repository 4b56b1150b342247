//! Writes the model as bytes: a pool of strings, then types and fields as variable-length integers.
//!
//! `src/builtin/read.rs` is the reader; both change together, and every build writes what it reads.

use std::collections::BTreeMap;
use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use crate::model::{Field, List, Markers, Model, Shape, Type};
use crate::shape::{Declared, LIST_CODE, MAP_CODE, STRUCT_CODE, plain};

/// The table, and the texts it points into by offset (each closed by a zero byte; offset 0 is the empty text).
pub fn emit(model: &Model) -> (Vec<u8>, Vec<u8>) {
    let ids = model.types.iter().enumerate().map(|(id, ty)| (ty.name.as_str(), id as u64)).collect();
    let mut writer = Writer { ids, strings: Pool::default(), texts: Texts::default(), bytes: Vec::new() };
    writer.strings.id("");
    writer.texts.offset("");
    writer.number(model.types.len() as u64);
    for ty in &model.types {
        writer.ty(ty);
    }
    let mut table = Vec::new();
    number(&mut table, writer.strings.all.len() as u64);
    for text in &writer.strings.all {
        number(&mut table, text.len() as u64);
        table.extend_from_slice(text.as_bytes());
    }
    table.extend_from_slice(&writer.bytes);
    (table, writer.texts.bytes)
}

pub fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("writing to memory");
    encoder.finish().expect("writing to memory")
}

#[derive(Default)]
struct Pool {
    all: Vec<String>,
    by_text: BTreeMap<String, u64>,
}

impl Pool {
    fn id(&mut self, text: &str) -> u64 {
        if let Some(id) = self.by_text.get(text) {
            return *id;
        }
        let id = self.all.len() as u64;
        self.all.push(text.to_owned());
        self.by_text.insert(text.to_owned(), id);
        id
    }
}

#[derive(Default)]
struct Texts {
    bytes: Vec<u8>,
    offsets: BTreeMap<String, u64>,
}

impl Texts {
    fn offset(&mut self, text: &str) -> u64 {
        if let Some(offset) = self.offsets.get(text) {
            return *offset;
        }
        let offset = self.bytes.len() as u64;
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        self.offsets.insert(text.to_owned(), offset);
        offset
    }
}

struct Writer<'a> {
    ids: BTreeMap<&'a str, u64>,
    strings: Pool,
    texts: Texts,
    bytes: Vec<u8>,
}

impl Writer<'_> {
    fn number(&mut self, value: u64) {
        number(&mut self.bytes, value);
    }

    fn string(&mut self, text: &str) {
        let id = self.strings.id(text);
        self.number(id);
    }

    fn text(&mut self, text: &str) {
        let offset = self.texts.offset(text);
        self.number(offset);
    }

    fn ty(&mut self, ty: &Type) {
        self.string(&ty.name);
        self.text(&ty.text);
        self.number(u64::from(ty.atomic));
        self.number(ty.fields.len() as u64);
        for field in &ty.fields {
            self.field(field);
        }
    }

    fn field(&mut self, field: &Field) {
        let markers = &field.markers;
        self.string(&field.name);
        self.text(&field.text);
        self.number(u64::from(field.number));
        self.shape(&field.shape);
        let flags =
            [field.required, field.inline, field.keeps_zero, markers.atomic, markers.merge, markers.retain_keys];
        self.number(flags.iter().enumerate().fold(0, |bits, (at, flag)| bits | u64::from(*flag) << at));
        self.string(&markers.merge_key);
        self.string(markers.default.as_deref().unwrap_or_default());
        self.string(&rules(markers));
        self.list(markers.list.as_ref());
    }

    fn list(&mut self, list: Option<&List>) {
        match list {
            None | Some(List::Atomic) => self.number(0),
            Some(List::Set) => self.number(1),
            Some(List::Map(keys)) => {
                self.number(1 + keys.len() as u64);
                for key in keys {
                    self.string(key);
                }
            }
        }
    }

    fn shape(&mut self, shape: &Shape) {
        let code = match shape {
            Shape::Struct(_) => STRUCT_CODE,
            Shape::List(_) => LIST_CODE,
            Shape::Map(_) => MAP_CODE,
            shape => plain().iter().position(|other| other == shape).expect("all plain shapes are listed"),
        };
        self.number(code as u64);
        match shape {
            Shape::Struct(name) => {
                let id = *self.ids.get(name.as_str()).unwrap_or_else(|| panic!("{name} is not in the description"));
                self.number(id);
            }
            Shape::List(inner) | Shape::Map(inner) => self.shape(inner),
            _ => {}
        }
    }
}

/// Rules as a JSON object, or nothing.
fn rules(markers: &Markers) -> String {
    if markers.rules == Declared::default() {
        return String::new();
    }
    serde_json::to_string(&markers.rules).expect("rules are plain data")
}

fn number(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
