//! An empty network namespace for this process.
//!
//! JUSTIFICATION for `unsafe`: rustix has no safe way to leave a namespace, as other flags of the same call can leave
//! descriptors behind. The one flag used here does not.

use std::fs;
use std::io;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Moves the calling thread, and all that it starts later, into a network namespace with nothing but a loopback that is
/// down. To be called before any other thread is there.
pub fn leave_the_network() -> io::Result<()> {
    // SAFETY: NEWNET unshares no descriptor table and no memory; sockets that are open stay what they are.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from)
}

/// The packets that went over any interface of this thread's namespace, with the names of the interfaces.
pub fn packets() -> io::Result<(u64, Vec<String>)> {
    parse(&fs::read_to_string("/proc/thread-self/net/dev")?)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/thread-self/net/dev has another form"))
}

/// Columns two and ten of each line after the two of the head.
fn parse(text: &str) -> Option<(u64, Vec<String>)> {
    let (mut sum, mut names) = (0, Vec::new());
    for line in text.lines().skip(2) {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<u64> = counters.split_whitespace().map_while(|word| word.parse().ok()).collect();
        sum += counters.get(1)? + counters.get(9)?;
        names.push(name.trim().to_owned());
    }
    Some((sum, names))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn packets_both_ways_are_counted() {
        let text =
            "Inter-|   Receive   |  Transmit\n face |bytes packets ...\n    lo: 10 1 0 0 0 0 0 0 10 2 0 0 0 0 0 0\n";
        assert_eq!(parse(text), Some((3, vec!["lo".to_owned()])));
        assert_eq!(parse("a\nb\nno counters here"), None);
    }
}
