//! Who is logged in on this machine: what login programs record (utmp, wtmp), and the sessions that run.
//!
//! Where a machine keeps no such records and nobody's session runs, nobody was logged in: nothing is guessed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use jiff::Timestamp;
use keeper::drift::Session;

const UTMP: [&str; 2] = ["/run/utmp", "/var/run/utmp"];
const WTMP: &str = "/var/log/wtmp";
/// Of the record of logins, so much of its end is read.
const WTMP_BYTES_MAX: u64 = 64 << 10;
const UTMP_BYTES_MAX: u64 = 1 << 20;
/// Sessions that are noted at once.
const SESSIONS_MAX: usize = 64;
const USER_PROCESS: i16 = 7;
/// `(uid_t) -1`: no login made this process.
const NO_LOGIN: &str = "4294967295";

/// Where the parts of a record lie, as the C library of this architecture has it.
struct Shape {
    bytes: usize,
    seconds: usize,
    wide: bool,
}

#[cfg(target_arch = "aarch64")]
const SHAPE: Shape = Shape { bytes: 400, seconds: 344, wide: true };
#[cfg(not(target_arch = "aarch64"))]
const SHAPE: Shape = Shape { bytes: 384, seconds: 340, wide: false };

/// Sessions that are open now, or were opened since `since`.
pub fn known(since: Timestamp) -> Vec<Session> {
    let mut found = Vec::new();
    if let Some(bytes) = UTMP.iter().find_map(|path| end_of(Path::new(path), UTMP_BYTES_MAX)) {
        found.extend(records(&bytes));
    }
    // What began and ended between two looks is only in there.
    if let Some(bytes) = end_of(Path::new(WTMP), WTMP_BYTES_MAX) {
        found.extend(records(&bytes).into_iter().filter(|session| session.since.is_some_and(|at| since <= at)));
    }
    found.extend(running(Path::new("/proc"), &users()));
    found.sort();
    // One session told twice has a time once.
    found.dedup_by(|a, b| (&a.user, &a.from, &a.terminal) == (&b.user, &b.from, &b.terminal));
    found.truncate(SESSIONS_MAX);
    found
}

fn end_of(path: &Path, most: u64) -> Option<Vec<u8>> {
    let mut file = fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let record = SHAPE.bytes as u64;
    file.seek(SeekFrom::Start(length.saturating_sub(most / record * record))).ok()?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The logins among records of utmp(5).
fn records(bytes: &[u8]) -> Vec<Session> {
    bytes.chunks_exact(SHAPE.bytes).filter_map(record).collect()
}

fn record(bytes: &[u8]) -> Option<Session> {
    let text = |from: usize, length: usize| {
        let part = &bytes[from..from + length];
        let end = part.iter().position(|byte| *byte == 0).unwrap_or(length);
        String::from_utf8_lossy(&part[..end]).into_owned()
    };
    if i16::from_ne_bytes([bytes[0], bytes[1]]) != USER_PROCESS {
        return None;
    }
    let at = SHAPE.seconds;
    let seconds = if SHAPE.wide {
        i64::from_ne_bytes(bytes[at..at + 8].try_into().ok()?)
    } else {
        i64::from(i32::from_ne_bytes(bytes[at..at + 4].try_into().ok()?))
    };
    let since = Timestamp::from_second(seconds).ok();
    Some(Session { user: text(44, 32), from: text(76, 256), terminal: text(8, 32), since })
}

/// Names by user id.
fn users() -> BTreeMap<String, String> {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of = |line: &str| {
        let mut parts = line.split(':');
        let name = parts.next()?.to_owned();
        Some((parts.nth(1)?.to_owned(), name))
    };
    text.lines().filter_map(of).collect()
}

/// Sessions whose first process runs: it came over SSH, or a login made it and it has a terminal.
fn running(proc: &Path, users: &BTreeMap<String, String>) -> Vec<Session> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| session(&proc.join(pid.to_string()), pid, users)).take(SESSIONS_MAX).collect()
}

fn session(folder: &Path, pid: u32, users: &BTreeMap<String, String>) -> Option<Session> {
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    // The second field is the name in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let (leader, device) = (fields.nth(3)?, fields.next()?);
    if leader != pid.to_string() {
        return None;
    }
    let login = fs::read_to_string(folder.join("loginuid")).unwrap_or_default();
    let login = Some(login.trim()).filter(|id| !id.is_empty() && *id != NO_LOGIN);
    let environment = fs::read(folder.join("environ")).unwrap_or_default();
    let from = environment.split(|byte| *byte == 0).find_map(|one| one.strip_prefix(b"SSH_CONNECTION="));
    let from = from.map(|text| String::from_utf8_lossy(text).split(' ').next().unwrap_or_default().to_owned());
    let terminal = terminal(device.parse().ok()?);
    if from.is_none() && (login.is_none() || terminal.is_empty()) {
        return None;
    }
    let status = || fs::read_to_string(folder.join("status")).ok();
    let own = || status()?.lines().find_map(|line| line.strip_prefix("Uid:\t")?.split('\t').next().map(str::to_owned));
    let id = login.map(str::to_owned).or_else(own)?;
    let user = users.get(&id).cloned().unwrap_or(id);
    Some(Session { user, from: from.unwrap_or_default(), terminal, since: None })
}

/// The name of a terminal by its device number; empty where it has none.
fn terminal(device: u32) -> String {
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    match major {
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::process::{Command, Stdio};

    use super::{SHAPE, records, running, terminal};

    fn written(kind: i16, user: &str, host: &str, line: &str, seconds: i32) -> Vec<u8> {
        let mut bytes = vec![0; SHAPE.bytes];
        bytes[..2].copy_from_slice(&kind.to_ne_bytes());
        for (at, text) in [(8, line), (44, user), (76, host)] {
            bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
        }
        bytes[SHAPE.seconds..SHAPE.seconds + 4].copy_from_slice(&seconds.to_ne_bytes());
        bytes
    }

    #[test]
    fn logins_are_read_from_records() {
        let mut bytes = written(2, "reboot", "6.1.0", "~", 1);
        bytes.extend(written(7, "anna", "192.0.2.7", "pts/0", 1_772_366_400));
        bytes.extend(written(8, "", "", "pts/1", 5));
        bytes.extend([1, 2, 3]);
        let found = records(&bytes);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].user.as_str(), found[0].from.as_str(), found[0].terminal.as_str()),
            ("anna", "192.0.2.7", "pts/0")
        );
        assert_eq!(found[0].since.map(|at| at.as_second()), Some(1_772_366_400));
    }

    /// A process as a login over SSH leaves it: first of its session, with where it came from.
    #[test]
    fn a_session_over_ssh_is_seen_while_it_runs() {
        let mut command = Command::new("setsid");
        command.args(["--wait", "cat"]).env("SSH_CONNECTION", "198.51.100.77 50000 192.0.2.1 22");
        let Ok(mut child) = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn() else {
            return eprintln!("skipped: no setsid");
        };
        let look = || running(std::path::Path::new("/proc"), &BTreeMap::from([("0".to_owned(), "root".to_owned())]));
        let start = std::time::Instant::now();
        let mut found = Vec::new();
        while found.is_empty() && start.elapsed().as_secs() < 20 {
            found = look();
            found.retain(|session| session.from == "198.51.100.77");
        }
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(found.len(), 1, "one process is the first of its session");
    }

    #[test]
    fn terminals_have_names() {
        assert_eq!((terminal(0x8803), terminal(0x0401), terminal(0)), ("pts/3".into(), "tty1".into(), String::new()));
    }
}
