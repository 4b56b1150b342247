//! Conditions: set by type, with a transition time that moves only when the status does.

use api::Tree;
use jiff::Timestamp;
use serde_json::json;

use super::value::{text, time};

/// What a condition says.
#[derive(Clone, Copy)]
pub struct Condition<'a> {
    pub r#type: &'a str,
    /// `True`, `False` or `Unknown`.
    pub status: &'a str,
    pub reason: &'a str,
    pub message: &'a str,
}

/// The word for a truth.
pub fn word(truth: bool) -> &'static str {
    if truth { "True" } else { "False" }
}

pub fn find<'a>(conditions: &'a [Tree], r#type: &str) -> Option<&'a Tree> {
    conditions.iter().find(|condition| text(condition, "/type") == r#type)
}

pub fn is_true(conditions: &[Tree], r#type: &str) -> bool {
    find(conditions, r#type).is_some_and(|condition| text(condition, "/status") == "True")
}

/// Puts a condition in place. Nothing changes where status, reason and message are as before.
pub fn set(conditions: &mut Vec<Tree>, condition: Condition<'_>, now: Timestamp) {
    set_with(conditions, condition, now, &[]);
}

/// As [`set`], for conditions that also carry the times named in `stamps` (`lastUpdateTime`, `lastProbeTime`), which
/// move with every change.
pub fn set_with(conditions: &mut Vec<Tree>, condition: Condition<'_>, now: Timestamp, stamps: &[&str]) {
    let status = condition.status;
    let mut made = json!({
        "type": condition.r#type, "status": status, "lastTransitionTime": time(now),
        "reason": condition.reason, "message": condition.message,
    });
    for stamp in stamps {
        made[*stamp] = json!(time(now));
    }
    let fields = made.as_object_mut().expect("made as an object");
    fields.retain(|_, value| value.as_str() != Some(""));
    let Some(before) = conditions.iter_mut().find(|before| text(before, "/type") == condition.r#type) else {
        conditions.push(made);
        return;
    };
    if text(before, "/status") == status {
        let told = ["/reason", "/message"].map(|part| text(before, part).to_owned());
        if told[0] == condition.reason && told[1] == condition.message {
            return;
        }
        if let Some(since) = before.get("lastTransitionTime") {
            made["lastTransitionTime"] = since.clone();
        }
    }
    *before = made;
}

pub fn remove(conditions: &mut Vec<Tree>, r#type: &str) {
    conditions.retain(|condition| text(condition, "/type") != r#type);
}
