//! Source files and a scanner that tells code from comments, strings and tests.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// A Rust file: its text, and the text with comments and literals blanked out (same length, same lines).
pub struct Source {
    pub path: PathBuf,
    pub text: String,
    pub code: String,
}

/// A function and how many lines it spans, from its signature to its closing brace.
pub struct Function {
    pub name: String,
    pub lines: usize,
    pub in_tests: bool,
}

/// All Rust files of the project that git would track.
pub fn all() -> anyhow::Result<Vec<Source>> {
    let mut paths = Vec::new();
    for folder in ["crates", "xtask", "tests", "examples", "fuzz"] {
        collect(Path::new(folder), &mut paths)?;
    }
    paths.sort();
    paths.into_iter().map(read).collect()
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
    Ok(())
}

fn read(path: PathBuf) -> anyhow::Result<Source> {
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let code = blank(&text);
    Ok(Source { path, text, code })
}

// === impl Source ===

impl Source {
    /// Files under a `tests` folder hold nothing but tests.
    pub fn is_test_file(&self) -> bool {
        let mut parts = self.path.components();
        parts.any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs" | "benches")))
    }

    /// Line (0-based) at which the trailing `#[cfg(test)]` module starts, or the number of lines.
    pub fn tests_start(&self) -> usize {
        let lines: Vec<&str> = self.code.lines().collect();
        let at = lines.windows(2).position(|two| {
            two[0].starts_with("#[cfg(test)]") && (two[1].starts_with("mod ") || two[1].starts_with("#["))
        });
        at.unwrap_or(lines.len())
    }

    pub fn functions(&self) -> Vec<Function> {
        let tests_start = self.tests_start();
        let lines: Vec<&str> = self.code.lines().collect();
        let starts = (0..lines.len()).filter_map(|at| Some((at, function_name(lines[at])?)));
        let functions = starts.filter_map(|(at, name)| {
            let length = body_length(&lines[at..])?;
            Some(Function { name, lines: length, in_tests: self.is_test_file() || at >= tests_start })
        });
        functions.collect()
    }
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().peekable();
    while let Some(word) = words.next() {
        match word {
            "pub" | "async" | "const" | "unsafe" | "extern" | "\"C\"" => {}
            word if word.starts_with("pub(") || word == "crate)" || word == "super)" => {}
            "fn" => {
                let name: String = words.next()?.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                return Some(name);
            }
            _ => return None,
        }
    }
    None
}

/// Lines from the signature to the closing brace; None for a signature without a body.
fn body_length(lines: &[&str]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut opened = false;
    for (at, line) in lines.iter().enumerate() {
        for byte in line.bytes() {
            match byte {
                b'{' => {
                    depth += 1;
                    opened = true;
                }
                b'}' => depth = depth.checked_sub(1)?,
                b';' if !opened && !line.contains('[') => return None,
                _ => {}
            }
        }
        if opened && depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

/// Replaces comments, strings and character literals by spaces; keeps line breaks.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => find(bytes, at + 2, b"*/"),
            b'"' => string_end(bytes, at + 1),
            b'r' => raw_string(bytes, at).unwrap_or(at),
            b'\'' => char_end(bytes, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            at += 1;
            continue;
        }
        out[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn line_end(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| from + length)
}

fn find(bytes: &[u8], from: usize, needle: &[u8]) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    let at = rest.windows(needle.len()).position(|window| window == needle);
    at.map_or(bytes.len(), |length| from + length + needle.len())
}

fn string_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// The end of `r"…"` or `r#"…"#` that starts here, if one does.
fn raw_string(bytes: &[u8], at: usize) -> Option<usize> {
    let word_before =
        at > 0 && (bytes[at - 1].is_ascii_alphanumeric() && bytes[at - 1] != b'b' || bytes[at - 1] == b'_');
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    if word_before || bytes.get(at + 1 + hashes) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.extend(std::iter::repeat_n(b'#', hashes));
    Some(find(bytes, at + 2 + hashes, &close))
}

/// The end of a character literal; None for a lifetime.
fn char_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        return Some(find(bytes, at + 3, b"'"));
    }
    let width = std::str::from_utf8(&bytes[at + 1..(at + 5).min(bytes.len())])
        .or_else(|error| std::str::from_utf8(&bytes[at + 1..at + 1 + error.valid_up_to()]))
        .ok()?
        .chars()
        .next()?
        .len_utf8();
    (bytes.get(at + 1 + width) == Some(&b'\'')).then_some(at + 2 + width)
}

#[cfg(test)]
mod tests {
    use super::blank;

    #[test]
    fn blanks_only_what_is_not_code() {
        let code = blank("let a = \"{ // \\\" \"; // }\nlet b = '{'; fn f<'a>() {} r#\"{\"#");
        assert_eq!(code.matches('{').count(), 1, "{code}");
        assert!(code.contains("<'a>") && code.contains('\n'));
    }
}
