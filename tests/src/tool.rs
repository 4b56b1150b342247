//! A foreign command-line client and what it printed.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::wait::eventually;

/// How long news may be on their way.
const TELLS_BOUND: Duration = Duration::from_secs(30);
/// Longer than any call may take: one that hangs must not hang the lane.
pub(crate) const CALL_BOUND: Duration = Duration::from_secs(900);

/// A program with leading arguments and environment: `kubectl --kubeconfig …`.
#[derive(Clone, Debug)]
pub struct Tool {
    pub program: PathBuf,
    pub leading: Vec<OsString>,
    pub environment: Vec<(OsString, OsString)>,
}

/// How one call ended.
#[derive(Debug)]
pub struct Transcript {
    pub line: String,
    pub success: bool,
    /// Its exit code; -1 where a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

// === impl Tool ===

impl Tool {
    pub fn new(program: impl AsRef<Path>) -> Tool {
        Tool { program: program.as_ref().to_path_buf(), leading: Vec::new(), environment: Vec::new() }
    }

    /// This kubectl with a namespace of the case's own, made anew.
    pub fn namespaced(mut self, name: &str) -> anyhow::Result<Tool> {
        self.ok(&format!("create namespace {name}"))?;
        self.leading.push(format!("--namespace={name}").into());
        Ok(self)
    }

    /// Runs to the end and requires success; returns standard output. Words are split at spaces.
    pub fn ok(&self, words: &str) -> anyhow::Result<String> {
        self.call(&split(words), "")?.succeeded()
    }

    /// As [`Tool::ok`], with separate arguments.
    pub fn ok_with(&self, words: &[&str]) -> anyhow::Result<String> {
        self.call(words, "")?.succeeded()
    }

    /// As [`Tool::ok`], with standard input.
    pub fn ok_fed(&self, words: &str, input: &str) -> anyhow::Result<String> {
        self.call(&split(words), input)?.succeeded()
    }

    /// As [`Tool::ok_with`], with standard input.
    pub fn ok_with_input(&self, words: &[&str], input: &str) -> anyhow::Result<String> {
        self.call(words, input)?.succeeded()
    }

    /// Asks until the output holds all of these: events are written after what they tell.
    pub fn tells(&self, words: &str, wanted: &[&str]) -> anyhow::Result<()> {
        eventually(words, TELLS_BOUND, || {
            let said = self.ok(words)?;
            let missing: Vec<&&str> = wanted.iter().filter(|text| !said.contains(**text)).collect();
            ensure!(missing.is_empty(), "{missing:?} is not in {said}");
            Ok(())
        })
    }

    /// Runs to the end, however it ends.
    pub fn call(&self, words: &[&str], input: &str) -> anyhow::Result<Transcript> {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let line = format!("{command:?}");
        let mut child = command.spawn().with_context(|| format!("start {line}"))?;
        let mut stdin = child.stdin.take().context("standard input is piped")?;
        // A program that exits without reading is fine: its own exit tells.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = wait(child).with_context(|| format!("wait for {line}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (success, code) = (output.status.success(), output.status.code().unwrap_or(-1));
        Ok(Transcript { line, success, code, stdout: text(&output.stdout), stderr: text(&output.stderr) })
    }

    /// Starts and leaves running; all three standard streams are piped to the caller.
    pub fn spawn(&self, words: &str) -> anyhow::Result<Child> {
        self.spawn_with(&split(words))
    }

    /// As [`Tool::spawn`], with separate arguments.
    pub fn spawn_with(&self, words: &[&str]) -> anyhow::Result<Child> {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().with_context(|| format!("start {command:?}"))
    }

    /// Starts and leaves running; what it says goes into a file.
    pub fn spawn_to(&self, words: &[&str], out: File) -> anyhow::Result<Child> {
        let mut command = self.command(words);
        command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
        command.spawn().with_context(|| format!("start {command:?}"))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.leading).args(words);
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command
    }
}

// === impl Transcript ===

impl Transcript {
    pub fn succeeded(self) -> anyhow::Result<String> {
        if !self.success {
            bail!("{} failed\n{}{}", self.line, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }

    /// Requires failure; returns what was said on standard error.
    pub fn failed(self) -> anyhow::Result<String> {
        if self.success {
            bail!("{} succeeded\n{}", self.line, self.stdout);
        }
        Ok(self.stderr)
    }
}

/// Waits for the end of a program, and brings it about where that takes too long.
fn wait(child: Child) -> io::Result<Output> {
    let pid = child.id().to_string();
    let (ended, end) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if end.recv_timeout(CALL_BOUND) == Err(RecvTimeoutError::Timeout) {
                let _ = Command::new("kill").args(["-9", &pid]).status();
            }
        });
        let output = child.wait_with_output();
        drop(ended);
        output
    })
}

/// The line that a command printed for the next one, without the program's name.
pub fn printed(said: &str, verb: &str) -> anyhow::Result<String> {
    let mut lines = said.lines().filter_map(|line| line.trim().strip_prefix("evenkeel "));
    let line = lines.find(|rest| rest.starts_with(verb));
    line.map(str::to_owned).with_context(|| format!("no evenkeel {verb} in {said}"))
}

fn split(words: &str) -> Vec<&str> {
    words.split_whitespace().collect()
}
