//! Where cargo keeps the sources of the description. `cargo metadata` downloads what is locked but never compiled.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

pub struct Sources {
    /// k8s-openapi's module of the served version: JSON names, types, texts, required fields.
    pub openapi: PathBuf,
    /// k8s-pb's root module: protobuf numbers and the markers of merges and lists.
    pub protobuf: PathBuf,
}

pub fn find(manifest_dir: &Path) -> Sources {
    let cargo = env::var_os("CARGO").expect("cargo sets it for build scripts");
    let manifest = manifest_dir.join("Cargo.toml");
    // Not --offline: with an empty cargo home this call is what downloads the two crates.
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(manifest)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    Sources {
        openapi: package(&metadata, "k8s-openapi", "0.29.0").join("src/v1_36"),
        protobuf: package(&metadata, "k8s-pb", "0.9.0").join("src"),
    }
}

fn package(metadata: &Value, name: &str, version: &str) -> PathBuf {
    let packages = metadata["packages"].as_array().expect("metadata lists packages");
    let found = packages.iter().find(|package| package["name"] == name && package["version"] == version);
    let manifest = found.and_then(|package| package["manifest_path"].as_str());
    let manifest = manifest.unwrap_or_else(|| panic!("{name} {version} is not in Cargo.lock"));
    Path::new(manifest).parent().expect("a manifest lies in a folder").to_owned()
}
