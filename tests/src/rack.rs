//! Several servers as one cluster, each on a simulated host of its own.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::data::target;
use crate::options::Options;
use crate::tool::Tool;
use crate::wait::eventually;

const SERVERS: usize = 3;
/// How long others may take to notice what became of a server.
const NOTICE_BOUND: Duration = Duration::from_secs(90);

/// The servers in the order they joined.
pub struct Rack {
    pub servers: Vec<Cluster>,
    /// What every server is started with.
    options: Options,
    name: String,
    host: u8,
}

// === impl Rack ===

impl Rack {
    /// The first server, on the first of the hosts from this number on.
    pub fn start(name: &str, host: u8) -> anyhow::Result<Rack> {
        Rack::start_with(name, host, Options::default())
    }

    /// As [`Rack::start`], with a program on every server that may be replaced there.
    pub fn of_own_programs(name: &str, host: u8) -> anyhow::Result<Rack> {
        Rack::start_with(name, host, Options { own_program: true, ..Options::default() })
    }

    /// Likewise, with these choices for every server. Each has a disk of its own.
    pub fn start_with(name: &str, host: u8, options: Options) -> anyhow::Result<Rack> {
        let named = Options::lane(&format!("{name}-0-"), host);
        let options = Options { own_disk: true, ..options };
        let first = Cluster::start(Options { host: named.host, name: named.name, ..options.clone() })?;
        Ok(Rack { servers: vec![first], options, name: name.to_owned(), host })
    }

    /// Joins until there are three, and waits until all of them are nodes that pods can be put on.
    pub fn fill(&mut self) -> anyhow::Result<()> {
        eprintln!("   {} is up after {:.1} s", self.servers[0].host.name, self.servers[0].ready_after.as_secs_f64());
        while self.servers.len() < SERVERS {
            let took = self.join()?;
            let joined = &self.servers[self.servers.len() - 1].host.name;
            eprintln!("   {joined} joined in {:.1} s", took.as_secs_f64());
        }
        self.whole(0)
    }

    /// Waits until all three serve and are ready, as one of them sees it.
    pub fn whole(&self, through: usize) -> anyhow::Result<()> {
        self.serves(through, SERVERS)?;
        self.servers[through].nodes_ready(SERVERS)
    }

    /// One more server, by one command; answers how long it took until it was ready.
    pub fn join(&mut self) -> anyhow::Result<Duration> {
        self.join_with(self.options.clone())
    }

    /// Likewise, with choices of its own.
    pub fn join_with(&mut self, choices: Options) -> anyhow::Result<Duration> {
        let number = u8::try_from(self.servers.len())?;
        let named = Options::lane(&format!("{}-{number}-", self.name), self.host + number);
        let mut options = Options { host: named.host, name: named.name, ..choices.clone() };
        options.arguments.extend(self.servers[0].joining()?);
        let mut joined = Cluster::start(options)?;
        // What it was told once it does not need again.
        joined.set_arguments(choices.arguments);
        let took = joined.ready_after;
        self.servers.push(joined);
        Ok(took)
    }

    /// Waits until the `kubernetes` Service points at this many servers, as one of them sees it.
    pub fn serves(&self, through: usize, count: usize) -> anyhow::Result<()> {
        let kubectl = self.servers[through].kubectl();
        eventually(&format!("{count} servers are listed"), NOTICE_BOUND, || {
            let list = kubectl.ok("get endpointslice kubernetes -o jsonpath={.endpoints[*].addresses[0]}")?;
            ensure!(list.split_whitespace().count() == count, "they are {list}");
            Ok(())
        })
    }

    /// Copies what the servers said, and show, into a folder of the build's, for whoever wants to know why a lane failed.
    pub fn keep_logs(&self, name: &str) -> anyhow::Result<()> {
        let folder = target().join(name);
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        for server in &self.servers {
            for log in ["server.log", "server/db/etcd/etcd.log", "agent/names/names.log"] {
                let short = log.rsplit('/').next().unwrap_or(log);
                // One that was never started said nothing.
                let _ = fs::copy(server.data.join(log), folder.join(format!("{}-{short}", server.host.name)));
            }
            let seen = server
                .kubectl()
                .call(&["get", "nodes,pods,events", "-A", "-o", "wide", "--request-timeout=10s"], "")?;
            fs::write(folder.join(format!("{}-objects", server.host.name)), seen.stdout + &seen.stderr)?;
        }
        eprintln!("   logs are kept in {}", folder.display());
        Ok(())
    }

    /// Has one server's etcd lead.
    pub fn lead(&self, server: usize) -> anyhow::Result<()> {
        eventually("etcd has this leader", NOTICE_BOUND, || {
            let status = self.etcdctl("endpoint status -w json")?;
            let list: Value = serde_json::from_str(&status)?;
            let list = list.as_array().context("no list")?;
            let id = |one: &Value| one["Status"]["header"]["member_id"].as_u64();
            let at = |url: &str| list.iter().find(|one| one["Endpoint"] == url).and_then(id);
            let wanted = at(&self.client_url(server)).context("it does not answer")?;
            let leader = list[0]["Status"]["leader"].as_u64().context("nobody leads")?;
            if leader != wanted {
                self.etcdctl(&format!("move-leader {wanted:x}"))?;
            }
            ensure!(leader == wanted, "another one leads");
            Ok(())
        })
    }

    /// Has etcd forget its history now, which it does by itself every few minutes.
    pub fn forget_history(&self) -> anyhow::Result<()> {
        let revision = self.etcd_status()?[0]["header"]["revision"].as_u64().context("etcd has no revision")?;
        self.etcdctl(&format!("compact {revision}")).map(drop)
    }

    /// The sizes of all copies of the state.
    pub fn database_bytes(&self) -> anyhow::Result<Vec<u64>> {
        let size = |status: &Value| status["dbSize"].as_u64().context("etcd has no size");
        self.etcd_status()?.iter().map(size).collect()
    }

    fn etcd_status(&self) -> anyhow::Result<Vec<Value>> {
        let list: Vec<Value> = serde_json::from_str(&self.etcdctl("endpoint status -w json")?)?;
        Ok(list.into_iter().map(|mut member| member["Status"].take()).collect())
    }

    fn client_url(&self, server: usize) -> String {
        format!("https://{}:2379", self.servers[server].host.address)
    }

    /// etcd's own command line, with the first server's certificate.
    fn etcdctl(&self, words: &str) -> anyhow::Result<String> {
        let tls = self.servers[0].data.join("server/tls");
        let urls: Vec<String> = (0..self.servers.len()).map(|server| self.client_url(server)).collect();
        let mut tool = Tool::new("etcdctl");
        tool.environment = vec![("ETCDCTL_API".into(), "3".into())];
        let (tls, urls) = (tls.display(), urls.join(","));
        tool.ok(&format!(
            "--endpoints={urls} --cacert={tls}/etcd-ca.crt --cert={tls}/etcd-member.crt --key={tls}/etcd-member.key {words}"
        ))
    }
}
