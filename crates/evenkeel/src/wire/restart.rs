//! The process gives its place to its program as it lies on disk now: same process id, arguments and environment.
//!
//! Children outlive it, as they outlive any restart, and are adopted. Locks and sockets are closed by the kernel in the
//! moment of the change, so the new program takes the first and listens on the second like one that starts.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use tokio::sync::watch;

/// Asks for the restart of this process; whoever runs it waits for that, drains and calls [`Restart::execute`].
#[derive(Clone, Debug)]
pub struct Restart {
    program: PathBuf,
    asked: Arc<watch::Sender<bool>>,
}

// === impl Restart ===

impl Restart {
    /// Make it at the start: a program that is exchanged later is found by where the first one was.
    pub fn of_this_process() -> io::Result<Restart> {
        Ok(Restart { program: std::env::current_exe()?, asked: Arc::new(watch::Sender::new(false)) })
    }

    pub fn request(&self) {
        self.asked.send_replace(true);
    }

    /// Returns once somebody asked.
    pub async fn requested(&self) {
        // The sender lives as long as this.
        let _ = self.asked.subscribe().wait_for(|asked| *asked).await;
    }

    pub fn is_requested(&self) -> bool {
        *self.asked.borrow()
    }

    /// Executes the program. Only returns where that cannot be done.
    pub fn execute(&self) -> io::Error {
        let mut arguments = std::env::args_os();
        let mut command = Command::new(&self.program);
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        command.args(arguments).exec()
    }
}
