//! The server with its state in an etcd: TLS both ways, several endpoints, etcd killed and back, restarts, a restore into
//! another etcd, and what is said of one that is not right.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use e2e::{Cluster, Dialogue, Host, Options, eventually};

use super::certs::{Authority, Leaf};
use super::daemon::Daemon;
use super::pods::{self, restarts};

const PORT: u16 = 2379;
const BOUND: Duration = Duration::from_secs(60);

/// An etcd with TLS on a host of its own.
struct Lab<'a> {
    host: &'a Host,
    folder: PathBuf,
    ca: Authority,
    client: Leaf,
}

pub fn as_the_store(_: &()) -> anyhow::Result<()> {
    let options = Options::lane("etcd", 6);
    let host = Host::up(options.host + 1)?;
    let folder = PathBuf::from("/var/tmp/evenkeel-e2e").join(format!("{}-store", options.name));
    let outcome = story(&Lab::new(&host, &folder)?, options);
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn story(lab: &Lab<'_>, mut options: Options) -> anyhow::Result<()> {
    let mut etcd = lab.start("one")?;
    options.arguments = lab.flags(&lab.ca.certificate(), true);
    let mut cluster = Cluster::start(options)?;
    let kubectl = cluster.kubectl();
    ensure!(!cluster.data.join("server/db/state.db").exists(), "the state is in a file after all");
    kubectl.ok_fed("apply -f -", pods::SLEEPER)?;
    kubectl.ok("create configmap kept --from-literal=a=1")?;
    kubectl.ok("wait pod/sleeper --for=condition=Ready --timeout=90s")?;
    cluster.stop_server()?;
    cluster.start_server()?;
    ensure!(kubectl.ok("get configmap kept -o jsonpath={.data.a}")? == "1");
    let before = revision(&cluster)?;
    etcd.kill()?;
    let refused = kubectl.call(&["create", "configmap", "meanwhile", "--request-timeout=20s"], "")?;
    ensure!(!refused.success, "a write was acknowledged without a store");
    let consistent = kubectl.call(&["get", "configmap", "kept", "--request-timeout=20s"], "")?;
    ensure!(!consistent.success, "a consistent read was answered without a store");
    // Whoever takes what is in memory gets it.
    kubectl.ok("get --raw /api/v1/namespaces/default/configmaps/kept?resourceVersion=0")?;
    let status = cluster.evenkeel()?.call(&["status", &format!("--data-dir={}", cluster.data.display())], "")?;
    ensure!(status.code == 2 && status.stdout.contains("API        answers, not ready"), "{status:?}");
    etcd.again()?;
    eventually("writes are taken again", BOUND, || kubectl.ok("create configmap after").map(drop))?;
    ensure!(before < revision(&cluster)?, "revisions went back");
    ensure!(restarts(&kubectl, "sleeper")? == "0", "the pod was restarted");
    troubles(lab, &cluster)?;
    restored(lab, &mut cluster, etcd)
}

/// A backup of the running server, into an empty etcd and an empty folder: the same cluster.
fn restored(lab: &Lab<'_>, cluster: &mut Cluster, mut etcd: Daemon<'_>) -> anyhow::Result<()> {
    let (secret, bundle) = (lab.folder.join("passphrase"), lab.folder.join("bundle.tar"));
    std::fs::write(&secret, "correct horse\n")?;
    let with = format!("--file={} --passphrase-file={}", bundle.display(), secret.display());
    cluster.evenkeel()?.ok(&format!("backup {with} --data-dir={}", cluster.data.display()))?;
    let before = revision(cluster)?;
    cluster.power_cycle()?;
    etcd.kill()?;
    cluster.wipe()?;
    let _other = lab.start("two")?;
    let flags = lab.flags(&lab.ca.certificate(), true).join(" ");
    cluster.evenkeel()?.ok(&format!("restore {with} --data-dir={} {flags}", cluster.data.display()))?;
    cluster.start_server()?;
    ensure!(cluster.kubectl().ok("get configmap kept -o jsonpath={.data.a}")? == "1");
    ensure!(before < revision(cluster)?, "revisions went back over a restore");
    Ok(())
}

/// What is said when the etcd is not right. Each ends by itself, but for one that may still come.
fn troubles(lab: &Lab<'_>, cluster: &Cluster) -> anyhow::Result<()> {
    let evenkeel = cluster.evenkeel()?;
    let other = Authority::make(&lab.folder, "other")?;
    let address = &lab.host.address;
    let ca = lab.ca.certificate();
    let plain = vec![format!("--datastore-endpoint=http://{address}:{PORT}")];
    let data = format!("--data-dir={}", lab.folder.join("data").display());
    let cases = [
        ("a wrong CA", lab.flags(&other.certificate(), true), "TLS with it fails"),
        ("no client certificate", lab.flags(&ca, false), "TLS with it fails"),
        ("no TLS", plain, "does not speak as etcd does"),
        ("no CA", vec![format!("--datastore-endpoint=https://{address}:{PORT}")], "no CA is given"),
        ("a missing file", lab.flags("/nowhere.crt", false), "read /nowhere.crt"),
        (
            "another store",
            vec!["--datastore-endpoint=mysql://root:secret@tcp(db)/k3s".to_owned()],
            "\"mysql\" is no store",
        ),
    ];
    for (what, flags, wanted) in cases {
        let flags: Vec<&str> = ["server", "--disable-agent", "--https-listen-port=7443", &data]
            .into_iter()
            .chain(flags.iter().map(String::as_str))
            .collect();
        let said = evenkeel.call(&flags, "")?.failed()?;
        ensure!(said.contains(wanted), "{what}: it says\n{said}");
        ensure!(!said.contains("secret"), "{what}: it shows a password");
    }
    let absent =
        format!("server --disable-agent --https-listen-port=7443 {data} --datastore-endpoint=http://{address}:1");
    let mut waiting = Dialogue::with(evenkeel.spawn(&absent)?)?;
    waiting.expect("waiting for etcd", Duration::from_secs(20)).map(drop)
}

fn revision(cluster: &Cluster) -> anyhow::Result<u64> {
    let list: serde_json::Value = serde_json::from_str(&cluster.kubectl().ok("get --raw /api/v1/namespaces")?)?;
    let text = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    Ok(text.parse()?)
}

impl<'a> Lab<'a> {
    fn new(host: &'a Host, folder: &Path) -> anyhow::Result<Lab<'a>> {
        let ca = Authority::make(folder, "ca")?;
        ca.issue("etcd", &host.address)?;
        let client = ca.issue("client", "127.0.0.1")?;
        Ok(Lab { host, folder: folder.to_owned(), ca, client })
    }

    fn start(&self, name: &str) -> anyhow::Result<Daemon<'a>> {
        let (base, address, ca) = (self.folder.display(), &self.host.address, self.ca.certificate());
        let line = format!(
            "etcd --name {name} --data-dir {base}/{name}.etcd --listen-client-urls https://{address}:{PORT} \
             --advertise-client-urls https://{address}:{PORT} --listen-peer-urls http://127.0.0.1:2380 \
             --cert-file {base}/etcd.crt --key-file {base}/etcd.key --client-cert-auth --trusted-ca-file {ca}"
        );
        let daemon = Daemon::start(self.host, &self.folder, name, &line)?;
        daemon.listens(PORT)?;
        Ok(daemon)
    }

    /// Two endpoints, of which the first never answers.
    fn flags(&self, ca: &str, client: bool) -> Vec<String> {
        let address = &self.host.address;
        let mut flags = vec![
            format!("--datastore-endpoint=https://{address}:1,https://{address}:{PORT}"),
            format!("--datastore-cafile={ca}"),
        ];
        if client {
            flags.push(format!("--datastore-certfile={}", self.client.certificate));
            flags.push(format!("--datastore-keyfile={}", self.client.key));
        }
        flags
    }
}
