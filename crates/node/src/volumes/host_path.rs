//! `hostPath`: its type is a check, or a wish to make it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use super::VolumeError;

pub fn check(volume: &str, path: &Path, kind: &str) -> Result<(), VolumeError> {
    let meta = fs::metadata(path).ok();
    let fail = |message: &str| {
        Err(VolumeError::set_up(volume, format!("hostPath type check failed: {} is not {message}", path.display())))
    };
    let is = |test: fn(&fs::FileType) -> bool| meta.as_ref().is_some_and(|meta| test(&meta.file_type()));
    match kind {
        "DirectoryOrCreate" if meta.is_none() => {
            fs::create_dir_all(path).map_err(VolumeError::io("create folder", path))?;
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(path, mode).map_err(VolumeError::io("set mode of", path))
        }
        "FileOrCreate" if meta.is_none() => {
            fs::write(path, b"").map_err(VolumeError::io("create file", path))?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(VolumeError::io("set mode of", path))
        }
        "Directory" | "DirectoryOrCreate" if !is(fs::FileType::is_dir) => fail("a directory"),
        "File" | "FileOrCreate" if !is(fs::FileType::is_file) => fail("a file"),
        "Socket" if !is(FileTypeExt::is_socket) => fail("a socket file"),
        "CharDevice" if !is(FileTypeExt::is_char_device) => fail("a character device"),
        "BlockDevice" if !is(FileTypeExt::is_block_device) => fail("a block device"),
        // Without a type nothing is checked; the runtime makes a missing folder as container engines always did.
        "" if meta.is_none() => fs::create_dir_all(path).map_err(VolumeError::io("create folder", path)),
        _ => Ok(()),
    }
}
