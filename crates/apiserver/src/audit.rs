//! The audit log: one JSON line per request at metadata level, as upstream's `audit.k8s.io/v1 Event`.
//!
//! A writer thread owns the file. Requests hand it lines through a bounded queue and never wait for the disk; a full
//! queue drops lines and counts them.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use serde_json::json;
use tracing::warn;

use admit::User;
use api::Tree;

use crate::limits::AUDIT_QUEUE_LINES_MAX;
use crate::target::Target;

/// Where the log goes and how large it may grow.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    pub path: PathBuf,
    /// Size at which a file is rotated to `.1`, `.2`, ...
    pub file_bytes_max: u64,
    /// Rotated files kept.
    pub files_max: u32,
}

/// The requests' end of the log. Cheap to clone; the writer ends with the last clone.
#[derive(Clone, Default)]
pub struct Audit {
    lines: Option<SyncSender<String>>,
    dropped: Arc<AtomicU64>,
}

/// What one line tells.
pub struct Record<'a> {
    pub id: &'a str,
    pub user: &'a User,
    pub impersonated: Option<&'a User>,
    pub verb: &'a str,
    pub uri: String,
    pub target: &'a Target,
    pub source: Option<String>,
    pub user_agent: &'a str,
    pub code: u16,
    pub decision: &'a str,
    pub reason: &'a str,
    pub received: jiff::Timestamp,
    pub now: jiff::Timestamp,
}

// === impl Audit ===

impl Audit {
    /// Opens the file, owner-readable only, and starts the writer.
    pub fn start(config: AuditConfig) -> io::Result<Audit> {
        let file = open(&config.path)?;
        let size = file.metadata()?.len();
        let (lines, queue) = sync_channel(AUDIT_QUEUE_LINES_MAX);
        let writer = Writer { out: BufWriter::new(file), size, config };
        std::thread::Builder::new().name("audit".into()).spawn(move || writer.run(&queue))?;
        Ok(Audit { lines: Some(lines), dropped: Arc::default() })
    }

    /// A log that keeps nothing, for tests.
    pub fn none() -> Audit {
        Audit::default()
    }

    pub fn record(&self, record: &Record<'_>) {
        let Some(lines) = &self.lines else { return };
        if lines.try_send(record.line()).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines that a full queue cost.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Record<'_> {
    fn line(&self) -> String {
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": self.id,
            "stage": "ResponseComplete", "requestURI": self.uri, "verb": self.verb, "user": user(self.user),
            "userAgent": self.user_agent, "responseStatus": {"metadata": {}, "code": self.code},
            "requestReceivedTimestamp": micros(self.received), "stageTimestamp": micros(self.now),
            "annotations": {
                "authorization.k8s.io/decision": self.decision, "authorization.k8s.io/reason": self.reason,
            },
        });
        if let Some(source) = &self.source {
            event["sourceIPs"] = json!([source]);
        }
        if let Some(impersonated) = self.impersonated {
            event["impersonatedUser"] = user(impersonated);
        }
        if let Target::Resource(target) = self.target {
            let mut object = serde_json::Map::new();
            let parts = [
                ("resource", &target.resource),
                ("namespace", &target.namespace),
                ("name", &target.name),
                ("apiGroup", &target.group),
                ("apiVersion", &target.version),
                ("subresource", &target.subresource),
            ];
            for (key, value) in parts.into_iter().filter(|(_, value)| !value.is_empty()) {
                object.insert(key.to_owned(), json!(value));
            }
            event["objectRef"] = Tree::Object(object);
        }
        let mut line = event.to_string();
        line.push('\n');
        line
    }
}

fn user(user: &User) -> Tree {
    let mut tree = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        tree["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        tree["extra"] = json!(user.extra);
    }
    tree
}

fn micros(at: jiff::Timestamp) -> String {
    format!("{at:.6}")
}

/// The thread that owns the file.
struct Writer {
    out: BufWriter<File>,
    size: u64,
    config: AuditConfig,
}

impl Writer {
    fn run(mut self, queue: &Receiver<String>) {
        while let Ok(line) = queue.recv() {
            let mut result = self.write(&line);
            // Whatever else is waiting goes with it; then the reader of the file may see it.
            while let Ok(line) = queue.try_recv() {
                result = result.and_then(|()| self.write(&line));
            }
            if let Err(error) = result.and_then(|()| self.out.flush()) {
                warn!(%error, path = %self.config.path.display(), "audit log");
            }
        }
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        if self.size + line.len() as u64 > self.config.file_bytes_max && self.size > 0 {
            self.rotate()?;
        }
        self.size += line.len() as u64;
        self.out.write_all(line.as_bytes())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.out.flush()?;
        let numbered = |number: u32| {
            let mut name = self.config.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.config.files_max).rev() {
            if numbered(number).exists() {
                std::fs::rename(numbered(number), numbered(number + 1))?;
            }
        }
        if self.config.files_max > 0 {
            std::fs::rename(&self.config.path, numbered(1))?;
        } else {
            std::fs::remove_file(&self.config.path)?;
        }
        self.out = BufWriter::new(open(&self.config.path)?);
        self.size = 0;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::{AuditConfig, Writer, open};
    use std::io::{BufWriter, Write};

    #[test]
    fn rotation_keeps_the_newest_files() {
        let folder = std::env::temp_dir().join(format!("audit-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("audit.log");
        let config = AuditConfig { path: path.clone(), file_bytes_max: 10, files_max: 2 };
        let mut writer = Writer { out: BufWriter::new(open(&path).unwrap()), size: 0, config };
        for line in ["one-----\n", "two-----\n", "three---\n", "four----\n"] {
            writer.write(line).unwrap();
        }
        writer.out.flush().unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(read("audit.log"), "four----\n");
        assert_eq!(read("audit.log.1"), "three---\n");
        assert_eq!(read("audit.log.2"), "two-----\n");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
