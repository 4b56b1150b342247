//! Log files in the CRI format: `TIME STREAM F|P TEXT`. Reading, following, cutting off; rotation is in `rotate`.
//!
//! Readers never hold a file in memory and never wait for a slow receiver with anything but their own buffer.

pub mod read;
pub mod rotate;

pub use read::{Options, follow, tail_text};

use jiff::Timestamp;

/// One line of a log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub at: Timestamp,
    pub time: &'a [u8],
    pub stderr: bool,
    /// The text goes on in the next line.
    pub partial: bool,
    pub text: &'a [u8],
}

/// A line without its newline; None where it is not in the format.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
    let text = parts.next().unwrap_or_default();
    let at = std::str::from_utf8(time).ok()?.parse().ok()?;
    let stderr = match stream {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    // Tags are joined with colons; the first says whether the line is whole.
    let partial = match tag.split(|byte| *byte == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(Line { at, time, stderr, partial, text })
}
