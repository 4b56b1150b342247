//! The images of the demo and the tests, made from Debian packages without a registry and without a build daemon.
//!
//! Each image is one layer in an OCI archive under `target/images`, named by a hash of its recipe: an unchanged recipe is
//! not built again.

mod archive;
mod recipe;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};

use crate::host;
use crate::process::{output, run};
use recipe::{Base, Recipe};

const FOLDER: &str = "target/images";
/// Bumped when the same recipe makes another archive.
const FORMAT: u32 = 2;

/// Builds what is missing and returns the folder with the archives.
pub fn build() -> anyhow::Result<PathBuf> {
    host::require(&host::BUILD_PACKAGES)?;
    fs::create_dir_all(FOLDER).with_context(|| format!("create {FOLDER}"))?;
    for recipe in recipe::all()? {
        build_one(&recipe).with_context(|| format!("image {}", recipe.name))?;
    }
    fs::canonicalize(FOLDER).with_context(|| format!("find {FOLDER}"))
}

fn build_one(recipe: &Recipe) -> anyhow::Result<()> {
    let archive = Path::new(FOLDER).join(format!("{}.tar", recipe.file_name()));
    let stamp = archive.with_extension("recipe");
    let digest = hex::encode(Sha256::digest(format!("{FORMAT} {recipe:?}")));
    if archive.exists() && fs::read_to_string(&stamp).is_ok_and(|built| built == digest) {
        return Ok(());
    }
    eprintln!("building image {}", recipe.name);
    let base = match &recipe.base {
        Base::Program { source } => compile(source)?,
        Base::Packages(packages) => extract(packages)?,
    };
    let layer = archive::layer(base, recipe)?;
    archive::write(&archive, recipe, &layer)?;
    fs::write(&stamp, digest).with_context(|| format!("write {}", stamp.display()))
}

/// Compiles a static program; it becomes the only file of the image.
fn compile(source: &str) -> anyhow::Result<archive::Content> {
    let work = Path::new(FOLDER).join("work");
    fs::create_dir_all(&work)?;
    let (from, to) = (work.join("program.c"), work.join("program"));
    fs::write(&from, source)?;
    run("gcc", &["-static", "-Os", "-s", "-o", &to.display().to_string(), &from.display().to_string()])?;
    let program = fs::read(&to).with_context(|| format!("read {}", to.display()))?;
    fs::remove_dir_all(&work)?;
    Ok(archive::Content::Program(program))
}

/// Unpacks Debian packages and what they depend on, without running their scripts.
fn extract(packages: &[&str]) -> anyhow::Result<archive::Content> {
    let codename = output("sh", &["-c", ". /etc/os-release && echo $VERSION_CODENAME"])?;
    let root = Path::new(FOLDER).join("root.tar");
    let include = format!("--include={}", packages.join(","));
    let root_text = root.display().to_string();
    let arguments = ["--quiet", "--mode=root", "--variant=extract", &include, codename.trim(), &root_text];
    run("mmdebstrap", &arguments)?;
    let content = fs::read(&root).with_context(|| format!("read {root_text}"))?;
    fs::remove_file(&root)?;
    Ok(archive::Content::Root(content))
}
