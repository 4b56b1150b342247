//! Backups in a store that speaks S3 and checks signatures: refused, mended, gone, back; and a cluster restored from it by
//! the recovery kit alone, on an empty machine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use e2e::{Cluster, Host, Options};
use serde_json::Value;

use super::backup_proof::Backups;
use super::certs::Authority;
use super::daemon::Daemon;

const PORT: u16 = 4568;
const INSIDE: u16 = 4569;
const KEY: &str = "EVENKEEL";
const SECRET: &str = "a-secret-of-the-store";

/// The store, on a host of its own.
struct Store<'a> {
    host: &'a Host,
    folder: PathBuf,
    ca: String,
}

pub fn to_a_store(_: &()) -> anyhow::Result<()> {
    let mut options = Options::lane("s3", 32);
    let host = Host::up(options.host + 1)?;
    let folder = PathBuf::from("/var/tmp/evenkeel-e2e").join(format!("{}-store", options.name));
    let store = Store::new(&host, &folder)?;
    options.arguments = store.flags();
    // Nothing but what is asked for.
    options.arguments.extend(["--backup-schedule=off", "--backup-prove-schedule=off"].map(str::to_owned));
    let outcome = story(&store, Cluster::start(options)?);
    fs::remove_dir_all(&folder)?;
    outcome
}

fn story(store: &Store<'_>, mut cluster: Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    kubectl.ok("create secret generic secret --from-literal=word=plain")?;
    let backups = Backups { evenkeel: cluster.evenkeel()?, data: cluster.data.clone() };
    let (_inner, mut daemon) = store.start()?;
    // Another's secret: told with the store's own word, and kept where it can be.
    store.credentials("another")?;
    let said = backups.ok("")?;
    ensure!(said.contains("403 Forbidden (SignatureDoesNotMatch)"), "a wrong secret: {said}");
    ensure!(
        said.contains("BACKUP_TARGET_FAILED") && backups.list()?.len() == 1,
        "the folder has it all the same: {said}"
    );
    // The file is read again: no restart.
    store.credentials(SECRET)?;
    let said = backups.ok("")?;
    ensure!(!said.contains("BACKUP_TARGET_FAILED") && !said.contains("BACKUP_OFFSITE_MISSING"), "mended: {said}");
    backups.ok("prove")?;
    ensure!(backups.list_of(1)?.iter().any(|bundle| bundle["proven"] == true), "no evidence in the store");
    daemon.kill()?;
    let said = backups.ok("")?;
    ensure!(said.contains("BACKUP_TARGET_FAILED") && said.contains("reach https://"), "a store that is gone: {said}");
    let told = backups.evenkeel.ok(&format!("backup list --data-dir={}", backups.data.display()))?;
    ensure!(told.contains("cannot be read: reach https://"), "the list says {told}");
    daemon.again()?;
    daemon.listens(PORT)?;
    backups.ok("")?;
    ensure!(backups.list_of(1)?.len() == 2, "back again: {:?}", backups.list_of(1)?);
    from_nothing(store, &mut cluster, &backups)
}

/// Kit and store are all there is.
fn from_nothing(store: &Store<'_>, cluster: &mut Cluster, backups: &Backups) -> anyhow::Result<()> {
    let kit = store.folder.join("kit");
    fs::copy(cluster.data.join("server/recovery-kit.txt"), &kit)?;
    let newest = backups.list_of(1)?.pop().context("the store has a bundle")?;
    let name = newest["name"].as_str().context("it has a name")?.to_owned();
    cluster.power_cycle()?;
    cluster.wipe()?;
    let (data, url, reach) = (cluster.data.display().to_string(), store.url(), store.reach().join(" "));
    let evenkeel = cluster.evenkeel()?;
    let absent = format!("restore {url}/none.bundle --data-dir={data} --secret-file={} {reach}", kit.display());
    let said = evenkeel.call(&absent.split(' ').collect::<Vec<_>>(), "")?.failed()?;
    ensure!(said.contains("404 Not Found (NoSuchKey)"), "no such bundle: {said}");
    let restore = format!("restore {url}/{name} --data-dir={data} --secret-file={} {reach}", kit.display());
    let would: Value = serde_json::from_str(&evenkeel.ok(&format!("{restore} --dry-run --json"))?)?;
    ensure!(would["revision"].is_null() && would["objects"].as_u64() > Some(0), "it would restore {would}");
    let said = evenkeel.ok(&restore)?;
    ensure!(said.contains("Restored to 2") && said.contains("changes after that are gone"), "it says {said}");
    ensure!(said.contains("--cluster-cidr=10.42.0.0/16"), "it does not say what to start with: {said}");
    cluster.start_server()?;
    ensure!(cluster.kubectl().ok("get secret secret -o jsonpath={.data.word}")? == "cGxhaW4=");
    cluster.kubectl().ok(&format!("wait node/{} --for=condition=Ready --timeout=60s", cluster.host.name))?;
    let said = evenkeel.ok(&format!("restore --prune --yes --data-dir={data}"))?;
    ensure!(said.contains("nothing is to be pruned"), "after the node came back: {said}");
    let ghost = r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "ghost"}}"#;
    cluster.kubectl().ok_fed("create -f -", ghost)?;
    let said = evenkeel.ok(&format!("restore --prune --yes --data-dir={data}"))?;
    ensure!(said.contains("removed node ghost"), "with a ghost: {said}");
    cluster.kubectl().ok("wait --for=delete node/ghost --timeout=30s").map(drop)
}

impl<'a> Store<'a> {
    fn new(host: &'a Host, folder: &Path) -> anyhow::Result<Store<'a>> {
        let ca = Authority::make(folder, "ca")?;
        ca.issue("store", &host.address)?;
        Ok(Store { host, folder: folder.to_owned(), ca: ca.certificate() })
    }

    /// The store itself, and TLS in front of it.
    fn start(&self) -> anyhow::Result<(Daemon<'a>, Daemon<'a>)> {
        let base = self.folder.display();
        fs::create_dir_all(self.folder.join("objects/shop"))?;
        let program = e2e::target().join("tools/bin/s3s-fs");
        let keys = format!("--access-key {KEY} --secret-key {SECRET}");
        let line = format!("{} --host 0.0.0.0 --port {INSIDE} {keys} {base}/objects", program.display());
        let store = Daemon::start(self.host, &self.folder, "s3", &line)?;
        store.listens(INSIDE)?;
        let script = self.folder.join("tls.py");
        fs::write(&script, include_str!("../tls.py"))?;
        let line = format!("python3 {} {PORT} {base}/store.crt {base}/store.key {INSIDE}", script.display());
        let tls = Daemon::start(self.host, &self.folder, "tls", &line)?;
        tls.listens(PORT)?;
        Ok((store, tls))
    }

    fn credentials(&self, secret: &str) -> anyhow::Result<()> {
        let text = format!("[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {secret}\n");
        Ok(fs::write(self.folder.join("credentials"), text)?)
    }

    fn url(&self) -> String {
        format!("https://{}:{PORT}/shop/clusters/one", self.host.address)
    }

    /// How it is reached: for the server and for a restore.
    fn reach(&self) -> Vec<String> {
        let credentials = self.folder.join("credentials");
        vec![format!("--backup-s3-credentials={}", credentials.display()), format!("--backup-s3-ca={}", self.ca)]
    }

    fn flags(&self) -> Vec<String> {
        let mut flags = vec![format!("--backup-s3={}", self.url())];
        flags.extend(self.reach());
        flags
    }
}
