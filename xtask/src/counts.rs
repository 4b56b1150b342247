//! Counts what test programs print: the closing lines of Rust's own test programs and of the lanes' runner.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::process::line_of;

/// Cases of a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
}

// === impl Counts ===

impl Counts {
    /// Runs a program to its end, shows what it prints and adds up the cases it counts. Its failure is an error.
    pub fn run(&mut self, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {}", line_of(&command)))?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.with_context(|| format!("read the output of {}", line_of(&command)))?;
            let text = String::from_utf8_lossy(&line);
            self.add(&text);
            writeln!(std::io::stdout(), "{text}").context("write the output")?;
        }
        let status = child.wait().with_context(|| format!("wait for {}", line_of(&command)))?;
        if !status.success() {
            bail!("{} ended with {status}", line_of(&command));
        }
        Ok(())
    }

    /// `test result: ok. 3 passed; 0 failed; …` or `3 passed, 0 failed`.
    fn add(&mut self, line: &str) {
        let counts = match line.strip_prefix("test result: ") {
            Some(rest) => rest.split_once(". ").map_or("", |(_, counts)| counts),
            None if line.starts_with(|c: char| c.is_ascii_digit()) => line,
            None => return,
        };
        let count = |word: &str| {
            let found = counts.split([';', ',']).find_map(|part| part.trim().strip_suffix(word));
            found.and_then(|number| number.trim().parse::<usize>().ok())
        };
        if let (Some(passed), Some(failed)) = (count("passed"), count("failed")) {
            self.passed += passed;
            self.failed += failed;
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn closing_lines_are_added_up() {
        let mut counts = Counts::default();
        for line in [
            "running 4 tests",
            "test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.01s",
            "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s",
            "case kubectl_watch                                    ok 1.2 s",
            "27 passed, 1 failed",
            "2301 cells held over 90 resources",
        ] {
            counts.add(line);
        }
        assert_eq!(counts, Counts { passed: 33, failed: 4 });
        assert_eq!(counts.to_string(), "33 passed, 4 failed");
    }
}
