//! Files of the PKI: written whole or not at all, secrets readable by the owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::pki::{PkiError, mark};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// 0600: keys, tokens, kubeconfigs.
    Secret,
    /// 0644: certificates.
    Public,
    /// What the operator asked for.
    Mode(u32),
}

/// Writes a file through a temporary one beside it: after a power cut there is the old content or the new.
pub fn write(path: &Path, content: &[u8], access: Access) -> Result<(), PkiError> {
    write_inner(path, content, access).map_err(|source| PkiError::Write { path: path.to_owned(), source })
}

/// The content of a file; None where there is none.
pub fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::Read { path: path.to_owned(), source }),
    }
}

fn write_inner(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    if !folder.exists() {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    let mode = match access {
        Access::Secret => 0o600,
        Access::Public => 0o644,
        Access::Mode(mode) => mode,
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.new"));
    // A leftover of a crash may have another mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(content)?;
    // The umask may have taken bits away that were asked for.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    mark::set(&file, content, mode);
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}
