//! Which process runs this instance: a file with its id and start time, so that a recycled id is nobody.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::layout::Layout;
use crate::pki::{Access, write};

fn path(layout: &Layout) -> PathBuf {
    layout.data.join("evenkeel.pid")
}

/// Notes this process as the one that runs.
pub fn note(layout: &Layout) -> Result<()> {
    let pid = std::process::id();
    let started = started(pid).unwrap_or_default();
    write(&path(layout), format!("{pid} {started}\n").as_bytes(), Access::Public)?;
    Ok(())
}

/// The process that runs this instance, if it still does.
pub fn running(layout: &Layout) -> Option<u32> {
    let text = fs::read_to_string(path(layout)).ok()?;
    let (pid, then) = text.trim().split_once(' ')?;
    let pid = pid.parse().ok()?;
    (started(pid)? == then).then_some(pid)
}

/// How long ago it noted itself, if it still runs.
pub fn age(layout: &Layout) -> Option<Duration> {
    running(layout)?;
    fs::metadata(path(layout)).ok()?.modified().ok()?.elapsed().ok()
}

/// Field 22 of /proc/PID/stat: when it started, in ticks since boot. One that has ended and that its parent has not asked
/// about yet runs no more.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses and may hold anything.
    let rest = stat.rsplit_once(") ")?.1;
    let has_ended = rest.starts_with(['Z', 'X']);
    rest.split(' ').nth(19).filter(|_| !has_ended).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{age, note, running, started};
    use crate::layout::Layout;
    use std::process::{Command, Stdio};

    #[test]
    fn only_the_same_process_runs() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        assert_eq!(running(&layout), None);
        note(&layout).unwrap();
        assert_eq!(running(&layout), Some(std::process::id()));
        assert!(age(&layout).is_some_and(|age| age.as_secs() < 3600), "this test has just begun");
        std::fs::write(folder.path().join("evenkeel.pid"), format!("{} 1\n", std::process::id())).unwrap();
        assert_eq!(running(&layout), None, "another process of that id");
    }

    #[test]
    fn what_has_ended_runs_no_more_though_nobody_asked_about_it() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let line = format!("{} {}\n", child.id(), started(child.id()).unwrap());
        std::fs::write(folder.path().join("evenkeel.pid"), line).unwrap();
        assert_eq!(running(&layout), Some(child.id()));
        drop(child.stdin.take());
        // The end of its output is the end of all that it does.
        std::io::copy(&mut child.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
        while std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap().contains(") R") {
            std::thread::yield_now();
        }
        assert_eq!(running(&layout), None);
        child.wait().unwrap();
    }
}
