//! `/logs/`: files below `/var/log`, for those who may read `nodes/log`. Nothing outside is reached, not by a link either.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use bytes::Bytes;
use http::{Response, StatusCode};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::reply::{self, Body, stream, text};

const ROOT: &str = "/var/log";
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that wait for a client.
const QUEUE_CHUNKS: usize = 4;
/// Names listed of one folder.
const NAMES_MAX: usize = 10_000;

pub fn answer(path: &str) -> Response<Body> {
    match open(Path::new(ROOT), path) {
        Ok((file, FileType::RegularFile)) => send(File::from(file)),
        Ok((folder, FileType::Directory)) => match list(folder) {
            Ok(page) => reply::with_type(StatusCode::OK, "text/html; charset=utf-8", reply::full(page)),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        },
        // Neither pipes nor devices are logs.
        Ok(_) | Err(_) => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn open(root: &Path, path: &str) -> io::Result<(OwnedFd, FileType)> {
    let path = Path::new(path.trim_matches('/'));
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let top = rustix::fs::open(root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let path = if path == Path::new("") { Path::new(".") } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    // Without waiting: the other end of a pipe may never come.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let found = rustix::fs::openat2(&top, path, flags, Mode::empty(), resolve)?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
    Ok((found, kind))
}

fn list(folder: OwnedFd) -> io::Result<String> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(folder)?.take(NAMES_MAX) {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let slash = if entry.file_type() == FileType::Directory { "/" } else { "" };
        if name != "." && name != ".." {
            names.push(format!("{name}{slash}"));
        }
    }
    names.sort();
    let escape = |name: &str| name.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&#34;");
    let lines = names.iter().map(|name| format!("<a href=\"{0}\">{0}</a>\n", escape(name)));
    Ok(format!("<!doctype html>\n<pre>\n{}</pre>\n", lines.collect::<String>()))
}

fn send(file: File) -> Response<Body> {
    let (chunks, body) = mpsc::channel(QUEUE_CHUNKS);
    tokio::spawn(async move {
        let mut file = tokio::fs::File::from_std(file);
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(read) = file.read(&mut buffer).await {
            if read == 0 || chunks.send(Bytes::copy_from_slice(&buffer[..read])).await.is_err() {
                return;
            }
        }
    });
    stream(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_what_lies_below_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/a.log"), "x").unwrap();
        symlink("/etc/hostname", dir.path().join("out")).unwrap();
        let kind = |path: &str| open(dir.path(), path).map(|(_, kind)| kind).ok();
        assert_eq!(kind("sub/a.log"), Some(FileType::RegularFile));
        assert_eq!((kind("/sub/"), kind("")), (Some(FileType::Directory), Some(FileType::Directory)));
        assert_eq!((kind("out"), kind("../x"), kind("none")), (None, None, None));
        assert!(list(open(dir.path(), "").unwrap().0).unwrap().contains("<a href=\"sub/\">sub/</a>"));
    }
}
