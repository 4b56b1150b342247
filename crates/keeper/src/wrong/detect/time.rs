//! Clocks and certificates.

use jiff::{SignedDuration, Timestamp};

use super::Detector;
use crate::wrong::fact::{Fact, Facts, What};
use crate::wrong::finding::Finding;
use crate::wrong::table::time::{CA_EXPIRING, CERT_EXPIRED, CERT_EXPIRING, CLOCK_JUMP, CLOCK_SKEW};
use crate::wrong::words::{day, span};

pub const ALL: [Detector; 3] = [offsets, steps, certificates];

/// Difference of two clocks that is told.
const OFFSET_MILLIS_MAX: u64 = 500;
const STEP_SECONDS_MAX: u64 = 5;
/// A certificate is renewed when it is due; this much later nobody did. A tenth of the time left where that is less.
const RENEWAL_LATE: SignedDuration = SignedDuration::from_hours(2);
/// An authority is spoken of a year ahead.
const AUTHORITY_AHEAD: SignedDuration = SignedDuration::from_hours(365 * 24);

fn offsets(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| match fact.what {
        What::ClockOffset { millis } if OFFSET_MILLIS_MAX < millis.unsigned_abs() => {
            let direction = if 0 < millis { "ahead" } else { "behind" };
            let offset = format!("{}.{} s", millis.unsigned_abs() / 1000, millis.unsigned_abs() % 1000 / 100);
            let words = format!("{}: {} is {offset} {direction}", fact.by, fact.about);
            let finding = Finding::of_node(&CLOCK_SKEW, &fact.about).with("direction", direction).with("by", &fact.by);
            Some(finding.with("offset", offset).seen(fact, words))
        }
        _ => None,
    };
    facts.others().filter_map(find).collect()
}

fn steps(facts: &Facts, _now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| match fact.what {
        What::ClockStep { seconds } if STEP_SECONDS_MAX < seconds.unsigned_abs() => {
            let direction = if 0 < seconds { "forward" } else { "back" };
            let step = format!("{} {direction}", span(SignedDuration::from_secs(seconds.abs())));
            let words = format!("{}: its wall clock moved {step} against the time since boot", fact.by);
            Some(Finding::of_node(&CLOCK_JUMP, &fact.about).with("step", step).seen(fact, words))
        }
        _ => None,
    };
    facts.own().filter_map(find).collect()
}

fn certificates(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    let find = |fact: &Fact| {
        let What::Certificate { name, ends, due, authority } = &fact.what else { return None };
        let (left, late) = (ends.duration_since(now), now.duration_since(*due));
        let ends_at = ends.strftime("%Y-%m-%d %H:%MZ");
        let found = |code| {
            let finding = Finding::of_node(code, &fact.about).with("name", name).with("left", span(left));
            Some(finding.seen(fact, format!("{}: {name} ends {ends_at}", fact.by)))
        };
        let tolerated = RENEWAL_LATE.min(ends.duration_since(*due) / 10);
        match authority {
            _ if left <= SignedDuration::ZERO => {
                found(&CERT_EXPIRED).map(|finding| finding.with("ended", span(-left)).since(Some(*ends)))
            }
            true if left < AUTHORITY_AHEAD => found(&CA_EXPIRING).map(|finding| finding.with("day", day(*ends))),
            false if tolerated < late => found(&CERT_EXPIRING).map(|finding| finding.with("late", span(late))),
            _ => None,
        }
    };
    facts.own().filter_map(find).collect()
}
