//! When changes may be made: weekly spans that people declared, in their own time zone.
//!
//! A node is begun only where it can be finished: what it takes, and the way back, must fit before the window closes. What
//! was begun may go on beyond it. Without a declared window it is always the time.

use std::fmt;

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp, Zoned};

/// Windows of one cluster.
const WINDOWS_MAX: usize = 32;
/// The next opening is looked for this many days ahead: each weekday comes within a week, even where a change of the clock
/// swallows one.
const DAYS_AHEAD: i64 = 15;

/// `Tue,Thu 21:00-23:30 Europe/Berlin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    days: Vec<Weekday>,
    from: Time,
    to: Time,
    zone: TimeZone,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows(Vec<Window>);

/// What a window says about something that takes time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may begin.
    Open,
    /// It begins in the window that opens then.
    Later(Timestamp),
    /// No window is as long as it takes.
    Never,
}

/// Why a text is no window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    #[error("{text:?} is no window: write it as `Tue,Thu 21:00-23:30 Europe/Berlin`")]
    Shape { text: String },
    #[error("{name:?} is no time zone that this machine knows")]
    Zone { name: String },
    #[error("more than {WINDOWS_MAX} windows")]
    TooMany,
}

// === impl Window ===

impl Window {
    /// `zone` gives a time zone by its name: where those come from is not known here.
    ///
    /// # Errors
    /// Where it is not `DAYS HH:MM-HH:MM ZONE`.
    pub fn parse(text: &str, zone: impl Fn(&str) -> Option<TimeZone>) -> Result<Window, WindowError> {
        let shape = || WindowError::Shape { text: text.to_owned() };
        let mut words = text.split_whitespace();
        let (Some(days), Some(hours), Some(name), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(shape());
        };
        let days = days.split(',').map(day).collect::<Option<Vec<Weekday>>>().ok_or_else(shape)?;
        let (from, to) = hours.split_once('-').ok_or_else(shape)?;
        let time = |text: &str| text.parse::<Time>().map_err(|_| shape());
        let (from, to) = (time(from)?, time(to)?);
        if from == to {
            return Err(shape());
        }
        let zone = zone(name).ok_or_else(|| WindowError::Zone { name: name.to_owned() })?;
        Ok(Window { days, from, to, zone })
    }

    /// From when to when it is open, of all openings that are not over, the first.
    fn next(&self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        // One that began yesterday may last into today.
        let first = now.to_zoned(self.zone.clone()).checked_sub(Span::new().days(1)).ok()?;
        (0..DAYS_AHEAD).find_map(|ahead| {
            let day = first.checked_add(Span::new().days(ahead)).ok()?;
            let (opens, closes) = self.on(&day)?;
            (now < closes).then_some((opens, closes))
        })
    }

    fn on(&self, day: &Zoned) -> Option<(Timestamp, Timestamp)> {
        if !self.days.contains(&day.weekday()) {
            return None;
        }
        let date = day.date();
        let last = if self.to < self.from { date.tomorrow().ok()? } else { date };
        let at = |date: jiff::civil::Date, time: Time| {
            Some(date.to_datetime(time).to_zoned(self.zone.clone()).ok()?.timestamp())
        };
        let (opens, closes) = (at(date, self.from)?, at(last, self.to)?);
        (opens < closes).then_some((opens, closes))
    }
}

fn day(text: &str) -> Option<Weekday> {
    let days = [
        ("Mon", Weekday::Monday),
        ("Tue", Weekday::Tuesday),
        ("Wed", Weekday::Wednesday),
        ("Thu", Weekday::Thursday),
        ("Fri", Weekday::Friday),
        ("Sat", Weekday::Saturday),
        ("Sun", Weekday::Sunday),
    ];
    days.into_iter().find(|(name, _)| *name == text).map(|(_, day)| day)
}

// === impl Windows ===

