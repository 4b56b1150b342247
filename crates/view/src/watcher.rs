//! How a cache stays equal to a collection: list, watch from the list's revision, list again when told 410 Gone.
//!
//! Pure. The driver performs the effects and reports back; an event that belongs to an earlier effect cannot occur,
//! because the driver has one effect under way at a time. A watch never starts "from now": between two watches there
//! is no gap that a list did not cover.

use std::mem;
use std::sync::Arc;

use api::{Object, Reason, Status};
use base::Revision;

use crate::{Frame, ListPage};

/// Objects asked for per page: upstream's reflector uses 500 as well.
pub const PAGE_OBJECTS_MAX: usize = 500;

/// Where a watcher is.
#[derive(Debug)]
pub enum Watcher {
    /// Pages of one list arrive; nothing is published before the last.
    Listing { collected: Vec<Arc<Object>>, failures: u32 },
    /// The cache equals the collection at `at` and follows it.
    Watching { at: Revision, failures: u32 },
    /// Pausing before the effect that follows.
    Waiting { then: Resume, failures: u32 },
}

/// What follows a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    List,
    Watch(Revision),
}

/// What the driver reports.
#[derive(Debug)]
pub enum Event {
    Page(ListPage),
    /// A list request failed; the status where the API answered.
    ListFailed(Option<Status>),
    Frame(Frame),
    /// The watch request failed, its stream broke or came to its planned end.
    WatchEnded(Option<Status>),
    PauseOver,
}

/// What the driver shall do. The last effect of a step is always the one to report on, unless none is given: then the
/// watch under way goes on.
#[derive(Debug)]
pub enum Effect {
    List {
        more: Option<String>,
    },
    Watch {
        from: Revision,
    },
    /// Pause as long as the backoff says for this many failures in a row.
    Pause {
        failures: u32,
    },
    /// The collection is exactly this: put what is new, remove what is not in it.
    Replace {
        revision: Revision,
        objects: Vec<Arc<Object>>,
    },
    Put(Arc<Object>),
    Remove(Arc<Object>),
    /// Nothing older than this is outstanding.
    Advance(Revision),
}

// === impl Watcher ===

impl Watcher {
    pub fn start(out: &mut Vec<Effect>) -> Watcher {
        out.push(Effect::List { more: None });
        Watcher::Listing { collected: Vec::new(), failures: 0 }
    }

    pub fn step(self, event: Event, out: &mut Vec<Effect>) -> Watcher {
        match (self, event) {
            (Watcher::Listing { collected, failures }, Event::Page(page)) => listed(collected, failures, page, out),
            // ## Listing => Waiting. An expired continue token starts the list over as well: half a list is none.
            (Watcher::Listing { failures, .. }, Event::ListFailed(_)) => wait(Resume::List, failures + 1, out),
            (Watcher::Watching { at, .. }, Event::Frame(frame)) => watched(at, frame, out),
            // ## Watching => Listing, after a pause that is short for the first time
            (Watcher::Watching { failures, .. }, Event::WatchEnded(Some(status))) if gone(&status) => {
                wait(Resume::List, failures + 1, out)
            }
            // ## Watching => Waiting | Watching. A stream that brought something may be opened again at once.
            (Watcher::Watching { at, failures }, Event::WatchEnded(_)) => wait(Resume::Watch(at), failures + 1, out),
            // ## Waiting => Listing
            (Watcher::Waiting { then: Resume::List, failures }, Event::PauseOver) => {
                out.push(Effect::List { more: None });
                Watcher::Listing { collected: Vec::new(), failures }
            }
            // ## Waiting => Watching
            (Watcher::Waiting { then: Resume::Watch(at), failures }, Event::PauseOver) => {
                out.push(Effect::Watch { from: at });
                Watcher::Watching { at, failures }
            }
            (state @ Watcher::Listing { .. }, event @ (Event::Frame(_) | Event::WatchEnded(_) | Event::PauseOver))
            | (state @ Watcher::Watching { .. }, event @ (Event::Page(_) | Event::ListFailed(_) | Event::PauseOver))
            | (
                state @ Watcher::Waiting { .. },
                event @ (Event::Page(_) | Event::ListFailed(_) | Event::Frame(_) | Event::WatchEnded(_)),
            ) => panic!("the driver reported {event:?} in {state:?}"),
        }
    }
}

// ## Listing => Listing | Watching
fn listed(mut collected: Vec<Arc<Object>>, failures: u32, page: ListPage, out: &mut Vec<Effect>) -> Watcher {
    collected.extend(page.items);
    if page.more.is_some() {
        out.push(Effect::List { more: page.more });
        return Watcher::Listing { collected, failures };
    }
    out.push(Effect::Replace { revision: page.revision, objects: mem::take(&mut collected) });
    out.push(Effect::Watch { from: page.revision });
    Watcher::Watching { at: page.revision, failures }
}

