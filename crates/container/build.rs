//! Compiles the CRI description into client code, without protoc.
//!
//! The description is `proto/v1.proto` of the published crate `k8s-cri`, a dependency for no target: Cargo fetches and
//! verifies it, and nothing of it is compiled or committed.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = "k8s-cri";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.toml");
    let folder = source_folder()?.join("proto");
    let files = protox::compile(["v1.proto"], [folder])?;
    tonic_prost_build::configure().build_server(false).emit_rerun_if_changed(false).compile_fds(files)?;
    Ok(())
}

/// Where Cargo unpacked the package that holds the description.
fn source_folder() -> Result<PathBuf, Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").ok_or("CARGO is set by cargo for build scripts")?;
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is set by cargo")?;
    let output = Command::new(cargo)
        .args(["metadata", "--locked", "--format-version", "1"])
        .current_dir(Path::new(&manifest))
        .output()?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists packages")?;
    let package = packages.iter().find(|package| package["name"] == SOURCE).ok_or("Cargo.lock names k8s-cri")?;
    let manifest = package["manifest_path"].as_str().ok_or("a package has a manifest")?;
    Ok(Path::new(manifest).parent().ok_or("a manifest lies in a folder")?.to_path_buf())
}
