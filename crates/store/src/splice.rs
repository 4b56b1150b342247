//! Where `resourceVersion` goes in a stored document, and putting it there.
//!
//! The stored form has no resourceVersion, because it is not known before the commit. The served form has it as the first
//! member of `metadata`. The place is found by a scan that skips strings and counts brackets: the bytes are our own
//! canonical JSON, so nothing else needs to be understood.

use base::Revision;
use bytes::Bytes;

const MEMBER: &[u8] = br#""resourceVersion":""#;

/// The offset just after the `{` of the top-level `metadata` object.
pub(crate) fn metadata_offset(document: &[u8]) -> Option<usize> {
    const NAME: &[u8] = br#""metadata":{"#;
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = document.get(at) {
        match byte {
            b'"' if depth == 1 && document[at..].starts_with(NAME) => return Some(at + NAME.len()),
            b'"' => at = string_end(document, at)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at += 1;
    }
    None
}

/// The offset of the quote that ends the string whose first quote is at `start`.
fn string_end(document: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match document.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The served form: `document` with the revision at `offset`.
pub(crate) fn splice(document: &[u8], offset: usize, revision: Revision) -> Bytes {
    let digits = revision.to_string();
    let (head, tail) = document.split_at(offset);
    let more = tail.first() != Some(&b'}');
    let mut served = Vec::with_capacity(document.len() + MEMBER.len() + digits.len() + 2);
    served.extend_from_slice(head);
    served.extend_from_slice(MEMBER);
    served.extend_from_slice(digits.as_bytes());
    served.push(b'"');
    if more {
        served.push(b',');
    }
    served.extend_from_slice(tail);
    served.into()
}

/// The stored form of a served document: `splice` undone.
pub(crate) fn unsplice(served: &[u8]) -> Option<Vec<u8>> {
    let (offset, end) = revision_span(served)?;
    let mut stored = Vec::with_capacity(served.len());
    stored.extend_from_slice(&served[..offset]);
    stored.extend_from_slice(&served[end..]);
    Some(stored)
}

/// A served document with another revision.
pub(crate) fn resplice(served: &[u8], revision: Revision) -> Option<Bytes> {
    let (offset, _) = revision_span(served)?;
    let stored = unsplice(served)?;
    Some(splice(&stored, offset, revision))
}

/// Start and end of the spliced member, its comma included.
fn revision_span(served: &[u8]) -> Option<(usize, usize)> {
    let offset = metadata_offset(served)?;
    if !served[offset..].starts_with(MEMBER) {
        return None;
    }
    let mut end = string_end(served, offset + MEMBER.len() - 1)? + 1;
    if served.get(end) == Some(&b',') {
        end += 1;
    }
    Some((offset, end))
}

#[cfg(test)]
mod tests {
    use super::{metadata_offset, resplice, splice, unsplice};
    use base::Revision;

    fn check(document: &str, served: &str) {
        let offset = metadata_offset(document.as_bytes()).unwrap();
        let bytes = splice(document.as_bytes(), offset, Revision(7));
        assert_eq!(bytes, served.as_bytes());
        assert_eq!(unsplice(&bytes).unwrap(), document.as_bytes());
        let again = resplice(&bytes, Revision(12)).unwrap();
        assert_eq!(again, served.replace("\"7\"", "\"12\"").as_bytes());
    }

    #[test]
    fn the_revision_is_the_first_member_of_metadata() {
        check(r#"{"metadata":{"name":"a"}}"#, r#"{"metadata":{"resourceVersion":"7","name":"a"}}"#);
        check(r#"{"metadata":{}}"#, r#"{"metadata":{"resourceVersion":"7"}}"#);
    }

    #[test]
    fn only_the_top_level_metadata_counts() {
        check(
            r#"{"data":{"metadata":{},"x":"\"metadata\":{\\"},"metadata":{"name":"a"},"spec":{"template":{"metadata":{}}}}"#,
            r#"{"data":{"metadata":{},"x":"\"metadata\":{\\"},"metadata":{"resourceVersion":"7","name":"a"},"spec":{"template":{"metadata":{}}}}"#,
        );
        for none in [r#"{"data":{"metadata":{}}}"#, "[]", "", r#"{"metadata":null}"#, r#"{"a":"cut"#, "}}"] {
            assert_eq!(metadata_offset(none.as_bytes()), None, "{none}");
        }
    }
}
