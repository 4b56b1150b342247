//! The virtual address of two servers over one store: it moves when its holder is stopped, stands still or loses power,
//! is never on both, and is not taken from a machine that has it without asking.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{Cluster, Endpoint, Host, Options, Tool, eventually, holds, pause};

use super::daemon::Daemon;

const BOUND: Duration = Duration::from_secs(30);
const TRY: Duration = Duration::from_millis(200);
const BETWEEN: Duration = Duration::from_millis(20);
/// How long nobody may have the address after a stop, and after a power cut.
const STOP_GAP_MAX: Duration = Duration::from_secs(1);
const POWER_GAP_MAX: Duration = Duration::from_secs(5);

struct Lab {
    address: String,
    one: Cluster,
    two: Cluster,
}

pub fn moves(_: &()) -> anyhow::Result<()> {
    let options = Options::lane("address", 18);
    let host = Host::up(options.host + 2)?;
    let folder = PathBuf::from("/var/tmp/evenkeel-e2e").join(format!("{}-store", options.name));
    let outcome = story(&host, &folder, options);
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn story(host: &Host, folder: &std::path::Path, options: Options) -> anyhow::Result<()> {
    let at = &host.address;
    let line = format!(
        "etcd --data-dir {}/etcd.data --listen-client-urls http://{at}:2379 --advertise-client-urls http://{at}:2379 \
         --listen-peer-urls http://127.0.0.1:2380",
        folder.display()
    );
    let etcd = Daemon::start(host, folder, "etcd", &line)?;
    etcd.listens(2379)?;
    // Below all hosts' addresses; people who test at once have different ones.
    let address = format!("172.31.77.{}", 2 + options.host / 30);
    let arguments = ["--disable-agent".to_owned(), format!("--datastore-endpoint=http://{at}:2379")];
    let arguments: Vec<String> = arguments.into_iter().chain([format!("--virtual-address={address}")]).collect();
    let one = Cluster::start(Options { arguments: arguments.clone(), ..options.clone() })?;
    let (name, keys_of) = (format!("{}-two", options.name), Some(one.data.clone()));
    let lab = &mut Lab {
        address,
        two: Cluster::start(Options { arguments, name, keys_of, host: options.host + 1, ..Options::default() })?,
        one,
    };
    eventually("the address serves people", BOUND, || lab.serves())?;
    ensure!(lab.is_on(&lab.one.host)? && !lab.is_on(&lab.two.host)?, "not the first server has it");
    stops(lab)?;
    stands_still(lab)?;
    loses_power(lab)?;
    answered_by_others(lab, host)
}

fn stops(lab: &mut Lab) -> anyhow::Result<()> {
    let watcher = lab.watch()?;
    lab.one.stop_server()?;
    eventually("the second server has it", BOUND, || lab.held_by(&lab.two))?;
    pause(TRY);
    let gap = watcher.longest()?;
    println!("the address was away {} ms after a stop", gap.as_millis());
    ensure!(gap <= STOP_GAP_MAX, "{gap:?} without the address");
    ensure!(!lab.is_on(&lab.one.host)?, "it stayed");
    lab.one.start_server()
}

/// The holder's process stands still: the kernel takes its address off, before another server takes it.
fn stands_still(lab: &Lab) -> anyhow::Result<()> {
    let mut both = false;
    lab.two.freeze_server()?;
    eventually("the first server has it", BOUND, || {
        both |= lab.is_on(&lab.one.host)? && lab.is_on(&lab.two.host)?;
        lab.held_by(&lab.one)
    })?;
    lab.two.thaw_server()?;
    ensure!(!both, "both had it at once");
    holds("it stays away from who woke up", Duration::from_secs(3), || Ok(!lab.is_on(&lab.two.host)?))?;
    lab.held_by(&lab.one)
}

fn loses_power(lab: &mut Lab) -> anyhow::Result<()> {
    let watcher = lab.watch()?;
    lab.one.power_cycle()?;
    eventually("the second server has it", BOUND, || lab.held_by(&lab.two))?;
    pause(TRY);
    let gap = watcher.longest()?;
    println!("the address was away {} ms after a power cut", gap.as_millis());
    ensure!(gap <= POWER_GAP_MAX, "{gap:?} without the address");
    Ok(())
}

/// A machine that has the address without any lease is found, named, and left alone.
fn answered_by_others(lab: &mut Lab, other: &Host) -> anyhow::Result<()> {
    lab.two.stop_server()?;
    let on = other.tool("ip")?;
    on.ok(&format!("addr add {}/32 dev eth0", lab.address))?;
    let link = on.ok("-o link show dev eth0")?;
    let hardware = link.split(' ').skip_while(|word| *word != "link/ether").nth(1).context("no hardware address")?;
    lab.two.start_server()?;
    let log = lab.two.data.join("server.log");
    eventually("it says who answers", BOUND, || {
        let said = std::fs::read_to_string(&log)?;
        let sentence = format!("the machine with hardware address {hardware} answers for it");
        ensure!(said.contains(&sentence), "not in {}", log.display());
        Ok(())
    })?;
    ensure!(!lab.is_on(&lab.two.host)?, "it took what another machine has");
    on.ok(&format!("addr del {}/32 dev eth0", lab.address))?;
    eventually("it takes what is free again", BOUND, || lab.held_by(&lab.two))
}

// === impl Lab ===

impl Lab {
    /// Through a kubeconfig that names the address, with its certificate.
    fn serves(&self) -> anyhow::Result<()> {
        let server = format!("https://{}:6443", self.address);
        let words = format!("kubeconfig --server {server} --data-dir={}", self.one.data.display());
        let file = self.one.data.join("people.kubeconfig");
        std::fs::write(&file, self.one.evenkeel()?.ok(&words)?)?;
        let mut kubectl = self.one.kubectl();
        kubectl.environment.push(("KUBECONFIG".into(), file.into()));
        TcpStream::connect_timeout(&self.at()?, TRY)?;
        let answer = Endpoint::of(&kubectl)?.connect()?.call("GET", "/readyz", "")?;
        ensure!(answer.code == 200, "{}", answer.code);
        Ok(())
    }

    fn at(&self) -> anyhow::Result<SocketAddr> {
        Ok(format!("{}:6443", self.address).parse()?)
    }

    fn is_on(&self, host: &Host) -> anyhow::Result<bool> {
        let listed = Tool::new("ip").ok(&format!("-n {} -o addr show dev eth0", host.name))?;
        Ok(listed.contains(&format!(" {}/32 ", self.address)))
    }

    /// The lease names it, and the address is there.
    fn held_by(&self, server: &Cluster) -> anyhow::Result<()> {
        let lease = "-n kube-system get lease evenkeel-virtual-address -o jsonpath={.spec.holderIdentity}";
        let holder = server.kubectl().ok(&format!("{lease} --request-timeout=5s"))?;
        ensure!(holder == server.host.name, "{holder:?} holds the lease");
        ensure!(self.is_on(&server.host)?, "the address is not on {}", server.host.name);
        Ok(())
    }

    fn watch(&self) -> anyhow::Result<Watcher> {
        Ok(Watcher::start(self.at()?))
    }
}

/// Connects again and again, and knows how long that failed.
struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

// === impl Watcher ===

impl Watcher {
    fn start(at: SocketAddr) -> Watcher {
        let stop = Arc::new(AtomicBool::new(false));
        let ends = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut longest, mut good) = (Duration::ZERO, Instant::now());
            while !ends.load(Ordering::Relaxed) {
                if TcpStream::connect_timeout(&at, TRY).is_ok() {
                    longest = longest.max(good.elapsed());
                    good = Instant::now();
                }
                pause(BETWEEN);
            }
            longest.max(good.elapsed())
        });
        Watcher { stop, thread }
    }

    fn longest(self) -> anyhow::Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the watcher panicked")
    }
}
