//! A shell on a simulated host that knows nothing but the command it is given.
//!
//! A simulated host has no service manager and no clock of its own. The commands that ask these are stand-ins: they pass
//! their words on to the test, which does to the host's processes what the real ones would.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use e2e::{Tool, pause};

const STAND_INS: [&str; 3] = ["systemctl", "chronyc", "timedatectl"];
const POLL: Duration = Duration::from_millis(20);

const STAND_IN: &str = r#"#!/bin/sh
folder=$(dirname "$0")
echo "$(basename "$0") $*" > "$folder/asking"
mv "$folder/asking" "$folder/asked"
while [ ! -e "$folder/answered" ]; do sleep 0.05; done
code=$(cat "$folder/answered")
rm "$folder/answered"
exit "$code"
"#;

pub struct Shell {
    folder: PathBuf,
    path: String,
}

/// How a command ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
}

// === impl Shell ===

impl Shell {
    /// With the stand-ins in a folder of their own, and the folders of further programs.
    pub fn new(folder: PathBuf, programs: &[&Path]) -> anyhow::Result<Shell> {
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        for name in STAND_INS {
            fs::write(folder.join(name), STAND_IN)?;
            Tool::new("chmod").ok(&format!("755 {}", folder.join(name).display()))?;
        }
        let programs: Vec<String> = programs.iter().map(|program| program.display().to_string()).collect();
        let own = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{}:{own}", folder.display(), programs.join(":"));
        Ok(Shell { folder, path })
    }

    /// One that runs nothing, while the other is lent.
    pub fn none(folder: PathBuf) -> Shell {
        Shell { folder, path: String::new() }
    }

    /// Runs the command as it stands. What stand-ins are asked meanwhile is carried out by `act`; `hear` is told all that
    /// was said so far.
    pub fn run(
        &self,
        mut shell: Tool,
        environment: &[(&str, String)],
        command: &str,
        bound: Duration,
        mut act: impl FnMut(&str, &str) -> anyhow::Result<()>,
    ) -> anyhow::Result<Said> {
        let (out, asked, answered) =
            (self.folder.join("said"), self.folder.join("asked"), self.folder.join("answered"));
        // Who asked for a reboot is gone with it, and never read the answer.
        for file in [&asked, &answered].into_iter().filter(|file| file.exists()) {
            fs::remove_file(file)?;
        }
        shell.environment = vec![("PATH".into(), self.path.clone().into())];
        shell.environment.extend(environment.iter().map(|(key, value)| ((*key).into(), value.into())));
        let file = fs::File::create(&out)?;
        let mut child = shell.spawn_to(&["-c", command], file).with_context(|| command.to_owned())?;
        let deadline = Instant::now() + bound;
        loop {
            let said = fs::read_to_string(&out).unwrap_or_default();
            if let Some(status) = child.try_wait()? {
                return Ok(Said { code: status.code(), out: fs::read_to_string(&out).unwrap_or(said) });
            }
            let words = fs::read_to_string(&asked).unwrap_or_default();
            if !words.is_empty() {
                fs::remove_file(&asked)?;
            }
            let acted = act(words.trim(), &said);
            if !words.is_empty() {
                fs::write(&answered, if acted.is_ok() { "0" } else { "1" })?;
            }
            if let Err(error) = acted {
                let _ = child.kill();
                return Err(error).with_context(|| format!("{command}: {said}"));
            }
            if deadline < Instant::now() {
                let _ = child.kill();
                bail!("{command} did not end within {} s: {said}", bound.as_secs());
            }
            pause(POLL);
        }
    }
}
