//! Who kills: one hunter for each host, all at once. Of servers and of etcd members one is away at a time, so that the
//! others are a quorum; but now and then a hunter does not wait for what it killed, and then nothing holds the next one.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{Cluster, eventually, pause};

use super::Chance;
use super::writers::Pace;

/// A kill comes at most this long after the one before on its host was over.
const MOMENT_SPREAD_MS: u64 = 900;
/// One of so many kills is not waited for.
const HASTE: u64 = 8;
/// A process may just be starting again, after a pause that grows where it ends often.
const FOUND_BOUND: Duration = Duration::from_secs(120);
/// How long nobody may get an answer after a kill, also on a machine that others keep busy.
const STALL_BOUND: Duration = Duration::from_secs(90);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Server,
    Etcd,
    Containerd,
    Names,
}

const VICTIMS: [Victim; 4] = [Victim::Server, Victim::Etcd, Victim::Containerd, Victim::Names];

/// How long kills of one kind took, each until writes went on.
#[derive(Default)]
struct Times {
    kills: u64,
    waited: u64,
    sum: Duration,
    longest: Duration,
}

/// What the hunters share.
pub struct Hunt<'a> {
    pace: &'a Pace,
    left: Mutex<u64>,
    /// Held while a server or a member is away.
    margin: Mutex<()>,
    times: Mutex<BTreeMap<Victim, Times>>,
    /// Servers that ended by themselves.
    ended: Mutex<u64>,
}

/// One host's.
pub struct Hunter<'a> {
    pub hunt: &'a Hunt<'a>,
    pub server: &'a mut Cluster,
    pub chance: &'a mut Chance,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

// === impl Hunt ===

impl<'a> Hunt<'a> {
    pub fn new(pace: &'a Pace) -> Hunt<'a> {
        Hunt {
            pace,
            left: Mutex::default(),
            margin: Mutex::default(),
            times: Mutex::default(),
            ended: Mutex::default(),
        }
    }

    /// So many more may be killed.
    pub fn allow(&self, kills: u64) {
        *held(&self.left) = kills;
    }

    fn take(&self) -> bool {
        let mut left = held(&self.left);
        let any = *left > 0;
        *left = left.saturating_sub(1);
        any
    }

    fn note(&self, victim: Victim, took: Option<Duration>) {
        let mut times = held(&self.times);
        let times = times.entry(victim).or_default();
        times.kills += 1;
        if let Some(took) = took {
            times.waited += 1;
            times.sum += took;
            times.longest = times.longest.max(took);
        }
    }

    /// By kind: kills, and how long until writes went on.
    pub fn told(&self) -> String {
        let (times, ended) = (held(&self.times), held(&self.ended));
        let one = |(victim, times): (&Victim, &Times)| {
            let mean = times.sum.as_secs_f64() / (times.waited.max(1) as f64);
            format!("{victim:?} {} ({mean:.1} s, at most {:.1} s)", times.kills, times.longest.as_secs_f64())
        };
        let times: Vec<String> = times.iter().map(one).collect();
        format!("{}; {ended} servers ended by themselves", times.join(", "))
    }
}

// === impl Hunter ===

impl Hunter<'_> {
    /// Kills until none is left to kill; where that fails nobody goes on.
    pub fn run(mut self) -> anyhow::Result<()> {
        while self.hunt.take() {
            let index = self.chance.below(VICTIMS.len() as u64);
            let victim = VICTIMS[usize::try_from(index)?];
            let outcome = self.one(victim);
            if outcome.is_err() {
                self.hunt.allow(0);
            }
            outcome.with_context(|| format!("{victim:?} of {} was killed", self.server.host.name))?;
        }
        self.is_back(None)
    }

    fn one(&mut self, victim: Victim) -> anyhow::Result<()> {
        let haste = self.chance.below(HASTE) == 0;
        pause(Duration::from_millis(self.chance.below(MOMENT_SPREAD_MS)));
        let margin = matches!(victim, Victim::Server | Victim::Etcd).then(|| held(&self.hunt.margin));
        let begin = Instant::now();
        let killed = self.kill(victim)?;
        if haste {
            self.hunt.note(victim, None);
            return Ok(());
        }
        if margin.is_some() {
            self.is_back(killed.as_deref())?;
        }
        eventually("writes go on", STALL_BOUND, || {
            ensure!(self.hunt.pace.acknowledged_since(begin), "nothing was acknowledged");
            Ok(())
        })?;
        self.hunt.note(victim, Some(begin.elapsed()));
        Ok(())
    }

    /// Returns once the process is dead. What keeps it starts it again; of the server itself that is us.
    fn kill(&mut self, victim: Victim) -> anyhow::Result<Option<String>> {
        let search = match victim {
            Victim::Server => {
                self.server.kill_server()?;
                self.server.launch()?;
                return Ok(None);
            }
            Victim::Etcd => ETCD,
            Victim::Containerd => "-x containerd",
            Victim::Names => "-f evenkeel.names",
        };
        let pid = eventually("the victim is found", FOUND_BOUND, || {
            self.keep_up()?;
            self.find(search)
        })?;
        // It may have been about to end.
        let _ = self.server.host.tool("kill")?.ok(&format!("-9 {pid}"));
        Ok(Some(pid))
    }

    /// The server is ready, and its member another process than the one that was killed.
    fn is_back(&mut self, killed: Option<&str>) -> anyhow::Result<()> {
        eventually("what was killed is back", FOUND_BOUND, || {
            self.keep_up()?;
            if let Some(killed) = killed {
                ensure!(self.find(ETCD)? != killed, "the killed process is still there");
            }
            self.server.readyz()
        })
    }

    /// A server that did not start, with half of what it needs just killed, is started again.
    fn keep_up(&mut self) -> anyhow::Result<()> {
        if self.server.keep_up()? {
            *held(&self.hunt.ended) += 1;
        }
        Ok(())
    }

    fn find(&self, search: &str) -> anyhow::Result<String> {
        // Not one that is dead and only waits to be taken note of.
        let pids = self.server.host.tool("pgrep")?.ok(&format!("--runstates D,R,S {search}"))?;
        pids.lines().next().map(str::to_owned).context("no process")
    }
}

const ETCD: &str = "-x etcd";
