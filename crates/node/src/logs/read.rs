//! Reading a container's log: from the start, the last lines, since a time, and on as it grows.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::parse;
use crate::limits;

/// How often a followed file is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);
/// Bytes collected before they are handed on.
const CHUNK_BYTES: usize = 32 << 10;
/// Step of the backwards search for the last lines.
const TAIL_STEP_BYTES: u64 = 64 << 10;

/// What `kubectl logs` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub follow: bool,
    pub timestamps: bool,
    /// Last lines only.
    pub tail: Option<usize>,
    pub since: Option<Timestamp>,
    pub limit_bytes: Option<usize>,
    /// `Some(true)`: stderr only, `Some(false)`: stdout only.
    pub stderr: Option<bool>,
}

/// Sends the log to `out` until its end, or, when following, until `ended` says that nothing more will come and the
/// end is reached. A receiver that goes away ends it; one that does not read stops it without cost to others.
pub async fn follow(
    path: PathBuf,
    options: Options,
    out: mpsc::Sender<Bytes>,
    mut ended: impl FnMut() -> bool + Send,
) -> io::Result<()> {
    let start = options.tail;
    let open = path.clone();
    let opened = tokio::task::spawn_blocking(move || Reader::open(&open, start)).await.expect("opening does not panic");
    let mut reader = opened?;
    let mut filter = Filter { options: options.clone(), sent: 0, whole: true };
    loop {
        // Asked before the last read, so that nothing written before the end is missed.
        let last = !options.follow || ended();
        loop {
            let (chunk, back) = tokio::task::spawn_blocking(move || {
                let mut filter_reader = (filter, reader);
                let chunk = filter_reader.1.chunk(&mut filter_reader.0);
                (chunk, filter_reader)
            })
            .await
            .expect("reading does not panic");
            (filter, reader) = back;
            let chunk = chunk?;
            if chunk.is_empty() {
                break;
            }
            if out.send(Bytes::from(chunk)).await.is_err() {
                return Ok(());
            }
        }
        if filter.is_full() || (last && !reader.rotate(&path)?) {
            return Ok(());
        }
        if !last {
            tokio::select! {
                () = out.closed() => return Ok(()),
                () = tokio::time::sleep(FOLLOW_EVERY) => {}
            }
            reader.rotate(&path)?;
        }
    }
}

struct Reader {
    file: BufReader<File>,
    inode: u64,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
}

impl Reader {
    fn open(path: &Path, tail: Option<usize>) -> io::Result<Reader> {
        let mut file = File::open(path)?;
        let inode = file.metadata()?.ino();
        if let Some(lines) = tail {
            let from = tail_offset(&mut file, lines)?;
            file.seek(SeekFrom::Start(from))?;
        }
        Ok(Reader { file: BufReader::new(file), inode, rest: Vec::new() })
    }

    /// Filtered text up to about a chunk; empty at the end of what is written.
    fn chunk(&mut self, filter: &mut Filter) -> io::Result<Vec<u8>> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK_BYTES && !filter.is_full() {
            let limit = limits::LOG_LINE_BYTES_MAX as u64;
            let read = (&mut self.file).take(limit).read_until(b'\n', &mut self.rest)?;
            if read == 0 {
                break;
            }
            if self.rest.last() == Some(&b'\n') || limits::LOG_LINE_BYTES_MAX <= self.rest.len() {
                filter.add(&self.rest, &mut chunk);
                self.rest.clear();
            }
        }
        Ok(chunk)
    }

    /// Goes on with the file that took the name, if another did. True when there is more to read.
    fn rotate(&mut self, path: &Path) -> io::Result<bool> {
        let Ok(meta) = fs::metadata(path) else { return Ok(false) };
        if meta.ino() == self.inode {
            return Ok(false);
        }
        *self = Reader::open(path, None)?;
        Ok(true)
    }
}

struct Filter {
    options: Options,
    sent: usize,
    /// The line before was a whole one: a time stamp goes in front of the next.
    whole: bool,
}

impl Filter {
    fn is_full(&self) -> bool {
        self.options.limit_bytes.is_some_and(|limit| limit <= self.sent)
    }

    fn add(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let Some(parsed) = parse(line) else { return };
        let wanted_stream = self.options.stderr.is_none_or(|stderr| stderr == parsed.stderr);
        if !wanted_stream || self.options.since.is_some_and(|since| parsed.at < since) {
            return;
        }
        let before = out.len();
        if self.options.timestamps && self.whole {
            out.extend_from_slice(parsed.time);
            out.push(b' ');
        }
        out.extend_from_slice(parsed.text);
        if !parsed.partial {
            out.push(b'\n');
        }
        self.whole = !parsed.partial;
        if let Some(limit) = self.options.limit_bytes {
            out.truncate(before + (out.len() - before).min(limit - self.sent.min(limit)));
        }
        self.sent += out.len() - before;
    }
}

