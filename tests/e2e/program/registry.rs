//! Images out of a real registry with TLS and passwords: mirrors and credentials of `registries.yaml`, `images` on the
//! command line, pull secrets, pull policies.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::{Cluster, Host, Options, Tool, eventually};

use super::certs::Authority;
use super::daemon::Daemon;
use super::pods;

/// One whose password is in `registries.yaml`, and one whose is in a pull secret.
const KNOWN: u16 = 5000;
const SECRET: u16 = 5001;
/// `user:secret`, as htpasswd writes it.
const HTPASSWD: &str = "user:$2b$04$StnVW44RIq/18U6qx4Myse582dWXN2/qlZpWwcWKyevKBUc2rsJTm\n";
const BOUND: Duration = Duration::from_secs(60);
const PULLED: &str = "registry.example/team/busybox:1";

pub fn images(_: &()) -> anyhow::Result<()> {
    let options = Options::lane("images", 8);
    let host = Host::up(options.host + 1)?;
    let folder = PathBuf::from("/var/tmp/evenkeel-e2e").join(format!("{}-registry", options.name));
    let outcome = story(&host, &folder, options);
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn story(host: &Host, folder: &Path, mut options: Options) -> anyhow::Result<()> {
    let ca = Authority::make(folder, "ca")?;
    ca.issue("registry", &host.address)?;
    std::fs::write(folder.join("htpasswd"), HTPASSWD)?;
    let mut known = registry(host, folder, KNOWN)?;
    let _secret = registry(host, folder, SECRET)?;
    for name in ["team/busybox:1", "team/busybox:2"] {
        push(&format!("{}:{KNOWN}/{name}", host.address))?;
    }
    push(&format!("{}:{SECRET}/own/busybox:1", host.address))?;
    let file = folder.join("registries.yaml");
    std::fs::write(&file, registries(&host.address, &ca.certificate()))?;
    options.arguments = vec![format!("--private-registry={}", file.display())];
    let cluster = Cluster::start(options)?;
    // The container runtime is up once the node is.
    crate::basics::node_is_ready(&cluster)?;
    commands(&cluster)?;
    pull_secret(&cluster.kubectl(), host)?;
    policies(&cluster.kubectl(), &mut known)
}

/// A registry's process. Both keep their own images.
fn registry<'a>(host: &'a Host, folder: &Path, port: u16) -> anyhow::Result<Daemon<'a>> {
    let base = folder.display();
    let config = format!(
        "version: 0.1\nstorage:\n  filesystem: {{rootdirectory: {base}/images-{port}}}\nauth:\n  htpasswd: {{realm: e2e, \
         path: {base}/htpasswd}}\nhttp:\n  addr: {}:{port}\n  secret: e2e\n  tls: {{certificate: {base}/registry.crt, key: \
         {base}/registry.key}}\n",
        host.address
    );
    let path = folder.join(format!("registry-{port}.yml"));
    std::fs::write(&path, config)?;
    let name = format!("registry-{port}");
    let daemon = Daemon::start(host, folder, &name, &format!("docker-registry serve {}", path.display()))?;
    daemon.listens(port)?;
    Ok(daemon)
}

fn push(reference: &str) -> anyhow::Result<()> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/images/busybox-1.tar");
    let from = format!("oci-archive:{}", target.canonicalize()?.display());
    let words = ["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", "--dest-creds=user:secret", &from];
    Tool::new("skopeo").ok_with(&[&words[..], &[&format!("docker://{reference}")]].concat()).map(drop)
}

fn registries(address: &str, ca: &str) -> String {
    format!(
        "mirrors:\n  registry.example:\n    endpoint: [\"https://{address}:{KNOWN}\"]\nconfigs:\n  \"{address}:{KNOWN}\":\n    \
         auth: {{username: user, password: secret}}\n    tls: {{ca_file: {ca}}}\n  \"{address}:{SECRET}\":\n    tls: \
         {{ca_file: {ca}}}\n"
    )
}

