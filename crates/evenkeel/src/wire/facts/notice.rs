//! What passes and would not be seen later: a link that went down and came back, a clock that jumped, a machine that was
//! too busy. A task of the node notices; the file it keeps is written only when something happened.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base::Clock;
use jiff::{SignedDuration, Timestamp};
use keeper::wrong::What;
use serde::{Deserialize, Serialize};
use tracing::warn;
use view::Drain;

use super::local::default_link;
use crate::layout::Layout;
use crate::pki::{Access, write};
use crate::wire::SystemClock;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(2);
/// A look that comes later than this was kept from coming: half the pause between two heartbeats of a node.
const LATE: Duration = Duration::from_secs(5);
/// The wall clock may be corrected by this much without a word.
const STEP: SignedDuration = SignedDuration::from_secs(5);
/// What is kept; of more, the oldest go.
const NOTICES_MAX: usize = 64;
/// How long each is news.
const FLAP_NEWS: SignedDuration = SignedDuration::from_mins(5);
const STEP_NEWS: SignedDuration = SignedDuration::from_hours(1);
const LATE_NEWS: SignedDuration = SignedDuration::from_mins(2);
const LINKS: &str = "/sys/class/net";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
enum Notice {
    Carrier { at: Timestamp, link: String, changes: u32, up: bool },
    Step { at: Timestamp, seconds: i64 },
    Late { at: Timestamp, millis: u64 },
}

fn path(layout: &Layout) -> PathBuf {
    layout.agent().join("noticed.json")
}

/// Notices until the drain.
pub async fn run(layout: Layout, drain: Drain) {
    let mut noticed = read(&layout);
    let mut last = Look::now();
    while drain.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        let look = Look::now();
        let news = look.since(&last);
        last = look;
        if news.is_empty() {
            continue;
        }
        noticed.extend(news);
        let surplus = noticed.len().saturating_sub(NOTICES_MAX);
        noticed.drain(..surplus);
        let text = serde_json::to_string(&noticed).expect("notices are plain data");
        if let Err(error) = write(&path(&layout), text.as_bytes(), Access::Public) {
            warn!(%error, "what was noticed is not kept");
        }
    }
}

fn read(layout: &Layout) -> Vec<Notice> {
    fs::read(path(layout)).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// What is still news, as facts; the link as it is now.
pub fn facts(layout: &Layout, now: Timestamp) -> Vec<What> {
    let noticed = read(layout);
    let link = link().map(|(name, carrier, _)| of_link(name, carrier, &noticed, now));
    let rest = noticed.iter().filter_map(|notice| match notice {
        Notice::Late { at, millis } if now.duration_since(*at) < LATE_NEWS => Some(What::Lateness { millis: *millis }),
        _ => None,
    });
    link.into_iter().chain(rest).chain(step(&noticed, now)).collect()
}

/// How far the clock went in all: one that was set right again is no news. What was noted before a step was noted by
/// another clock.
fn step(noticed: &[Notice], now: Timestamp) -> Option<What> {
    let mut seconds: i64 = 0;
    for notice in noticed.iter().rev() {
        let Notice::Step { at, seconds: more } = notice else { continue };
        let at = at.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(*at);
        if STEP_NEWS < now.duration_since(at).abs() {
            break;
        }
        seconds = seconds.saturating_add(*more);
    }
    (STEP < SignedDuration::from_secs(seconds).abs()).then_some(What::ClockStep { seconds })
}

fn of_link(name: String, carrier: bool, noticed: &[Notice], now: Timestamp) -> What {
    let mut changes = 0;
    let mut lost_at = None;
    for notice in noticed {
        if let Notice::Carrier { at, link, changes: count, .. } = notice
            && *link == name
            && now.duration_since(*at) < FLAP_NEWS
        {
            changes += count;
            lost_at = Some(*at);
        }
    }
    What::Link { name, carrier, changes, lost_at }
}

/// One look at what may change unseen.
struct Look {
    wall: Timestamp,
    steady: Instant,
    link: Option<(String, bool, u32)>,
    /// How long this process has waited for a processor in all; None where the kernel does not count it.
    waited: Option<Duration>,
}

impl Look {
    fn now() -> Look {
        Look { wall: SystemClock.now(), steady: Instant::now(), link: link(), waited: waited() }
    }

    /// Whether what came late waited for a processor meanwhile. A process that somebody stopped did not.
    fn starved(&self, before: &Look, late: Duration) -> bool {
        let (Some(now), Some(then)) = (self.waited, before.waited) else { return true };
        late / 2 <= now.saturating_sub(then)
    }

    fn since(&self, before: &Look) -> Vec<Notice> {
        let (at, took) = (self.wall, self.steady.duration_since(before.steady));
        let carrier = self.link.iter().zip(&before.link).filter_map(|(now, then)| {
            let changes = now.2.checked_sub(then.2).filter(|changes| now.0 == then.0 && 0 < *changes)?;
            Some(Notice::Carrier { at, link: now.0.clone(), changes, up: now.1 })
        });
        let passed = SignedDuration::try_from(took).unwrap_or_default();
        let step = self.wall.duration_since(before.wall).checked_sub(passed).unwrap_or_default();
        let step = (STEP < step.abs()).then(|| Notice::Step { at, seconds: step.as_secs() });
        let late = took.checked_sub(LOOK).filter(|late| LATE < *late && self.starved(before, *late));
        let late = late.map(|late| Notice::Late { at, millis: u64::try_from(late.as_millis()).unwrap_or(u64::MAX) });
        carrier.chain(step).chain(late).collect()
    }
}

/// What all threads waited for, in nanoseconds: the second field of their `schedstat`. Of one that ended nothing is known,
/// so that the sum may fall.
fn waited() -> Option<Duration> {
    let of = |task: std::io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').nth(1)?.parse().ok().map(Duration::from_nanos)
    };
    let waits: Vec<Duration> = fs::read_dir("/proc/self/task").ok()?.filter_map(of).collect();
    (!waits.is_empty()).then(|| waits.iter().sum())
}

