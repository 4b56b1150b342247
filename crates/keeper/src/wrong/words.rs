//! Numbers as a tired person reads them.

use jiff::{SignedDuration, Timestamp};

/// `6 min ago`, `3 h ago`, `9 days ago`.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", span(now.duration_since(at)))
}

/// `40 s`, `6 min`, `3 h`, `9 days`.
pub fn span(span: SignedDuration) -> String {
    let seconds = span.as_secs().max(0);
    match seconds {
        0..=90 => format!("{seconds} s"),
        91..=5_400 => format!("{} min", seconds / 60),
        5_401..=172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

pub fn bytes(count: u64) -> String {
    match count {
        0..=0xFFFFF => format!("{} KiB", count >> 10),
        0x10_0000..=0x3FFF_FFFF => format!("{} MiB", count >> 20),
        _ => format!("{} GiB", count >> 30),
    }
}

/// `node1, node2 and node3`.
pub fn list<T: AsRef<str>>(names: &[T]) -> String {
    match names {
        [] => String::new(),
        [one] => one.as_ref().to_owned(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", first.join(", "), last.as_ref())
        }
    }
}

/// `day` of a moment.
pub fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}
