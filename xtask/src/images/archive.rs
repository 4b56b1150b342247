//! OCI image archives: one layer, its configuration, manifest and index.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Archive, Builder, EntryType, Header};

use super::recipe::Recipe;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Of no use in these containers: package databases, documentation, devices that the runtime makes itself, web
/// consoles, the just-in-time compiler of PostgreSQL and the languages its tools are written in.
const LEFT_OUT: [&str; 17] = [
    "dev/",
    "etc/apt/",
    "usr/bin/promtool",
    "usr/lib/postgresql/15/lib/bitcode/",
    "usr/lib/postgresql/15/lib/llvmjit",
    "usr/lib/x86_64-linux-gnu/libLLVM",
    "usr/lib/aarch64-linux-gnu/libLLVM",
    "usr/lib/x86_64-linux-gnu/perl/",
    "usr/share/doc/",
    "usr/share/i18n/",
    "usr/share/info/",
    "usr/share/javascript/",
    "usr/share/locale/",
    "usr/share/man/",
    "var/cache/",
    "var/lib/apt/",
    "var/lib/dpkg/",
];

/// What a layer starts from.
pub enum Content {
    Program(Vec<u8>),
    /// A tar archive of a root file system.
    Root(Vec<u8>),
}

/// The layer as an uncompressed tar.
pub fn layer(content: Content, recipe: &Recipe) -> anyhow::Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    match content {
        Content::Program(program) => add(&mut builder, "program", EntryType::Regular, 0o755, 0, &program)?,
        Content::Root(root) => copy(&mut builder, &root)?,
    }
    for (path, mode, owner) in &recipe.folders {
        add(&mut builder, path, EntryType::Directory, *mode, *owner, b"")?;
    }
    for (path, mode, text) in &recipe.files {
        add(&mut builder, path, EntryType::Regular, *mode, 0, text.as_bytes())?;
    }
    for (path, target) in &recipe.links {
        let mut header = header(EntryType::Symlink, 0o777, 0, 0);
        builder.append_link(&mut header, path, target).with_context(|| format!("link {path}"))?;
    }
    builder.into_inner().context("end the layer")
}

fn copy(builder: &mut Builder<Vec<u8>>, root: &[u8]) -> anyhow::Result<()> {
    let mut archive = Archive::new(root);
    for entry in archive.entries().context("read the root file system")? {
        let mut entry = entry.context("read the root file system")?;
        let path = entry.path()?.into_owned();
        let path = path.strip_prefix(".").unwrap_or(&path).to_path_buf();
        let text = path.display().to_string();
        if text.is_empty() || LEFT_OUT.iter().any(|start| text.starts_with(start)) {
            continue;
        }
        let mut header = entry.header().clone();
        header.set_mtime(0);
        let link = entry.link_name()?.map(|target| target.into_owned());
        if let Some(target) = link {
            let hard = header.entry_type() == EntryType::Link;
            let target = if hard { target.strip_prefix(".").unwrap_or(&target).to_path_buf() } else { target };
            builder.append_link(&mut header, &path, target)?;
        } else {
            let mut data = Vec::new();
            entry.read_to_end(&mut data)?;
            builder.append_data(&mut header, &path, data.as_slice())?;
        }
    }
    Ok(())
}

fn add(
    b: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    owner: u64,
    data: &[u8],
) -> anyhow::Result<()> {
    let mut header = header(kind, mode, owner, data.len() as u64);
    b.append_data(&mut header, path, data).with_context(|| format!("add {path}"))
}

fn header(kind: EntryType, mode: u32, owner: u64, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(0);
    header.set_size(size);
    header
}

/// Writes the archive: layer, configuration, manifest, index.
pub fn write(path: &Path, recipe: &Recipe, layer: &[u8]) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut builder = Builder::new(file);
    let layer_blob = blob(&mut builder, "application/vnd.oci.image.layer.v1.tar", layer)?;
    let config = json!({
        "architecture": architecture(), "os": "linux", "created": "1970-01-01T00:00:00Z", "history": [],
        "config": {"Env": [PATH], "WorkingDir": "/", "User": recipe.user,
            "Entrypoint": recipe.entrypoint, "Cmd": recipe.command},
        "rootfs": {"type": "layers", "diff_ids": [layer_blob["digest"]]},
    });
    let config = blob(&mut builder, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    let media = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": media, "config": config, "layers": [layer_blob]});
    let mut manifest = blob(&mut builder, media, manifest.to_string().as_bytes())?;
    manifest["platform"] = json!({"os": "linux", "architecture": architecture()});
    let tag = recipe.name.rsplit(':').next().unwrap_or("latest");
    manifest["annotations"] =
        json!({"io.containerd.image.name": recipe.name, "org.opencontainers.image.ref.name": tag});
    let index =
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest]});
    entry(&mut builder, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    entry(&mut builder, "index.json", index.to_string().as_bytes())?;
    builder.finish().with_context(|| format!("write {}", path.display()))
}

/// Adds a blob and returns its descriptor.
fn blob(builder: &mut Builder<File>, media: &str, data: &[u8]) -> anyhow::Result<Value> {
    let digest = hex::encode(Sha256::digest(data));
    entry(builder, &format!("blobs/sha256/{digest}"), data)?;
    Ok(json!({"mediaType": media, "digest": format!("sha256:{digest}"), "size": data.len()}))
}

fn entry(builder: &mut Builder<File>, path: &str, data: &[u8]) -> anyhow::Result<()> {
    let mut header = header(EntryType::Regular, 0o644, 0, data.len() as u64);
    builder.append_data(&mut header, path, data).with_context(|| format!("add {path}"))
}

/// The machine's architecture as image platforms spell it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