/// `images pull`, `ls`, `rm`, `import`.
fn commands(cluster: &Cluster) -> anyhow::Result<()> {
    let data = format!("--data-dir={}", cluster.data.display());
    let images = |words: &str| cluster.evenkeel()?.ok(&format!("images {words} {data}"));
    let has = |name: &str| Ok::<_, anyhow::Error>(images("ls")?.lines().any(|line| line.starts_with(name)));
    let said = images(&format!("pull {PULLED}"))?;
    ensure!(said.contains(PULLED) && said.contains("sha256:"), "pull says {said:?}");
    ensure!(has(PULLED)?, "it is not listed");
    images(&format!("rm {PULLED}"))?;
    ensure!(!has(PULLED)?, "it is still listed");
    let archive = cluster.data.join("agent/images/busybox-1.tar");
    let said = images(&format!("import {}", archive.display()))?;
    ensure!(said.contains("evenkeel.local/busybox:1"), "import says {said:?}");
    let failed = cluster.evenkeel()?.call(&["images", "pull", "registry.example/team/none:1", &data], "")?.failed()?;
    ensure!(failed.contains("pull registry.example/team/none:1"), "pull says {failed:?}");
    Ok(())
}

fn pod(name: &str, image: &str, policy: &str, rest: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  {rest}\n  \
         containers: [{{name: c, image: \"{image}\", imagePullPolicy: {policy}, command: [sleep, \"9999\"]}}]\n"
    )
}

fn runs(kubectl: &Tool, name: &str) -> anyhow::Result<()> {
    kubectl.ok(&format!("wait pod/{name} --for=condition=Ready --timeout=90s")).map(drop)
}

fn waits(kubectl: &Tool, name: &str, reasons: &[&str]) -> anyhow::Result<()> {
    eventually(&format!("pod {name} waits for its image"), BOUND, || {
        let why = pods::waiting(kubectl, name)?;
        ensure!(reasons.contains(&why.as_str()), "it waits because of {why:?}");
        Ok(())
    })
}

/// A pod that may not pull does not start; with its secret it does, also with one of its service account.
fn pull_secret(kubectl: &Tool, host: &Host) -> anyhow::Result<()> {
    let registry = format!("{}:{SECRET}", host.address);
    let image = format!("{registry}/own/busybox:1");
    kubectl.ok_fed("apply -f -", &pod("stranger", &image, "Always", ""))?;
    waits(kubectl, "stranger", &["ErrImagePull", "ImagePullBackOff"])?;
    let events = "get events --field-selector involvedObject.name=stranger -o jsonpath={.items[*].message}";
    kubectl.tells(events, &[&image])?;
    let auth = STANDARD.encode(format!(r#"{{"auths":{{"{registry}":{{"username":"user","password":"secret"}}}}}}"#));
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: own}}\ntype: kubernetes.io/dockerconfigjson\ndata: \
         {{.dockerconfigjson: {auth}}}\n"
    );
    kubectl.ok_fed("apply -f -", &secret)?;
    kubectl.ok_fed("apply -f -", &pod("friend", &image, "Always", "imagePullSecrets: [{name: own}]"))?;
    runs(kubectl, "friend")?;
    kubectl.ok("patch serviceaccount default -p {\"imagePullSecrets\":[{\"name\":\"own\"}]}")?;
    kubectl.ok_fed("apply -f -", &pod("cousin", &image, "Always", ""))?;
    runs(kubectl, "cousin")
}

/// What each policy does with the registry there, and gone.
fn policies(kubectl: &Tool, known: &mut Daemon<'_>) -> anyhow::Result<()> {
    kubectl.ok_fed("apply -f -", &pod("never-absent", "registry.example/team/busybox:2", "Never", ""))?;
    waits(kubectl, "never-absent", &["ErrImageNeverPull"])?;
    kubectl.ok_fed("apply -f -", &pod("present", PULLED, "IfNotPresent", ""))?;
    runs(kubectl, "present")?;
    known.kill().context("stop the registry")?;
    kubectl.ok_fed("apply -f -", &pod("present-again", PULLED, "IfNotPresent", ""))?;
    kubectl.ok_fed("apply -f -", &pod("never-present", PULLED, "Never", ""))?;
    kubectl.ok_fed("apply -f -", &pod("always", PULLED, "Always", ""))?;
    runs(kubectl, "present-again")?;
    runs(kubectl, "never-present")?;
    waits(kubectl, "always", &["ErrImagePull", "ImagePullBackOff"])?;
    known.again()?;
    runs(kubectl, "always")
}