/// The link of the default route, whether it has a carrier, and how often that changed since boot.
fn link() -> Option<(String, bool, u32)> {
    let name = default_link(&fs::read_to_string("/proc/net/route").ok()?)?;
    let of = |file: &str| fs::read_to_string(Path::new(LINKS).join(&name).join(file)).ok();
    let carrier = of("carrier")?.trim() == "1";
    let changes = of("carrier_changes")?.trim().parse().ok()?;
    Some((name, carrier, changes))
}

#[cfg(test)]
mod tests {
    use super::{Look, Notice, of_link, step};
    use jiff::{SignedDuration, Timestamp};
    use keeper::wrong::What;
    use std::time::{Duration, Instant};

    fn look(wall: i64, steady: Duration, changes: u32, base: Instant) -> Look {
        let wall = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(wall);
        Look { wall, steady: base + steady, link: Some(("eth0".into(), true, changes)), waited: None }
    }

    #[test]
    fn quiet_looks_notice_nothing_and_others_what_happened() {
        let base = Instant::now();
        let first = look(100, Duration::ZERO, 2, base);
        assert!(look(102, Duration::from_secs(2), 2, base).since(&first).is_empty());
        let flap = look(102, Duration::from_secs(2), 4, base).since(&first);
        assert!(matches!(&flap[..], [Notice::Carrier { changes: 2, .. }]), "{flap:?}");
        let jump = look(3_702, Duration::from_secs(2), 2, base).since(&first);
        assert!(matches!(&jump[..], [Notice::Step { seconds: 3_600, .. }]), "{jump:?}");
        let late = look(110, Duration::from_secs(10), 2, base).since(&first);
        assert!(matches!(&late[..], [Notice::Late { millis: 8_000, .. }]), "{late:?}");
    }

    #[test]
    fn who_was_stopped_did_not_starve() {
        let base = Instant::now();
        let at = |steady: u64, waited: u64| Look {
            waited: Some(Duration::from_secs(waited)),
            ..look(100 + steady as i64, Duration::from_secs(steady), 2, base)
        };
        assert!(at(10, 1).since(&at(0, 1)).is_empty(), "it waited for nothing");
        assert_eq!(at(10, 9).since(&at(0, 1)).len(), 1);
        assert!(super::waited().is_some_and(|waited| waited < Duration::from_secs(3600)));
    }

    #[test]
    fn a_clock_that_was_set_right_again_is_no_news() {
        let at = |seconds: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
        let forward = Notice::Step { at: at(25_210), seconds: 25_200 };
        assert_eq!(step(std::slice::from_ref(&forward), at(25_220)), Some(What::ClockStep { seconds: 25_200 }));
        let back = Notice::Step { at: at(30), seconds: -25_200 };
        assert_eq!(step(&[forward, back], at(40)), None);
    }

    #[test]
    fn changes_of_a_link_are_news_for_five_minutes() {
        let at = |seconds| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
        let change = |seconds| Notice::Carrier { at: at(seconds), link: "eth0".into(), changes: 2, up: true };
        let found = of_link("eth0".into(), true, &[change(0), change(290), change(295)], at(310));
        assert!(matches!(found, What::Link { changes: 4, lost_at: Some(_), .. }), "{found:?}");
    }
}
