//! A backup sealed to two people, and the restore on an empty disk: nothing of the folder is touched by a bundle that is
//! damaged, newer, or not ours to open; afterwards the cluster is the same, and no revision is seen twice.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use e2e::{Cluster, Options, Tool};
use serde_json::Value;

use super::pods;

pub fn restored(_: &()) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(Options::lane("restore", 14))?;
    let keep = Keep::make(&cluster)?;
    let outcome = story(&mut cluster, &keep);
    fs::remove_dir_all(&keep.folder)?;
    outcome
}

fn story(cluster: &mut Cluster, keep: &Keep) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    kubectl.ok("create configmap kept --from-literal=a=1")?;
    kubectl.ok("create secret generic secret --from-literal=word=plain")?;
    kubectl.ok_fed("apply -f -", pods::SLEEPER)?;
    kubectl.ok_fed("apply -f -", VOLUME)?;
    kubectl.ok("wait pod/sleeper --for=condition=Ready --timeout=90s")?;
    let evenkeel = cluster.evenkeel()?;
    let data = format!("--data-dir={}", cluster.data.display());
    let (one, two) = (keep.recipient(&evenkeel, "one")?, keep.recipient(&evenkeel, "two")?);
    let bundle = keep.path("bundle.tar");
    let said = evenkeel.ok(&format!("backup {data} --file={bundle} --recipient={one} --recipient={two}"))?;
    ensure!(said.contains(&two) && said.contains("not in it: the content of volumes"), "backup says {said}");
    ensure!(said.contains("not in it: the content of volume ledger (shop/data, left)"), "no volume by name: {said}");
    kubectl.ok("create configmap later")?;
    rekeyed(cluster)?;
    let before = revision(&kubectl)?;
    let full =
        evenkeel.call(&["restore", &data, "--file", &bundle, "--secret-file", &keep.path("two")], "")?.failed()?;
    ensure!(full.contains("is there already"), "a folder with a cluster: {full}");
    let sealed = fs::read(&bundle)?;
    ensure!(!contains(&sealed, b"plain") && !contains(&sealed, b"PRIVATE KEY"), "the bundle shows secrets");
    cluster.power_cycle()?;
    cluster.wipe()?;
    let evenkeel = cluster.evenkeel()?;
    refused(&evenkeel, keep, cluster, &sealed)?;
    let words = format!("restore {data} --file={bundle} --secret-file={}", keep.path("two"));
    let said = evenkeel.ok(&words)?;
    ensure!(said.contains("not restored: the content of volumes"), "restore says {said}");
    ensure!(said.contains("not restored: the content of volume ledger"), "restore names no volume: {said}");
    ensure!(said.contains("changes after that are gone"), "restore does not say what is gone: {said}");
    cluster.start_server()?;
    ensure!(kubectl.ok("get configmap kept -o jsonpath={.data.a}")? == "1");
    ensure!(kubectl.ok("get secret secret -o jsonpath={.data.word}")? == "cGxhaW4=");
    ensure!(keys(cluster)? == ["1"], "the bundle of before brought another key than its own");
    ensure!(!kubectl.call(&["get", "configmap", "later"], "")?.success, "something came after the backup");
    ensure!(before < revision(&kubectl)?, "revisions went back");
    let watch = format!("get --raw /api/v1/configmaps?watch=1&resourceVersion={before}&timeoutSeconds=5");
    let told = kubectl.call(&watch.split(' ').collect::<Vec<_>>(), "")?;
    ensure!(format!("{}{}", told.stdout, told.stderr).contains("too old"), "a watch from before: {told:?}");
    kubectl.ok("wait pod/sleeper --for=condition=Ready --timeout=90s").map(drop)
}

/// Secrets get another key in a running server; the bundle of before is restored with the one it holds.
fn rekeyed(cluster: &Cluster) -> anyhow::Result<()> {
    let (evenkeel, kubectl) = (cluster.evenkeel()?, cluster.kubectl());
    let version = "get secret secret -o jsonpath={.metadata.resourceVersion}";
    let before = kubectl.ok(version)?;
    let rotate = format!("secrets-encrypt rotate --data-dir={}", cluster.data.display());
    let plan = evenkeel.ok(&format!("{rotate} --dry-run"))?;
    ensure!(plan.contains("under key number 1") && keys(cluster)? == ["1"], "{plan}");
    let said = evenkeel.ok(&format!("{rotate} --yes"))?;
    ensure!(said.contains("under key number 2") && said.contains("done"), "{said}");
    ensure!(!said.contains("; 0 values"), "it does not know what it wrote: {said}");
    ensure!(keys(cluster)? == ["2"], "the key before is there still");
    ensure!(kubectl.ok(version)? != before, "the secret was not written anew");
    ensure!(kubectl.ok("get secret secret -o jsonpath={.data.word}")? == "cGxhaW4=");
    Ok(())
}