impl Windows {
    /// # Errors
    /// At the first text that is no window.
    pub fn parse<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        zone: impl Fn(&str) -> Option<TimeZone>,
    ) -> Result<Windows, WindowError> {
        let windows = texts.into_iter().map(|text| Window::parse(text, &zone)).collect::<Result<Vec<Window>, _>>()?;
        if WINDOWS_MAX < windows.len() { Err(WindowError::TooMany) } else { Ok(Windows(windows)) }
    }

    /// Whether something may begin now that takes so long at worst.
    pub fn allow(&self, now: Timestamp, takes: SignedDuration) -> Verdict {
        if self.0.is_empty() {
            return Verdict::Open;
        }
        let mut best: Option<Timestamp> = None;
        for window in &self.0 {
            let mut from = now;
            while let Some((opens, closes)) = window.next(from) {
                let begins = opens.max(now);
                if takes <= closes.duration_since(begins) {
                    best = Some(best.map_or(begins, |best| best.min(begins)));
                    break;
                }
                if SignedDuration::from_hours(24 * DAYS_AHEAD) < closes.duration_since(now) {
                    break;
                }
                from = closes;
            }
        }
        match best {
            Some(begins) if begins <= now => Verdict::Open,
            Some(begins) => Verdict::Later(begins),
            None => Verdict::Never,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Open => f.write_str("a window is open"),
            Verdict::Later(opens) => {
                write!(f, "a window that is long enough opens at {}", opens.strftime("%Y-%m-%d %H:%MZ"))
            }
            Verdict::Never => f.write_str("no declared window is long enough"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Central European time, with its change in spring: the zones of the machine that tests run on are not asked.
    fn zone(name: &str) -> Option<TimeZone> {
        match name {
            "UTC" => Some(TimeZone::UTC),
            "Europe/Berlin" => TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").ok(),
            _ => None,
        }
    }

    fn check(windows: &[&str], now: &str, minutes: i64) -> String {
        let windows = Windows::parse(windows.iter().copied(), zone).unwrap();
        windows.allow(now.parse().unwrap(), SignedDuration::from_mins(minutes)).to_string()
    }

    #[test]
    fn what_fits_may_begin() {
        let week = ["Tue,Thu 21:00-23:30 UTC"];
        // 2026-05-05 is a Tuesday.
        assert_eq!(check(&week, "2026-05-05T21:10:00Z", 20), "a window is open");
        assert_eq!(check(&week, "2026-05-05T23:20:00Z", 20), "a window that is long enough opens at 2026-05-07 21:00Z");
        assert_eq!(check(&week, "2026-05-08T12:00:00Z", 20), "a window that is long enough opens at 2026-05-12 21:00Z");
        assert_eq!(check(&week, "2026-05-05T21:10:00Z", 200), "no declared window is long enough");
        assert_eq!(check(&[], "2026-05-05T21:10:00Z", 9_000), "a window is open", "none is declared");
    }

    #[test]
    fn a_night_is_one_window_and_the_longer_of_two_takes_what_is_long() {
        assert_eq!(check(&["Sat 22:00-02:00 UTC"], "2026-05-10T01:00:00Z", 30), "a window is open");
        let two = ["Mon 20:00-20:30 UTC", "Fri 20:00-23:00 UTC"];
        assert_eq!(check(&two, "2026-05-04T12:00:00Z", 60), "a window that is long enough opens at 2026-05-08 20:00Z");
    }

    #[test]
    fn the_change_of_the_clock_shortens_a_night() {
        // On 2026-03-29 the clock goes from 02:00 to 03:00: this night has two hours, not three.
        let night = ["Sun 01:00-04:00 Europe/Berlin"];
        assert_eq!(
            check(&night, "2026-03-28T12:00:00Z", 120),
            "a window that is long enough opens at 2026-03-29 00:00Z"
        );
        assert_eq!(
            check(&night, "2026-03-28T12:00:00Z", 150),
            "a window that is long enough opens at 2026-04-04 23:00Z"
        );
    }

    #[test]
    fn what_is_no_window_says_how_one_looks() {
        for bad in ["", "Tue 21:00-21:00 UTC", "Someday 21:00-22:00 UTC", "Tue 21:00 UTC", "Tue 21:00-22:00"] {
            assert!(matches!(Window::parse(bad, zone), Err(WindowError::Shape { .. })), "{bad}");
        }
        let said = Window::parse("Tue 21:00-22:00 Mars/Olympus", zone).unwrap_err().to_string();
        assert_eq!(said, "\"Mars/Olympus\" is no time zone that this machine knows");
    }
}
