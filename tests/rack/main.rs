//! The example application on three servers, each on a simulated host of this machine, for people to look at and to break.
//!
//! `cargo xtask demo --nodes 3` builds what this needs. Everything goes when this program ends; `--down` removes what is
//! left where it was killed.

use std::io::BufRead;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use e2e::saas::{self, NODE_PORT};
use e2e::{Cluster, Host, Rack};

const NAME: &str = "demo";
/// Number of the first host.
const HOST: u8 = 60;
const SERVERS: usize = 3;

fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("--down") {
        return down();
    }
    let start = Instant::now();
    let rack = servers()?;
    application(&rack)?;
    farewell(&rack, start.elapsed());
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("wait for Enter")?;
    Ok(())
}

fn servers() -> anyhow::Result<Rack> {
    eprintln!("== servers");
    let mut rack = Rack::start(NAME, HOST)?;
    rack.fill()?;
    Ok(rack)
}

fn application(rack: &Rack) -> anyhow::Result<()> {
    eprintln!("== application");
    saas::apply(&rack.servers[0].kubectl())?;
    let row = saas::store(&rack.servers[1].host.address, "hello")?;
    eprintln!("   stored row {row} through another host");
    Ok(())
}

fn farewell(rack: &Rack, took: Duration) {
    let [first, second, third] = &rack.servers[..] else { unreachable!("there are {SERVERS} servers") };
    let program = first.kubectl().program.display().to_string();
    let enter = |server: &Cluster| format!("ip netns exec {}", server.host.name);
    println!(
        "
Three servers serve, after {:.0} s: {}, {}, {}.

  application   curl -d 'a row of mine' http://{}:{NODE_PORT}/items
  kubeconfig    {}

Try next, from another terminal:

  export KUBECONFIG={}
  {program} get nodes,pods -A -o wide
  {} evenkeel wrong --data-dir={}
  {} evenkeel node remove {} --now --data-dir={}

Enter takes it all away.",
        took.as_secs_f64(),
        first.host.name,
        second.host.name,
        third.host.name,
        second.host.address,
        first.kubeconfig().display(),
        first.kubeconfig().display(),
        enter(first),
        first.data.display(),
        enter(first),
        third.host.name,
        first.data.display(),
    );
}

/// What a run that was killed has left: links, and folders.
fn down() -> anyhow::Result<()> {
    for number in 0..u8::try_from(SERVERS)? {
        drop(Host::up(HOST + number)?);
        let data = Path::new("/var/tmp/evenkeel-e2e").join(format!("{NAME}-{number}-0"));
        match std::fs::remove_dir_all(&data) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", data.display()));
            }
            _ => {}
        }
    }
    Ok(())
}