/// The ids of the keys of Secrets at rest.
fn keys(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(cluster.data.join("server/cred/encryption.keys"))?;
    Ok(text.lines().filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect())
}

/// A volume of somebody's: its content is in no bundle.
const VOLUME: &str = r#"
apiVersion: v1
kind: PersistentVolume
metadata: {name: ledger}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  hostPath: {path: /srv/ledger}
  claimRef: {namespace: shop, name: data}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [left]}]
"#;

/// Each of these says what is wrong, and leaves the folder as it was.
fn refused(evenkeel: &Tool, keep: &Keep, cluster: &Cluster, sealed: &[u8]) -> anyhow::Result<()> {
    let (cut, changed, newer) = (keep.path("cut.tar"), keep.path("changed.tar"), keep.path("newer.tar"));
    fs::write(&cut, &sealed[..sealed.len() / 2])?;
    let mut damaged = sealed.to_vec();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&changed, damaged)?;
    another_format(keep, &newer)?;
    fs::write(keep.path("text"), "a text")?;
    keep.recipient(evenkeel, "stranger")?;
    let (bundle, text) = (keep.path("bundle.tar"), keep.path("text"));
    let cases = [
        (&cut, "two", "cut off"),
        (&changed, "two", "is damaged"),
        (&newer, "two", "take a newer one"),
        (&text, "two", "not a bundle"),
        (&bundle, "stranger", "does not open it"),
        (&bundle, "text", "there is no secret key in it"),
    ];
    let before = listing(&cluster.data)?;
    let data = format!("--data-dir={}", cluster.data.display());
    for (file, key, wanted) in cases {
        let said =
            evenkeel.call(&["restore", &data, "--file", file, "--secret-file", &keep.path(key)], "")?.failed()?;
        ensure!(said.contains(wanted), "{file} with {key}: it says {said}");
        ensure!(listing(&cluster.data)? == before, "{file} with {key}: the folder was touched");
    }
    let shown: Value = serde_json::from_str(&evenkeel.ok(&format!("restore --show --file={bundle}"))?)?;
    ensure!(shown["objects"].as_u64().is_some_and(|count| 50 < count), "it shows {shown}");
    Ok(())
}

/// The same bundle, said to be of a format to come.
fn another_format(keep: &Keep, path: &str) -> anyhow::Result<()> {
    let folder = keep.path("unpacked");
    fs::create_dir_all(&folder)?;
    Tool::new("tar").ok(&format!("-xf {} -C {folder}", keep.path("bundle.tar")))?;
    let manifest = Path::new(&folder).join("manifest.json");
    let mut tree: Value = serde_json::from_str(&fs::read_to_string(&manifest)?)?;
    tree["format"] = Value::from(99);
    fs::write(&manifest, tree.to_string())?;
    Tool::new("tar").ok(&format!("-cf {path} -C {folder} manifest.json store.snapshot keys.sealed")).map(drop)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn listing(folder: &Path) -> anyhow::Result<String> {
    Tool::new("find").ok(&format!("{} -printf %p\\t%y\\t%s\\n", folder.display()))
}

fn revision(kubectl: &Tool) -> anyhow::Result<u64> {
    let list: Value = serde_json::from_str(&kubectl.ok("get --raw /api/v1/namespaces")?)?;
    list["metadata"]["resourceVersion"].as_str().context("a list has a revision")?.parse().context("a number")
}

/// Where people keep bundles and keys: not on the cluster's disk.
struct Keep {
    folder: PathBuf,
}

impl Keep {
    fn make(cluster: &Cluster) -> anyhow::Result<Keep> {
        let folder = cluster.data.with_extension("keep");
        fs::create_dir_all(&folder)?;
        Ok(Keep { folder })
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Makes a pair, keeps the secret in a file and answers the recipient.
    fn recipient(&self, evenkeel: &Tool, name: &str) -> anyhow::Result<String> {
        let said = evenkeel.ok("backup --new-recipient")?;
        let word = |start: &str| {
            let found = said.split_whitespace().find(|word| word.starts_with(start));
            found.map(str::to_owned).with_context(|| format!("no {start} in {said}"))
        };
        fs::write(self.folder.join(name), word("EVK-SECRET-")?)?;
        word("evk-recipient-")
    }
}
