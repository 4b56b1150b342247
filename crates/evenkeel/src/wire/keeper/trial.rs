//! A program on trial: it runs in the place of the installed one, until it is confirmed or found not to get well.
//!
//! The installed program stays what the machine starts with. Whenever it starts while a trial is open, it counts the start
//! and becomes the program on trial; after [`STARTS_MAX`] starts, or when the time is over, it ends the trial and stays
//! itself. A process of the old program ([`super::watch`]) looks on meanwhile, for a program that hangs, and for
//! machines without a service manager. Only a program that was confirmed takes the installed one's place.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base::Clock;
use jiff::Timestamp;
use keeper::Runs;
use serde::{Deserialize, Serialize};

use super::{Fell, Home};
use crate::wire::SystemClock;

/// A program that was started so often and never got well does not.
pub const STARTS_MAX: u32 = 3;

/// In the environment of what runs on trial: the attempt that it is.
const ON_TRIAL: &str = "EVENKEEL_ON_TRIAL";

/// An open trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    pub attempt: u64,
    pub to: Runs,
    pub from: Runs,
    /// The program on trial.
    pub program: PathBuf,
    /// The one that ran before, kept.
    pub previous: PathBuf,
    /// What this machine starts with.
    pub installed: PathBuf,
    pub until: Timestamp,
    pub starts: u32,
}

/// What the installed program does about a trial when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Become the program on trial; this start is counted.
    Try {
        starts: u32,
    },
    GiveUp {
        why: String,
    },
    /// This is the program on trial.
    Stay,
}

// === impl Trial ===

impl Trial {
    /// `attempt`: the one that this process is, if it is on trial.
    pub fn choose(&self, attempt: Option<u64>, now: Timestamp) -> Choice {
        if attempt == Some(self.attempt) {
            return Choice::Stay;
        }
        if self.until <= now {
            return Choice::GiveUp { why: "its time was over before it was well".to_owned() };
        }
        if STARTS_MAX <= self.starts {
            return Choice::GiveUp { why: format!("it was started {} times and did not get well", self.starts) };
        }
        Choice::Try { starts: self.starts + 1 }
    }

    /// Whether this process is what is on trial.
    pub fn is_this(&self) -> bool {
        on_trial() == Some(self.attempt)
    }

    /// What the program on trial has in its environment beside that of the program before.
    pub fn mark(&self) -> (&'static str, String) {
        (ON_TRIAL, self.attempt.to_string())
    }

    /// Ends the trial: what is installed is what runs from the next start on.
    pub fn give_up(&self, home: &Home, why: &str) -> Result<()> {
        let (attempt, runs, at) = (self.attempt, self.to.clone(), SystemClock.now());
        home.set_fell(&Fell { attempt, runs, why: why.to_owned(), at })?;
        home.end_trial()
    }

    /// It was confirmed: the program takes the installed one's place, and its settings are the machine's.
    pub fn settle(&self, home: &Home) -> Result<()> {
        if self.to.release != self.from.release {
            replace(&self.installed, &self.program)?;
        }
        home.set_settings(&self.to.settings)?;
        home.end_trial()
    }
}

/// The attempt that this process is, if it was started as one.
pub fn on_trial() -> Option<u64> {
    std::env::var(ON_TRIAL).ok()?.parse().ok()
}

/// Puts a copy of `program` where `installed` is, whole or not at all. Who runs the old one keeps running it.
fn replace(installed: &Path, program: &Path) -> Result<()> {
    let beside = beside(installed)?;
    let put = || {
        fs::copy(program, &beside)?;
        File::open(&beside)?.sync_all()?;
        fs::rename(&beside, installed)?;
        File::open(installed.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    put().with_context(|| format!("replace {}", installed.display()))
}

/// Says why the installed program could not be replaced, if so.
pub fn fixed(installed: &Path) -> Option<String> {
    let folder = installed.parent().unwrap_or(Path::new("/"));
    let probe = rustix::fs::access(folder, rustix::fs::Access::WRITE_OK);
    probe.err().map(|error| format!("{} cannot be replaced: {error}", installed.display()))
}

fn beside(installed: &Path) -> Result<PathBuf> {
    let name = installed.file_name().context("a program has a name")?.to_string_lossy().into_owned();
    Ok(installed.with_file_name(format!(".{name}.new")))
}

#[cfg(test)]
mod tests {
    use super::{Choice, Fell, Trial};
    use crate::layout::Layout;
    use crate::wire::keeper::Home;
    use jiff::{SignedDuration, Timestamp};
    use keeper::{Digest, Release, Runs, Settings};
    use std::path::Path;

    fn trial(folder: &Path) -> Trial {
        let runs = |text: &str, words: &[(&str, &str)]| {
            let words = words.iter().map(|(key, word)| ((*key).into(), vec![(*word).into()])).collect();
            let release = Release { version: "0.1.0".into(), program: Digest::of_bytes(text.as_bytes()) };
            Runs { release, settings: Settings::new(words).unwrap() }
        };
        Trial {
            attempt: 4,
            to: runs("new", &[("debug", "true")]),
            from: runs("old", &[]),
            program: folder.join("new"),
            previous: folder.join("old"),
            installed: folder.join("evenkeel"),
            until: Timestamp::UNIX_EPOCH + SignedDuration::from_secs(90),
            starts: 0,
        }
    }

    #[test]
    fn a_trial_has_few_starts_and_an_end() {
        let mut trial = trial(Path::new("/x"));
        let now = Timestamp::UNIX_EPOCH;
        for start in 1..=3 {
            assert_eq!(trial.choose(None, now), Choice::Try { starts: start });
            trial.starts = start;
        }
        assert!(matches!(trial.choose(None, now), Choice::GiveUp { .. }));
        assert_eq!(trial.choose(Some(4), now), Choice::Stay);
        assert!(matches!(trial.choose(Some(3), now), Choice::GiveUp { .. }), "an earlier attempt is none");
        trial.starts = 0;
        assert!(matches!(trial.choose(None, trial.until), Choice::GiveUp { .. }));
    }

    #[test]
    fn what_is_confirmed_takes_the_place_and_what_fell_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(&Layout::new(folder.path()));
        let trial = trial(folder.path());
        std::fs::write(&trial.installed, "old").unwrap();
        std::fs::write(&trial.program, "new").unwrap();
        assert_eq!(super::fixed(&trial.installed), None);
        home.set_trial(&trial).unwrap();
        trial.give_up(&home, "it is broken").unwrap();
        assert_eq!(home.trial().unwrap(), None);
        assert!(matches!(home.fell().unwrap(), Some(Fell { attempt: 4, .. })));
        assert_eq!(std::fs::read_to_string(&trial.installed).unwrap(), "old");
        assert!(home.settings().unwrap().is_empty());
        home.set_trial(&trial).unwrap();
        trial.settle(&home).unwrap();
        assert_eq!((home.trial().unwrap(), std::fs::read_to_string(&trial.installed).unwrap().as_str()), (None, "new"));
        assert_eq!(home.settings().unwrap(), trial.to.settings);
        assert!(super::fixed(Path::new("/nowhere/evenkeel")).is_some());
    }
}
