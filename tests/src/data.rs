//! What lies in a data folder before a program is started there: the images that a node imports, and the program itself.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

const SMALL_IMAGES: [&str; 2] = ["busybox-1.tar", "pause-1.tar"];

/// The demo and test images, where a node imports them from at start.
pub(crate) fn link_images(data: &Path, small: bool) -> anyhow::Result<()> {
    let from = target().join("images");
    let to = data.join("agent/images");
    fs::create_dir_all(&to).with_context(|| format!("create {}", to.display()))?;
    for entry in fs::read_dir(&from).with_context(|| format!("read {}: run cargo xtask images", from.display()))? {
        let entry = entry?;
        let wanted = !small || SMALL_IMAGES.iter().any(|name| entry.file_name() == *name);
        if wanted && entry.path().extension().is_some_and(|extension| extension == "tar") {
            let link = to.join(entry.file_name());
            // To copy a file onto a link of itself is to empty it.
            if link.exists() {
                fs::remove_file(&link)?;
            }
            fs::hard_link(entry.path(), &link).or_else(|_| fs::copy(entry.path(), &link).map(drop))?;
        }
    }
    Ok(())
}

/// The build folder this test binary was built into.
pub fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the kit lies in the workspace");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from)
}

pub(crate) fn binary() -> PathBuf {
    std::env::var_os("EVENKEEL_BIN").map_or_else(|| target().join("debug/evenkeel"), PathBuf::from)
}

/// The program that a host starts: the one that was built, or a copy below `data`.
pub(crate) fn program(data: &Path, own: bool) -> anyhow::Result<PathBuf> {
    if !own {
        return Ok(binary());
    }
    let copy = data.join("bin/evenkeel");
    fs::create_dir_all(data.join("bin"))?;
    fs::copy(binary(), &copy).with_context(|| format!("write {}", copy.display()))?;
    Ok(copy)
}

pub(crate) fn remove(folder: &Path) -> anyhow::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))
}
