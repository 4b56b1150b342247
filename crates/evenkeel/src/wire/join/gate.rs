//! Before a machine that knocks is looked at: whether it may knock now. And what is kept of those that were refused.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Mutex;

use api::{Reason, Status};
use apiserver::{Body, full};
use base::Chain;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::limit::Limit;
use crate::layout::Layout;
use crate::pki::{self, Access};

/// Whoever knocks has a file written no more often than this.
const NOTE_EVERY: SignedDuration = SignedDuration::from_secs(10);
const WHY_CHARS_MAX: usize = 240;

/// What this server knows of machines that it refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    pub count: u64,
    pub first: Timestamp,
    pub last: Timestamp,
    /// Of the last one.
    pub from: Option<IpAddr>,
    pub why: String,
}

/// One for all open paths of a server.
pub struct Gate {
    path: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    limit: Limit,
    refused: Option<Refused>,
    noted: Option<Timestamp>,
}

// === impl Refused ===

impl Refused {
    /// As it was noted last: some seconds may be missing.
    pub fn noted(layout: &Layout) -> Option<Refused> {
        serde_json::from_str(&pki::read(&layout.refused_joins()).ok()??).ok()
    }

    fn and(before: Option<&Refused>, from: Option<IpAddr>, why: &str, now: Timestamp) -> Refused {
        Refused {
            count: before.map_or(0, |before| before.count).saturating_add(1),
            first: before.map_or(now, |before| before.first),
            last: now,
            from,
            // It may quote what was sent.
            why: why.chars().filter(|letter| !letter.is_control()).take(WHY_CHARS_MAX).collect(),
        }
    }
}

// === impl Gate ===

impl Gate {
    pub fn new(layout: &Layout, now: Timestamp) -> Gate {
        let inner = Inner { limit: Limit::new(now), refused: Refused::noted(layout), noted: None };
        Gate { path: layout.refused_joins(), inner: Mutex::new(inner) }
    }

    /// The answer to whoever asks too often.
    pub fn ask(&self, from: Option<IpAddr>, now: Timestamp) -> Result<(), Box<Response<Body>>> {
        let asked = self.inner.lock().expect("no holder of this lock panics").limit.ask(from, now);
        asked.map_err(|wait| {
            self.note(from, "it asks too often", now);
            Box::new(later(wait))
        })
    }

    pub fn refused(&self, from: Option<IpAddr>, why: &str, now: Timestamp) {
        self.inner.lock().expect("no holder of this lock panics").limit.refused(from, now);
        self.note(from, why, now);
    }

    fn note(&self, from: Option<IpAddr>, why: &str, now: Timestamp) {
        let mut inner = self.inner.lock().expect("no holder of this lock panics");
        let refused = Refused::and(inner.refused.as_ref(), from, why, now);
        let text = serde_json::to_string(&refused).expect("it is plain data");
        inner.refused = Some(refused);
        if inner.noted.is_some_and(|at| now.duration_since(at).abs() < NOTE_EVERY) {
            return;
        }
        inner.noted = Some(now);
        drop(inner);
        if let Err(failure) = pki::write(&self.path, text.as_bytes(), Access::Secret) {
            warn!(error = %Chain(&failure), "a refused request to join was not noted");
        }
    }
}

fn later(wait: SignedDuration) -> Response<Body> {
    let seconds = u32::try_from(wait.as_millis().saturating_add(999) / 1000).unwrap_or(u32::MAX).max(1);
    let why = format!("too many requests to join from this address; ask again in {seconds} s");
    let mut status = Status::new(Reason::TooManyRequests, why);
    status.details.get_or_insert_default().retry_after_seconds = seconds;
    let mut response = Response::new(full(status.to_tree().to_string()));
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

#[cfg(test)]
mod tests {
    use super::{Gate, Refused};
    use crate::layout::Layout;
    use jiff::{SignedDuration, Timestamp};

    #[test]
    fn refusals_are_counted_over_restarts_and_noted_no_more_often_than_needed() {
        let folder = tempfile::tempdir().unwrap();
        let (layout, now) = (Layout::new(folder.path()), Timestamp::UNIX_EPOCH);
        let from = Some("192.0.2.1".parse().unwrap());
        let gate = Gate::new(&layout, now);
        assert_eq!(Refused::noted(&layout), None);
        for _ in 0..3 {
            gate.refused(from, "no\x1b[31m", now);
        }
        assert_eq!(Refused::noted(&layout).unwrap().count, 1, "the first at once, the others later");
        gate.refused(from, "no token", now + SignedDuration::from_secs(11));
        let noted = Refused::noted(&layout).unwrap();
        assert_eq!((noted.count, noted.first, noted.why.as_str()), (4, now, "no token"));
        let again = Gate::new(&layout, now);
        again.refused(from, "no", now);
        assert_eq!(Refused::noted(&layout).unwrap().count, 5);
        while gate.ask(from, now).is_ok() {}
        let answer = gate.ask(from, now).unwrap_err();
        assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (429, "1"));
    }
}
