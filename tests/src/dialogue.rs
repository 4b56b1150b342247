//! A conversation with a running program: wait for what it says, then answer.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ExitStatus};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// A started program with its output read in the background. Dropping it kills the program.
pub struct Dialogue {
    child: Child,
    stdin: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
    /// Everything it said on both outputs so far.
    heard: String,
    /// How much of it earlier calls of `expect` have used.
    used: usize,
}

const BUFFER_BYTES: usize = 4096;

impl Dialogue {
    /// Takes over a program that [`crate::Tool::spawn`] started.
    pub fn with(mut child: Child) -> anyhow::Result<Dialogue> {
        let (sender, output) = channel();
        let stdout = child.stdout.take().context("standard output is piped")?;
        let stderr = child.stderr.take().context("standard error is piped")?;
        for mut from in [Box::new(stdout) as Box<dyn Read + Send>, Box::new(stderr)] {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut buffer = [0; BUFFER_BYTES];
                while let Ok(length @ 1..) = from.read(&mut buffer) {
                    if sender.send(buffer[..length].to_vec()).is_err() {
                        return;
                    }
                }
            });
        }
        let stdin = child.stdin.take();
        Ok(Dialogue { child, stdin, output, heard: String::new(), used: 0 })
    }

    pub fn say(&mut self, words: &str) -> anyhow::Result<()> {
        let stdin = self.stdin.as_mut().context("standard input was closed")?;
        stdin.write_all(words.as_bytes())?;
        stdin.flush().context("say")
    }

    /// Ends the program's standard input.
    pub fn hush(&mut self) {
        self.stdin = None;
    }

    /// Waits until it says this, after what earlier calls waited for. Returns what came before it.
    pub fn expect(&mut self, words: &str, bound: Duration) -> anyhow::Result<String> {
        let deadline = Instant::now() + bound;
        loop {
            if let Some(at) = self.heard[self.used..].find(words) {
                let before = self.heard[self.used..self.used + at].to_owned();
                self.used += at + words.len();
                return Ok(before);
            }
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.heard.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => bail!("waiting for {words:?}: {error}; heard {:?}", self.heard),
            }
        }
    }

    /// Waits for its end.
    pub fn end(&mut self, bound: Duration) -> anyhow::Result<ExitStatus> {
        crate::wait::eventually("the program ends", bound, || self.child.try_wait()?.context("it still runs"))
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
