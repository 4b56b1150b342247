//! When the next bundle is due: every so often, or at the times of a cron line.

use std::fmt;
use std::str::FromStr;

use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// The first bundle of a cluster waits so long after its start, so that it holds more than an empty one: well within the
/// five minutes after which a cluster shall have a backup.
pub const FIRST_AFTER: SignedDuration = SignedDuration::from_secs(120);

/// Texts: `off`, a span as `6h`, `90m`, `30s` or `7d`, or five fields of cron in UTC.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    Off,
    Every(SignedDuration),
    Cron { line: String, cron: Box<Cron> },
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no schedule: it reads off, a span as 6h, or a cron line as \"0 */6 * * *\"")]
pub struct ScheduleError(pub String);

// === impl Schedule ===

impl Schedule {
    /// When the next is due, by the last one and by when this server started; None where never.
    pub fn due(&self, last: Option<Timestamp>, started: Timestamp) -> Option<Timestamp> {
        match (self, last) {
            (Schedule::Off, _) => None,
            (Schedule::Every(span), Some(last)) => Some(last + *span),
            (Schedule::Every(span), None) => Some(started + FIRST_AFTER.min(*span)),
            (Schedule::Cron { .. }, None) => Some(started + FIRST_AFTER),
            (Schedule::Cron { cron, .. }, Some(last)) => {
                let next = cron.find_next_occurrence(&last.to_zoned(TimeZone::UTC), false);
                next.ok().map(|next| next.timestamp())
            }
        }
    }

    /// When two have been missed since the last one.
    pub fn overdue_after(&self, last: Timestamp, started: Timestamp) -> Option<Timestamp> {
        self.due(self.due(Some(last), started), started)
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Schedule, ScheduleError> {
        let text = text.trim();
        if text == "off" {
            return Ok(Schedule::Off);
        }
        if text.contains(' ') {
            let cron: Cron = text.parse().map_err(|_| ScheduleError(text.to_owned()))?;
            return Ok(Schedule::Cron { line: text.to_owned(), cron: Box::new(cron) });
        }
        let span = || {
            let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
            let seconds = match unit {
                "s" => 1,
                "m" => 60,
                "h" => 3600,
                "d" => 86_400,
                _ => return None,
            };
            let seconds = count.parse::<u32>().ok().filter(|count| *count > 0)?.checked_mul(seconds)?;
            Some(SignedDuration::from_secs(i64::from(seconds)))
        };
        span().map(Schedule::Every).ok_or_else(|| ScheduleError(text.to_owned()))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::Off => f.write_str("off"),
            Schedule::Cron { line, .. } => f.write_str(line),
            Schedule::Every(span) => match span.as_secs() {
                seconds if seconds % 86_400 == 0 => write!(f, "{}d", seconds / 86_400),
                seconds if seconds % 3600 == 0 => write!(f, "{}h", seconds / 3600),
                seconds if seconds % 60 == 0 => write!(f, "{}m", seconds / 60),
                seconds => write!(f, "{seconds}s"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;
    use jiff::Timestamp;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_comes_soon_and_the_next_in_time() {
        let started = at("2026-01-01T00:00:00Z");
        let due = |text: &str, last| text.parse::<Schedule>().unwrap().due(last, started);
        assert_eq!(due("6h", None), Some(at("2026-01-01T00:02:00Z")));
        assert_eq!(due("5s", None), Some(at("2026-01-01T00:00:05Z")));
        assert_eq!(due("6h", Some(started)), Some(at("2026-01-01T06:00:00Z")));
        assert_eq!(due("0 */12 * * *", Some(started)), Some(at("2026-01-01T12:00:00Z")));
        assert_eq!(due("0 */12 * * *", None), Some(at("2026-01-01T00:02:00Z")));
        assert_eq!(due("off", Some(started)), None);
        let overdue = |text: &str| text.parse::<Schedule>().unwrap().overdue_after(started, started);
        assert_eq!(overdue("6h"), Some(at("2026-01-01T12:00:00Z")));
        assert_eq!(overdue("0 */12 * * *"), Some(at("2026-01-02T00:00:00Z")));
        assert_eq!(overdue("off"), None);
    }

    #[test]
    fn texts_come_back_and_nonsense_does_not() {
        for text in ["off", "6h", "7d", "90s", "5m", "0 */6 * * *"] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), text);
        }
        for text in ["", "6", "h", "-6h", "0h", "6w", "every day at noon", "61 * * * *"] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }
}