// ## Watching => Watching | Waiting
fn watched(at: Revision, frame: Frame, out: &mut Vec<Effect>) -> Watcher {
    match frame {
        // Frames of one atomic batch share a revision, so "not newer" is no reason to skip one; frames are idempotent.
        Frame::Put(object) => {
            let at = at.max(object.revision);
            out.push(Effect::Put(object));
            Watcher::Watching { at, failures: 0 }
        }
        Frame::Deleted(object) => {
            let at = at.max(object.revision);
            out.push(Effect::Remove(object));
            Watcher::Watching { at, failures: 0 }
        }
        Frame::Bookmark(revision) => {
            let at = at.max(revision);
            out.push(Effect::Advance(at));
            Watcher::Watching { at, failures: 0 }
        }
        Frame::Error(status) if gone(&status) => wait(Resume::List, 1, out),
        Frame::Error(_) => wait(Resume::Watch(at), 1, out),
    }
}

fn wait(then: Resume, failures: u32, out: &mut Vec<Effect>) -> Watcher {
    out.push(Effect::Pause { failures });
    Watcher::Waiting { then, failures }
}

fn gone(status: &Status) -> bool {
    status.code == 410 || matches!(status.reason, Reason::Gone | Reason::Expired)
}

#[cfg(test)]
mod tests {
    use super::{Effect, Event, Watcher};
    use crate::{Frame, ListPage};
    use api::{Object, Reason, Status};
    use base::Revision;
    use std::sync::Arc;

    fn object(name: &str, revision: u64) -> Arc<Object> {
        let text = format!(r#"{{"metadata":{{"name":"{name}","resourceVersion":"{revision}"}}}}"#);
        Arc::new(Object::parse(text.into()).unwrap())
    }

    fn page(revision: u64, names: &[&str], more: Option<&str>) -> Event {
        let items = names.iter().map(|name| object(name, revision)).collect();
        Event::Page(ListPage { revision: Revision(revision), items, more: more.map(str::to_owned) })
    }

    fn show(effect: &Effect) -> String {
        match effect {
            Effect::List { more } => format!("list {}", more.as_deref().unwrap_or("-")),
            Effect::Watch { from } => format!("watch {from}"),
            Effect::Pause { failures } => format!("pause {failures}"),
            Effect::Replace { revision, objects } => {
                let names: Vec<_> = objects.iter().map(|o| o.key.to_string()).collect();
                format!("replace {revision} [{}]", names.join(" "))
            }
            Effect::Put(object) => format!("put {}", object.key),
            Effect::Remove(object) => format!("remove {}", object.key),
            Effect::Advance(revision) => format!("advance {revision}"),
        }
    }

    fn check(events: Vec<Event>, expect: &[&str]) {
        let mut out = Vec::new();
        let mut watcher = Watcher::start(&mut out);
        for event in events {
            watcher = watcher.step(event, &mut out);
        }
        let seen: Vec<_> = out.iter().map(show).collect();
        assert_eq!(seen, expect);
    }

    #[test]
    fn pages_are_published_together_and_watched_from_the_lists_revision() {
        check(
            vec![page(7, &["a"], Some("t")), page(7, &["b"], None), Event::Frame(Frame::Put(object("c", 9)))],
            &["list -", "list t", "replace 7 [a b]", "watch 7", "put c"],
        );
    }

    #[test]
    fn a_broken_watch_resumes_from_the_newest_revision_seen() {
        check(
            vec![
                page(7, &[], None),
                Event::Frame(Frame::Bookmark(Revision(40))),
                Event::WatchEnded(None),
                Event::PauseOver,
            ],
            &["list -", "replace 7 []", "watch 7", "advance 40", "pause 1", "watch 40"],
        );
    }

    #[test]
    fn gone_lists_again_whether_as_answer_or_as_frame() {
        let gone = || Status::new(Reason::Expired, "too old");
        for end in [Event::WatchEnded(Some(gone())), Event::Frame(Frame::Error(gone()))] {
            check(
                vec![page(7, &["a"], None), end, Event::PauseOver, page(90, &["b"], None)],
                &["list -", "replace 7 [a]", "watch 7", "pause 1", "list -", "replace 90 [b]", "watch 90"],
            );
        }
    }

    #[test]
    fn an_expired_page_token_starts_over_and_failures_add_up() {
        check(
            vec![
                page(7, &["a"], Some("t")),
                Event::ListFailed(Some(Status::new(Reason::Expired, "compacted"))),
                Event::PauseOver,
                Event::ListFailed(None),
                Event::PauseOver,
                page(9, &["b"], None),
            ],
            &["list -", "list t", "pause 1", "list -", "pause 2", "list -", "replace 9 [b]", "watch 9"],
        );
    }
}
