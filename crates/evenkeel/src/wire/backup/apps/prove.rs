//! Brings an application's backup to life where it disturbs nobody: in a pod like the one it was taken from, with an empty
//! volume, no Service and no token; and holds what it measures against what was measured then.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use api::{Gvr, Key as Name, Tree};
use base::Clock;
use bytes::Bytes;
use keeper::backup::{Check, Outcome};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Apps;
use super::exec::Place;
use super::hook::Hook;
use super::index::Index;
use super::take::{QUEUE, number};
use crate::wire::SystemClock;
use crate::wire::backup::signed::Key;
use crate::wire::backup::targets::Target;

/// The image is there already where it runs.
const START_TIMEOUT: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(500);
/// Whatever becomes of this server, the pod ends.
const LIFE_SECONDS: u32 = 4 * 3600;
const RESTORE: &str = "/restore";
/// What goes to the script at once.
const FRAME_BYTES: usize = 64 << 10;

/// What of the pod the scratch one takes over, beside the container.
const OF_POD: [&str; 4] = ["securityContext", "tolerations", "imagePullSecrets", "runtimeClassName"];
/// And of the container.
const OF_CONTAINER: [&str; 5] = ["image", "env", "envFrom", "securityContext", "resources"];

/// The check of the backup that this index names.
pub async fn prove(apps: &Apps, key: &Key, target: &dyn Target, file: &str) -> Check {
    let began = SystemClock.now();
    let (name, outcome, said) = match read(key, target, file).await {
        Err(failure) => (file.to_owned(), Outcome::Failed, format!("{failure:#}")),
        Ok(index) => {
            let name = format!("app {}", index.app);
            match alive(apps, key, target, &index).await {
                Ok(Some(said)) => (name, Outcome::Passed, said),
                Ok(None) => (name, Outcome::Skipped, "it has no script that brings it to life".to_owned()),
                Err(failure) => (name, Outcome::Failed, format!("{failure:#}")),
            }
        }
    };
    let millis = u64::try_from(SystemClock.now().duration_since(began).as_millis()).unwrap_or_default();
    Check { name, outcome, said, millis }
}

async fn read(key: &Key, target: &dyn Target, file: &str) -> Result<Index> {
    Index::read(&target.get(file).await?, key)
}

async fn alive(apps: &Apps, key: &Key, target: &dyn Target, index: &Index) -> Result<Option<String>> {
    let Some(script) = &index.prove else { return Ok(None) };
    let hook = apps.hook(index).await?;
    let pod = Scratch { apps, namespace: &index.app.namespace, name: format!("evenkeel-proof-{}", index.app.name) };
    pod.remove().await.context("remove the pod of a proof before")?;
    let measured = pod.measure(&hook, script, key, target, index).await;
    pod.remove().await.context("remove the pod of the proof")?;
    let (found, wanted) = (measured?, index.measured.unwrap_or_default());
    ensure!(wanted <= found, "brought to life it measures {found}; when it was taken it was {wanted}");
    Ok(Some(format!("{} MB brought to life: it measures {found}, and {wanted} when it was taken", index.bytes >> 20)))
}

/// The pod of a proof.
struct Scratch<'a> {
    apps: &'a Apps,
    namespace: &'a str,
    name: String,
}

// === impl Scratch ===

impl Scratch<'_> {
    async fn measure(&self, hook: &Hook, script: &str, key: &Key, target: &dyn Target, index: &Index) -> Result<u64> {
        let pods = pods();
        let body = pod(&self.name, hook).context("a pod like the one it was taken from")?;
        self.apps.client.create(&pods, self.namespace, &body).await.context("create the pod of the proof")?;
        self.runs().await?;
        let place = Place { namespace: self.namespace, pod: &self.name, container: &hook.container };
        let (sender, receiver) = mpsc::channel(QUEUE);
        let feed = feed(key, target, index, sender);
        let (fed, number) = tokio::join!(feed, number(self.apps, &place, script, Some(receiver)));
        // The script's own words say more than that nobody read on.
        let number = number.context("bring it to life")?;
        fed.map(|()| number)
    }

    async fn runs(&self) -> Result<()> {
        let wait = async {
            loop {
                let pod = self.apps.client.get(&pods(), &Name::new(self.namespace, &self.name)).await?;
                match pod.pointer("/status/phase").and_then(Tree::as_str) {
                    Some("Running") => return Ok(()),
                    Some("Failed" | "Succeeded") => bail!("it ended: {}", pod["status"]["message"]),
                    _ => tokio::time::sleep(LOOK).await,
                }
            }
        };
        let waited = tokio::time::timeout(START_TIMEOUT, wait).await;
        waited
            .unwrap_or_else(|_| bail!("it does not run after {} s", START_TIMEOUT.as_secs()))
            .context("the pod of the proof")
    }

    /// And waits until it is gone, so that the next one is another.
    async fn remove(&self) -> Result<()> {
        let (pods, key) = (pods(), Name::new(self.namespace, &self.name));
        let gone = async {
            loop {
                match self.apps.client.delete(&pods, &key, &json!({"gracePeriodSeconds": 0})).await {
                    Err(error) if error.is_not_found() => return Ok(()),
                    Err(error) => return Err(error).with_context(|| format!("remove {key}")),
                    Ok(_) => tokio::time::sleep(LOOK).await,
                }
            }
        };
        tokio::time::timeout(START_TIMEOUT, gone).await.with_context(|| format!("{key} does not go"))?
    }
}

