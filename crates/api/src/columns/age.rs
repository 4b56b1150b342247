//! Times as people read them: `5m30s`, `3d4h`.

use jiff::Timestamp;

use super::UNKNOWN;
use crate::Tree;

/// How long ago a time was.
pub(super) fn since(time: Option<&Tree>, now: Timestamp) -> String {
    let Some(time) = time.and_then(Tree::as_str) else { return UNKNOWN.to_owned() };
    time.parse::<Timestamp>().map_or_else(|_| UNKNOWN.to_owned(), |at| between(at, now))
}

pub(super) fn between(from: Timestamp, to: Timestamp) -> String {
    human_duration(to.as_second() - from.as_second())
}

/// Two units where it is young, one where it is old: the cells of `kubectl get` are narrow.
pub fn human_duration(seconds: i64) -> String {
    let two = |large: i64, unit: char, small: i64, small_unit: char| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit}{small}{small_unit}"),
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => two(days, 'd', hours % 24, 'h'),
        _ if years < 2 => format!("{days}d"),
        _ if years < 8 => two(years, 'y', days % 365, 'd'),
        _ => format!("{years}y"),
    }
}

#[cfg(test)]
mod tests {
    use super::human_duration;

    #[test]
    fn reads_as_upstream_prints() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (330, "5m30s"),
            (600, "10m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (9 * 3600, "9h"),
            (49 * 3600, "2d1h"),
            (8 * 86400 + 3600, "8d"),
            (800 * 86400, "2y70d"),
            (9 * 365 * 86400, "9y"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
