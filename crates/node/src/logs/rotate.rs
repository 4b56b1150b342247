//! Log files are renamed when they grow large; the runtime opens the name anew. The oldest go.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::limits;
use crate::runtime::{Runtime, RuntimeError};

/// Whether a file is due. The rename happens in `rotate`.
pub fn is_due(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| limits::LOG_BYTES_MAX <= meta.len())
}

/// Renames the log, has it opened anew and removes files beyond the limit. When the runtime refuses, the name is put
/// back, so that no line is lost.
pub async fn rotate(runtime: &dyn Runtime, container: &str, path: &Path, now: Timestamp) -> Result<(), RuntimeError> {
    let stamp = now.strftime("%Y%m%d-%H%M%S").to_string();
    let aside = PathBuf::from(format!("{}.{stamp}", path.display()));
    let failed = |error: std::io::Error| RuntimeError::Failed { message: error.to_string() };
    fs::rename(path, &aside).map_err(failed)?;
    if let Err(error) = runtime.reopen_log(container).await {
        if !path.exists() {
            fs::rename(&aside, path).map_err(failed)?;
        }
        return Err(error);
    }
    remove_oldest(path);
    Ok(())
}

/// Names carry their time, so their order is their age.
fn remove_oldest(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return };
    let prefix = format!("{}.", name.to_string_lossy());
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut old: Vec<String> = names.filter(|name| name.starts_with(&prefix)).collect();
    old.sort();
    let surplus = (old.len() + 1).saturating_sub(limits::LOG_FILES_MAX);
    for name in old.into_iter().take(surplus) {
        if let Err(error) = fs::remove_file(folder.join(&name)) {
            tracing::debug!(name, %error, "old log file was not removed");
        }
    }
}
