//! The example application on three servers, each on a simulated host of this machine, for people to look at and to break.
//!
//! `cargo xtask demo --nodes 3` builds what this needs. Everything goes when this program ends; `--down` removes what is
//! left where it was killed.

use std::io::{BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{Cluster, Host, Rack, Tool, eventually};

const NAME: &str = "demo";
/// Number of the first host.
const HOST: u8 = 60;
const SERVERS: usize = 3;
const BOUND: Duration = Duration::from_secs(120);
/// Where the application answers from outside; the node port of `examples/saas`.
const NODE_PORT: u16 = 30080;
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

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
    eprintln!("   {} is up after {:.1} s", rack.servers[0].host.name, rack.servers[0].ready_after.as_secs_f64());
    while rack.servers.len() < SERVERS {
        let took = rack.join()?;
        let joined = &rack.servers[rack.servers.len() - 1].host.name;
        eprintln!("   {joined} joined in {:.1} s", took.as_secs_f64());
    }
    rack.serves(0, SERVERS)?;
    let kubectl = rack.servers[0].kubectl();
    eventually("every node registers", BOUND, || {
        let nodes = kubectl.ok("get nodes -o name")?.lines().count();
        ensure!(nodes == SERVERS, "{nodes} nodes");
        Ok(())
    })?;
    kubectl.ok("wait node --all --for=condition=Ready --timeout=120s")?;
    Ok(rack)
}

fn application(rack: &Rack) -> anyhow::Result<()> {
    eprintln!("== application");
    let kubectl = rack.servers[0].kubectl();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/saas");
    kubectl.ok(&format!("apply -f {0} -f {0}/standby", folder.display()))?;
    let sets = ["statefulset/postgres", "statefulset/postgres-standby"];
    for workload in sets.into_iter().chain(["deployment/api", "deployment/worker", "deployment/prometheus"]) {
        eprintln!("   waiting for {workload}");
        kubectl.ok(&format!("-n saas rollout status {workload} --timeout=300s"))?;
    }
    follows(&kubectl)?;
    let address = &rack.servers[1].host.address;
    let row = eventually("a row is stored through another host", BOUND, || post(address))?;
    eprintln!("   stored {}", row.trim());
    Ok(())
}

/// The second PostgreSQL follows the first: commits wait for it.
fn follows(kubectl: &Tool) -> anyhow::Result<()> {
    let ask = "PGPASSWORD=\"$POSTGRES_PASSWORD\" exec /usr/lib/postgresql/15/bin/psql -h 127.0.0.1 -U \"$POSTGRES_USER\" -d postgres \
               -tAc \"SELECT application_name || ' ' || sync_state FROM pg_stat_replication\"";
    eventually("the standby follows", BOUND, || {
        let said = kubectl.ok_with(&["-n", "saas", "exec", "postgres-0", "--", "/bin/bash-static", "-c", ask])?;
        ensure!(said.trim() == "standby sync", "it says {said:?}");
        Ok(())
    })
}

/// One row, through the node port of a host; the application's answer.
fn post(address: &str) -> anyhow::Result<String> {
    let address: SocketAddr = format!("{address}:{NODE_PORT}").parse()?;
    let mut stream = TcpStream::connect_timeout(&address, HTTP_TIMEOUT).context("connect")?;
    stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
    stream.write_all(b"POST /items HTTP/1.1\r\nHost: saas\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("read the answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
    ensure!(head.contains(" 201 "), "{answer}");
    Ok(body.to_owned())
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
