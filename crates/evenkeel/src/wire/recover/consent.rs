//! The code that a person copies from what a command would do to the command that does it. It holds for what was shown,
//! and for some minutes; nothing of it is kept.

use jiff::Timestamp;

use crate::pki::sha256_hex;

/// A code holds for this long at least, and for twice as long at most.
pub const HOLDS_SECONDS: i64 = 600;
/// Nobody guesses here: it keeps a person from doing what they have not read.
const CODE_CHARACTERS: usize = 8;

/// The code for what is shown now.
pub fn code(subject: &[&str], now: Timestamp) -> String {
    at(subject, now.as_second().div_euclid(HOLDS_SECONDS))
}

/// Whether a code was shown for just this, not long ago.
pub fn holds(code: &str, subject: &[&str], now: Timestamp) -> bool {
    let slot = now.as_second().div_euclid(HOLDS_SECONDS);
    [slot, slot - 1].iter().any(|slot| at(subject, *slot) == code)
}

fn at(subject: &[&str], slot: i64) -> String {
    // Lengths, so that no two subjects read the same.
    let parts: Vec<String> = subject.iter().map(|part| format!("{}:{part}", part.len())).collect();
    sha256_hex(format!("{slot} {}", parts.join(" ")).as_bytes())[..CODE_CHARACTERS].to_owned()
}

#[cfg(test)]
mod tests {
    use super::{HOLDS_SECONDS, code, holds};
    use jiff::{SignedDuration, Timestamp};

    #[test]
    fn a_code_holds_for_what_was_shown_and_for_some_minutes() {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1);
        let later = |seconds: i64| now + SignedDuration::from_secs(seconds);
        let subject = ["cluster", "node", "17"];
        let code = code(&subject, now);
        assert!(holds(&code, &subject, now) && holds(&code, &subject, later(HOLDS_SECONDS)));
        assert!(!holds(&code, &subject, later(2 * HOLDS_SECONDS)));
        assert!(!holds(&code, &["cluster", "node", "18"], now), "the state went on");
        assert!(!holds(&code, &["clustern", "ode", "17"], now));
    }
}
