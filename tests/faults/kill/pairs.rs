//! Two leaders at once would show in what they make: a Deployment of two that ever had three pods, or two ReplicaSets.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use e2e::{Endpoint, Tool, eventually, pause};

use super::rounds::Rounds;

const PODS: &str = "/api/v1/namespaces/kill/pods?labelSelector=app";
const SETS: &str = "/apis/apps/v1/namespaces/kill/replicasets?labelSelector=app";
const POLL: Duration = Duration::from_millis(150);
const REPLICAS: usize = 2;
/// How long its pods may take, where the runtime was killed again and again.
const BOUND: Duration = Duration::from_secs(180);
const DEPLOYMENT: &str = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"NAME","namespace":"kill"},
    "spec":{"replicas":REPLICAS,"selector":{"matchLabels":{"app":"NAME"}},
    "template":{"metadata":{"labels":{"app":"NAME"}},"spec":{"terminationGracePeriodSeconds":0,"containers":[
    {"name":"c","image":"evenkeel.local/busybox:1","command":["sleep","99999"]}]}}}}"#;

/// What was ever seen of the Deployments, by their names.
#[derive(Default)]
pub struct Pairs {
    current: Mutex<Option<String>>,
    pods: Mutex<BTreeSet<(String, String)>>,
    sets: Mutex<BTreeSet<(String, String)>>,
    /// Deployments, and how often their pods' containers were started again.
    judged: Mutex<(u64, u64)>,
}

// === impl Pairs ===

impl Pairs {
    /// One more Deployment, which is made while processes are killed.
    pub fn begin(&self, kubectl: &Tool, number: u64) -> anyhow::Result<()> {
        let name = format!("pair-{number}");
        let deployment = DEPLOYMENT.replace("NAME", &name).replace("REPLICAS", &REPLICAS.to_string());
        eventually("a Deployment is made", BOUND, || kubectl.ok_fed("apply -f -", &deployment).map(drop))?;
        *self.current.lock().expect("no holder of this lock panics") = Some(name);
        Ok(())
    }

    pub fn run(&self, endpoints: &[Endpoint], stop: &AtomicBool) {
        let mut rounds = Rounds::new(endpoints);
        while !stop.load(Ordering::Relaxed) {
            // A server that is down sees nothing.
            let _ = look(&mut rounds, PODS, &self.pods).and_then(|()| look(&mut rounds, SETS, &self.sets));
            rounds.go_on();
            pause(POLL);
        }
    }

    /// The last one is complete, and never was more than that. It is removed.
    pub fn judge(&self, kubectl: &Tool) -> anyhow::Result<()> {
        let Some(name) = self.current.lock().expect("no holder of this lock panics").take() else { return Ok(()) };
        eventually("its pods run", BOUND, || {
            kubectl.ok(&format!("-n kill rollout status deployment/{name} --timeout=60s")).map(drop)
        })?;
        let count = |seen: &Mutex<BTreeSet<(String, String)>>| {
            let seen = seen.lock().expect("no holder of this lock panics");
            seen.iter().filter(|(app, _)| *app == name).count()
        };
        let (pods, sets) = (count(&self.pods), count(&self.sets));
        ensure!(pods <= REPLICAS && sets <= 1, "{name} had {pods} pods and {sets} ReplicaSets");
        let restarts = kubectl.ok(&format!(
            "-n kill get pods -l app={name} -o jsonpath={{.items[*].status.containerStatuses[*].restartCount}}"
        ))?;
        // A container that was just being started when containerd died is started again, rightly.
        let restarts: u64 = restarts.split_whitespace().filter_map(|count| count.parse::<u64>().ok()).sum();
        let mut judged = self.judged.lock().expect("no holder of this lock panics");
        *judged = (judged.0 + 1, judged.1 + restarts);
        kubectl.ok(&format!("-n kill delete deployment {name} --wait=false --cascade=foreground")).map(drop)
    }

    pub fn told(&self) -> String {
        let (judged, restarts) = *self.judged.lock().expect("no holder of this lock panics");
        format!("{judged} Deployments had their {REPLICAS} pods and never more, {restarts} starts were repeated")
    }
}

fn look(rounds: &mut Rounds<'_>, path: &str, seen: &Mutex<BTreeSet<(String, String)>>) -> anyhow::Result<()> {
    let list = rounds.get(path)?;
    let items = list["items"].as_array().into_iter().flatten();
    let named = items.filter_map(|item| {
        let metadata = &item["metadata"];
        Some((metadata["labels"]["app"].as_str()?.to_owned(), metadata["uid"].as_str()?.to_owned()))
    });
    seen.lock().expect("no holder of this lock panics").extend(named);
    Ok(())
}