fn pods() -> Gvr {
    Gvr::new("", "v1", "pods")
}

/// Every piece in order, checked and opened, in frames.
async fn feed(key: &Key, target: &dyn Target, index: &Index, sender: mpsc::Sender<Bytes>) -> Result<()> {
    for piece in 0..index.pieces.len() {
        let mut open = Bytes::from(index.open(piece, &target.get(&index.piece(piece)).await?, key)?);
        while !open.is_empty() {
            let frame = open.split_to(open.len().min(FRAME_BYTES));
            sender.send(frame).await.context("the script did not read all of it")?;
        }
    }
    Ok(())
}

/// A pod in which the container's program does not run and everything it needs is there.
fn pod(name: &str, hook: &Hook) -> Result<Value> {
    let from = &hook.tree["spec"];
    let containers = from["containers"].as_array().context("it has no containers")?;
    let container = containers.iter().find(|one| one["name"] == hook.container.as_str()).context("no container")?;
    let take = |from: &Value, fields: &[&str]| -> serde_json::Map<String, Value> {
        let there = fields.iter().filter_map(|field| Some(((*field).to_owned(), from.get(*field)?.clone())));
        there.collect()
    };
    let mut inside = take(container, &OF_CONTAINER);
    inside.extend([
        ("name".to_owned(), json!(hook.container)),
        ("command".to_owned(), json!(["/bin/sh", "-c", format!("sleep {LIFE_SECONDS}")])),
        ("volumeMounts".to_owned(), json!([{"name": "restore", "mountPath": RESTORE}])),
    ]);
    let mut spec = take(from, &OF_POD);
    spec.extend([
        ("containers".to_owned(), json!([inside])),
        ("volumes".to_owned(), json!([{"name": "restore", "emptyDir": {}}])),
        // There the image is.
        ("nodeSelector".to_owned(), json!({"kubernetes.io/hostname": from["nodeName"]})),
        ("restartPolicy".to_owned(), json!("Never")),
        ("terminationGracePeriodSeconds".to_owned(), json!(0)),
        ("activeDeadlineSeconds".to_owned(), json!(LIFE_SECONDS)),
        ("automountServiceAccountToken".to_owned(), json!(false)),
        ("enableServiceLinks".to_owned(), json!(false)),
    ]);
    let labels = json!({"evenkeel.io/proof": hook.app.name});
    let metadata = json!({"name": name, "namespace": hook.app.namespace, "labels": labels});
    Ok(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
}

#[cfg(test)]
mod tests {
    use super::pod;
    use crate::wire::backup::apps::hook::hooks;
    use serde_json::json;

    #[test]
    fn the_scratch_pod_is_like_the_first_without_its_volumes_and_names() {
        let source = json!({
            "metadata": {"name": "sql-0", "namespace": "shop", "labels": {"app": "sql"},
                "annotations": {"backup.evenkeel.io/take": "dump"}},
            "spec": {"nodeName": "n", "hostname": "sql-0", "securityContext": {"runAsUser": 999},
                "volumes": [{"name": "data"}],
                "containers": [{"name": "sql", "image": "sql:1", "env": [{"name": "A", "value": "b"}],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}], "command": ["sql"],
                    "livenessProbe": {}, "ports": [{"containerPort": 1}]}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        let hook = hooks(&[source]).remove(0).hook.unwrap();
        let made = pod("evenkeel-proof-sql", &hook).unwrap();
        assert_eq!(made["metadata"]["labels"], json!({"evenkeel.io/proof": "sql-0"}));
        let spec = &made["spec"];
        assert_eq!(spec["securityContext"], json!({"runAsUser": 999}));
        assert_eq!(spec["nodeSelector"], json!({"kubernetes.io/hostname": "n"}));
        assert_eq!(spec["volumes"], json!([{"name": "restore", "emptyDir": {}}]));
        let inside = &spec["containers"][0];
        assert_eq!((&inside["image"], &inside["env"][0]["value"]), (&json!("sql:1"), &json!("b")));
        assert!(
            inside.get("livenessProbe").is_none() && inside.get("ports").is_none() && spec.get("hostname").is_none()
        );
    }
}
