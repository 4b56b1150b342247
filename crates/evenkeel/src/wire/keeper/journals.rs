//! The copies of journals on a machine's own disk: `<data>/keeper/journal/<run>.jsonl`, readable when nothing runs.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::Lines;
use crate::layout::Layout;

/// Runs whose journals are kept.
pub const RUNS_MAX: usize = 20;
const NAME_BYTES_MAX: usize = 63;

pub struct Journals {
    folder: PathBuf,
}

// === impl Journals ===

impl Journals {
    pub fn new(layout: &Layout) -> Journals {
        Journals { folder: layout.keeper().join("journal") }
    }

    /// Adds lines, durably, where they follow what is here. Answers how many there are then: who sends knows from it what
    /// is missing.
    pub fn append(&self, lines: &Lines) -> Result<usize> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let named = !lines.run.is_empty() && lines.run.len() <= NAME_BYTES_MAX && lines.run.bytes().all(plain);
        ensure!(named, "{:?} is no run", lines.run);
        ensure!(lines.text.is_empty() || lines.text.ends_with('\n'), "the last line has no end");
        fs::create_dir_all(&self.folder).with_context(|| format!("make {}", self.folder.display()))?;
        let path = self.path(&lines.run);
        let new = !path.exists();
        let here = fs::read_to_string(&path).unwrap_or_default();
        // What a power cut tore was never acknowledged.
        let whole = here.rfind('\n').map_or(0, |end| end + 1);
        let count = here[..whole].matches('\n').count();
        if count != lines.after || lines.text.is_empty() {
            return Ok(count);
        }
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        file.set_len(whole as u64)?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0))?;
        file.write_all(lines.text.as_bytes())?;
        file.sync_all()?;
        if new {
            fs::File::open(&self.folder)?.sync_all()?;
            self.prune()?;
        }
        Ok(count + lines.text.matches('\n').count())
    }

    /// Names of runs, the oldest first.
    pub fn runs(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().strip_suffix(".jsonl").map(str::to_owned);
        let mut runs: Vec<String> = entries.filter_map(name).collect();
        // Numbers grow in length before they grow in digits.
        runs.sort_by_key(|run| (run.len(), run.clone()));
        runs
    }

    pub fn read(&self, run: &str) -> Result<String> {
        let path = self.path(run);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    fn path(&self, run: &str) -> PathBuf {
        self.folder.join(format!("{run}.jsonl"))
    }

    fn prune(&self) -> Result<()> {
        let runs = self.runs();
        for run in &runs[..runs.len().saturating_sub(RUNS_MAX)] {
            fs::remove_file(self.path(run))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Journals, Lines, RUNS_MAX};
    use crate::layout::Layout;

    #[test]
    fn lines_follow_each_other_and_a_torn_one_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let journals = Journals::new(&layout);
        let lines = |after, text: &str| Lines { run: "run-2".into(), after, text: text.into() };
        assert_eq!(journals.append(&lines(0, "a\n")).unwrap(), 1);
        assert_eq!(journals.append(&lines(2, "c\n")).unwrap(), 1, "a line is missing");
        assert_eq!(journals.append(&lines(0, "a\n")).unwrap(), 1, "the same again changes nothing");
        let path = layout.keeper().join("journal/run-2.jsonl");
        std::fs::write(&path, "a\nb").unwrap();
        assert_eq!(journals.append(&lines(1, "b\nc\n")).unwrap(), 3);
        assert_eq!(journals.read("run-2").unwrap(), "a\nb\nc\n");
        assert!(journals.append(&Lines { run: "../x".into(), after: 0, text: "a\n".into() }).is_err());
    }

    #[test]
    fn the_oldest_runs_go() {
        let folder = tempfile::tempdir().unwrap();
        let journals = Journals::new(&Layout::new(folder.path()));
        for number in 1..=RUNS_MAX + 5 {
            journals.append(&Lines { run: format!("run-{number}"), after: 0, text: "a\n".into() }).unwrap();
        }
        let runs = journals.runs();
        assert_eq!((runs.len(), runs[0].as_str()), (RUNS_MAX, "run-6"));
    }
}
