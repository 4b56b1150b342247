//! Events: the core group takes what old recorders send; `events.k8s.io`, and any event with an `eventTime`, must say who
//! reports what.

use api::Tree;

use crate::causes::{At, Causes};
use crate::context::Cx;
use crate::{doc, names};

/// Longest reason, action and reporting instance.
const WORD_LENGTH_MAX: usize = 128;
/// Longest message.
const NOTE_LENGTH_MAX: usize = 1024;
/// What an update through `events.k8s.io` may not change.
const IMMUTABLE: [&str; 12] = [
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "action",
    "related",
    "reportingComponent",
    "reportingInstance",
];

pub(super) fn object(cx: &Cx<'_>, tree: &Tree, old: Option<&Tree>, causes: &mut Causes) {
    let timed = doc::has(tree, "eventTime");
    namespace(tree, timed, causes);
    let strict = cx.asked.gvk.group == "events.k8s.io";
    if timed {
        reported(tree, if strict { "reportingController" } else { "reportingComponent" }, causes);
    }
    if !strict {
        return;
    }
    match old {
        None => {
            new_words(tree, timed, causes);
            series(tree, causes);
        }
        Some(old) => {
            if doc::get(tree, "series") != doc::get(old, "series") {
                series(tree, causes);
            }
            for field in IMMUTABLE.into_iter().chain(["eventTime"]) {
                let now = doc::get(tree, field);
                if !same(now, doc::get(old, field)) {
                    causes.immutable(&At::of(field), now);
                }
            }
        }
    }
}

/// Absent, null and empty are one value to a typed server.
fn same(now: &Tree, had: &Tree) -> bool {
    let bare = |value: &Tree| value.is_null() || value == "" || *value == serde_json::json!({}) || *value == 0;
    now == had || bare(now) && bare(had)
}

fn namespace(tree: &Tree, timed: bool, causes: &mut Causes) {
    let (own, about) = (doc::text(tree, "metadata.namespace"), doc::text(tree, "involvedObject.namespace"));
    let agrees = match (about, timed) {
        ("", false) => matches!(own, "" | "default"),
        ("", true) => matches!(own, "default" | "kube-system"),
        (about, false) => own == about,
        (_, true) => true,
    };
    if !agrees {
        causes.invalid_text(&At::of("involvedObject.namespace"), about, "does not match event.namespace");
    }
}

fn reported(tree: &Tree, controller: &str, causes: &mut Causes) {
    let at = At::of(controller);
    let reporter = doc::text(tree, "reportingComponent");
    if reporter.is_empty() {
        causes.required(&at, "");
    }
    names::qualified(reporter).iter().for_each(|why| causes.invalid_text(&at, reporter, why));
    for field in ["reportingInstance", "action", "reason"] {
        let text = doc::text(tree, field);
        if text.is_empty() {
            causes.required(&At::of(field), "");
        } else if text.len() > WORD_LENGTH_MAX {
            causes.invalid_text(&At::of(field), "", &format!("can have at most {WORD_LENGTH_MAX} characters"));
        }
    }
    if doc::text(tree, "message").len() > NOTE_LENGTH_MAX {
        causes.invalid_text(&At::of("message"), "", &format!("can have at most {NOTE_LENGTH_MAX} characters"));
    }
}

fn new_words(tree: &Tree, timed: bool, causes: &mut Causes) {
    if !timed {
        causes.required(&At::of("eventTime"), "");
    }
    let kind = doc::text(tree, "type");
    if !matches!(kind, "Normal" | "Warning") {
        causes.invalid_text(&At::of("type"), "", &format!("has invalid value: {kind}"));
    }
    let old_words = ["firstTimestamp", "lastTimestamp", "count", "source"];
    for field in old_words.into_iter().filter(|field| !same(doc::get(tree, field), &Tree::Null)) {
        causes.invalid_text(&At::of(field), "", "needs to be unset");
    }
}

fn series(tree: &Tree, causes: &mut Causes) {
    let Some(series) = doc::at(tree, "series") else { return };
    let at = At::of("series");
    if doc::int(series, "count").unwrap_or(0) < 2 {
        causes.invalid_text(&at.child("count"), "", "should be at least 2");
    }
    if !doc::has(series, "lastObservedTime") {
        causes.required(&at.child("lastObservedTime"), "");
    }
}
