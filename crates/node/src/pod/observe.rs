//! What the runtime says of a container, in the words of the pod's state machine.

use std::fs;
use std::path::Path;

use jiff::Timestamp;

use super::slot::Exit;
use crate::limits;
use crate::logs;
use crate::runtime::ContainerStatus;
use crate::spec::container::{ANNOTATION_TERMINATION_FILE, ANNOTATION_TERMINATION_POLICY};

/// The exit of a container that has one, with its termination message.
pub fn exit(status: &ContainerStatus) -> Exit {
    let default = if status.exit_code == 0 { "Completed" } else { "Error" };
    let reason = if status.reason.is_empty() { default } else { &status.reason };
    Exit {
        id: status.id.clone(),
        image: status.image.clone(),
        image_ref: status.image_ref.clone(),
        code: status.exit_code,
        signal: 0,
        reason: reason.to_owned(),
        message: message(status),
        started_at: time(status.started_at).or_else(|| time(status.created_at)),
        finished_at: time(status.finished_at),
    }
}

pub fn time(nanos: i64) -> Option<Timestamp> {
    if nanos <= 0 { None } else { Timestamp::from_nanosecond(i128::from(nanos)).ok() }
}

fn message(status: &ContainerStatus) -> String {
    let annotation = |name: &str| status.annotations.get(name).map(String::as_str).unwrap_or_default();
    let file = annotation(ANNOTATION_TERMINATION_FILE);
    let written = if file.is_empty() { String::new() } else { head(Path::new(file)) };
    if !written.is_empty() {
        return written;
    }
    let from_logs = annotation(ANNOTATION_TERMINATION_POLICY) == "FallbackToLogsOnError" && status.exit_code != 0;
    if from_logs
        && let Ok(tail) =
            logs::tail_text(&status.log_path, limits::TERMINATION_LOG_LINES_MAX, limits::TERMINATION_LOG_BYTES_MAX)
    {
        return tail;
    }
    status.message.clone()
}

fn head(file: &Path) -> String {
    let bytes = fs::read(file).unwrap_or_default();
    let end = bytes.len().min(limits::TERMINATION_MESSAGE_BYTES_MAX);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
