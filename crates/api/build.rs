//! Compiles the Kubernetes description into one table: reads the sources of two locked, never compiled crates, merges
//! facts of ours, and fails on anything it does not understand.

#[path = "build/emit.rs"]
mod emit;
#[path = "build/facts.rs"]
mod facts;
#[path = "build/join.rs"]
mod join;
#[path = "build/model.rs"]
mod model;
#[path = "build/openapi.rs"]
mod openapi;
#[path = "build/proto.rs"]
mod proto;
#[path = "src/shape.rs"]
mod shape;
#[path = "build/sources.rs"]
mod sources;

use std::env;
use std::fs;
use std::path::PathBuf;

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    for path in ["build.rs", "build", "facts", "src/shape.rs", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let sources = sources::find(&root);
    let definitions = openapi::read(&sources.openapi);
    let messages = proto::read(&sources.protobuf);
    let facts = facts::read(&root.join("facts"));
    let model = join::join(&definitions, &messages, &facts);
    model.assert_counts();
    let (table, texts) = emit::emit(&model);
    fs::write(out.join("table.bin"), emit::compress(&table)).expect("OUT_DIR is writable");
    fs::write(out.join("texts.bin"), emit::compress(&texts)).expect("OUT_DIR is writable");
}
