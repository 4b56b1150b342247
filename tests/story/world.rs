//! Three servers with the application on them, and the judge outside.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{Rack, Tool, eventually, saas};

use crate::judge::{self, Judge};

const NAME: &str = "story";
/// Number of the first host.
const HOST: u8 = 50;
/// One on every host.
const REPLICAS: usize = 3;
const APART_BOUND: Duration = Duration::from_secs(300);
/// Requests are answered well for so long before something is broken, and after it was mended.
const CALM: Duration = Duration::from_secs(10);
const CALM_BOUND: Duration = Duration::from_secs(300);

pub struct World {
    pub rack: Rack,
    pub judge: Judge,
    /// Where scorecards and the judge's log are kept.
    pub folder: PathBuf,
    /// The recovery kit, carried away from the machine that drew it: no other has it.
    pub kit: PathBuf,
    /// The server that is dead now.
    pub dead: Option<usize>,
}

// === impl World ===

impl World {
    /// The first server alone, and nobody who asks anything of it.
    pub fn start() -> anyhow::Result<World> {
        let folder = judge::folder()?;
        let rack = Rack::of_own_programs(NAME, HOST)?;
        let (judge, kit) = (Judge::start(&folder)?, folder.join("kit"));
        Ok(World { rack, judge, folder, kit, dead: None })
    }

    /// The others, the application, and clients.
    pub fn fill(&mut self) -> anyhow::Result<()> {
        self.rack.fill()?;
        let first = &self.rack.servers[0];
        saas::apply(&first.kubectl())?;
        fs::copy(first.data.join("server/recovery-kit.txt"), &self.kit).context("carry the kit away")?;
        self.is_whole(0)
    }

    /// All three serve the application, and clients use all of them.
    pub fn is_whole(&self, through: usize) -> anyhow::Result<()> {
        self.rack.whole(through)?;
        let kubectl = self.rack.servers[through].kubectl();
        saas::healthy(&kubectl)?;
        self.apart(&kubectl)?;
        self.judge.enter_by(self.addresses(|_| true));
        self.calm()
    }

    /// Nobody moves pods that run: one fewer and one more puts one on the host that has none.
    fn apart(&self, kubectl: &Tool) -> anyhow::Result<()> {
        let list = "-n saas get pods -l app=api --field-selector=status.phase=Running -o";
        eventually("the API's pods are apart", APART_BOUND, || {
            let nodes = kubectl.ok(&format!("{list} jsonpath={{.items[*].spec.nodeName}}"))?;
            let apart = self.rack.servers.iter().filter(|server| nodes.contains(&server.host.name)).count();
            for replicas in (REPLICAS - 1)..=REPLICAS {
                if apart < REPLICAS {
                    kubectl.ok(&format!("-n saas scale deployment/api --replicas={replicas}"))?;
                }
                kubectl.ok("-n saas rollout status deployment/api --timeout=240s")?;
            }
            ensure!(apart == REPLICAS, "they are on {nodes}");
            Ok(())
        })
    }

    pub fn calm(&self) -> anyhow::Result<()> {
        self.judge.is_well(CALM, CALM_BOUND)
    }

    pub fn addresses(&self, wanted: impl Fn(usize) -> bool) -> Vec<String> {
        let servers = self.rack.servers.iter().enumerate().filter(|(number, _)| wanted(*number));
        servers.map(|(_, server)| server.host.address.clone()).collect()
    }

    /// The server on whose host a pod runs.
    pub fn server_of(&self, kubectl: &Tool, pod: &str) -> anyhow::Result<usize> {
        let node = saas::node_of(kubectl, pod)?;
        let found = self.rack.servers.iter().position(|server| server.host.name == node);
        found.with_context(|| format!("{pod} runs on {node:?}"))
    }

    /// The power of these servers is cut, their cables are pulled, and clients know of it.
    pub fn vanish(&mut self, servers: &[usize]) -> anyhow::Result<Instant> {
        self.judge.enter_by(self.addresses(|number| !servers.contains(&number)));
        let begin = Instant::now();
        for server in servers {
            self.rack.servers[*server].vanish()?;
        }
        Ok(begin)
    }
}