/// Where the last `lines` whole lines begin; partial lines count as one with their end.
fn tail_offset(file: &mut File, lines: usize) -> io::Result<u64> {
    let end = file.metadata()?.len();
    if lines == 0 {
        return Ok(end);
    }
    let mut found = 0;
    let mut at = end;
    let mut after: Vec<u8> = Vec::new();
    // The start of the line that is looked at; a line counts where its predecessor is whole.
    let mut begin = end;
    while at != 0 {
        let step = at.min(TAIL_STEP_BYTES);
        at -= step;
        file.seek(SeekFrom::Start(at))?;
        let mut block = vec![0; usize::try_from(step).expect("a step fits")];
        file.read_exact(&mut block)?;
        block.extend_from_slice(&after);
        while let Some(newline) = block.iter().rposition(|byte| *byte == b'\n') {
            let line_start = at + newline as u64 + 1;
            if line_start < end {
                let line = block.split_off(newline + 1);
                if !line.is_empty() {
                    begin = line_start;
                }
            }
            block.truncate(newline);
            // The line that ends here: does it go on in the one found before?
            let own = block.iter().rposition(|byte| *byte == b'\n').map_or(0, |before| before + 1);
            let partial = (own != 0 || at == 0) && parse(&block[own..]).is_some_and(|line| line.partial);
            if line_start < end && !partial {
                found += 1;
                if found == lines {
                    return Ok(begin);
                }
            }
        }
        if (limits::LOG_LINE_BYTES_MAX as u64) < block.len() as u64 {
            return Ok(begin);
        }
        after = block;
    }
    Ok(0)
}

/// The text of the last lines, for a termination message.
pub fn tail_text(path: &Path, lines: usize, bytes: usize) -> io::Result<String> {
    let mut reader = Reader::open(path, Some(lines))?;
    let mut filter = Filter { options: Options::default(), sent: 0, whole: true };
    let mut text: Vec<u8> = Vec::new();
    loop {
        let chunk = reader.chunk(&mut filter)?;
        if chunk.is_empty() {
            break;
        }
        text.extend_from_slice(&chunk);
        if bytes < text.len() {
            text.drain(..text.len() - bytes);
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:01.000000001Z stdout F one\n\
        2026-01-01T00:00:02Z stderr F two\n\
        2026-01-01T00:00:03Z stdout P thr\n\
        2026-01-01T00:00:03Z stdout F ee\n\
        not a log line\n\
        2026-01-01T00:00:04Z stdout F \n\
        2026-01-01T00:00:05Z stdout F five\n";

    async fn check(options: Options, wanted: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        fs::write(&path, LOG).unwrap();
        assert_eq!(read(path, options).await, wanted);
    }

    async fn read(path: PathBuf, options: Options) -> String {
        let (out, mut inbox) = mpsc::channel(4);
        let reading = tokio::spawn(follow(path, options, out, || true));
        let mut text = Vec::new();
        while let Some(chunk) = inbox.recv().await {
            text.extend_from_slice(&chunk);
        }
        reading.await.unwrap().unwrap();
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn options() {
        let plain = Options::default();
        check(plain.clone(), "one\ntwo\nthree\n\nfive\n").await;
        check(Options { tail: Some(2), ..plain.clone() }, "\nfive\n").await;
        check(Options { tail: Some(0), ..plain.clone() }, "").await;
        check(Options { tail: Some(100), ..plain.clone() }, "one\ntwo\nthree\n\nfive\n").await;
        check(Options { limit_bytes: Some(6), ..plain.clone() }, "one\ntw").await;
        check(Options { stderr: Some(true), ..plain.clone() }, "two\n").await;
        let since = Some("2026-01-01T00:00:04Z".parse().unwrap());
        check(Options { since, ..plain.clone() }, "\nfive\n").await;
        let last = Options { timestamps: true, tail: Some(1), ..plain };
        check(last, "2026-01-01T00:00:05Z five\n").await;
    }

    #[tokio::test]
    async fn a_followed_log_goes_on_through_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        fs::write(&path, "2026-01-01T00:00:01Z stdout F a\n").unwrap();
        let (out, mut inbox) = mpsc::channel(4);
        let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (flag, at) = (over.clone(), path.clone());
        let options = Options { follow: true, ..Options::default() };
        let reading = tokio::spawn(follow(at, options, out, move || flag.load(std::sync::atomic::Ordering::SeqCst)));
        assert_eq!(inbox.recv().await.unwrap(), "a\n");
        fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        fs::write(&path, "2026-01-01T00:00:02Z stdout F b\n").unwrap();
        assert_eq!(inbox.recv().await.unwrap(), "b\n");
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(inbox.recv().await.is_none());
        reading.await.unwrap().unwrap();
    }

    #[test]
    fn partial_lines_count_as_one_from_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        fs::write(
            &path,
            "2026-01-01T00:00:01Z stdout F a\n2026-01-01T00:00:02Z stdout P b\n2026-01-01T00:00:02Z stdout F c\n",
        )
        .unwrap();
        assert_eq!(tail_text(&path, 1, 100).unwrap(), "bc\n");
        assert_eq!(tail_text(&path, 2, 100).unwrap(), "a\nbc\n");
        assert_eq!(tail_text(&path, 2, 3).unwrap(), "bc\n");
    }
}
