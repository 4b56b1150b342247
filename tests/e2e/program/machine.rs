//! The program on a machine: what it finds in its way, how it is installed and removed, and what it says when it cannot
//! start.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, ensure};
use e2e::{Cluster, Dialogue, Options, Tool, cgroups, eventually};

use super::daemon::Daemon;
use super::pods;

/// Findings with real reasons: ports taken, a server that runs, another cluster, a name that is no program.
pub fn check_config(cluster: &Cluster) -> anyhow::Result<()> {
    let evenkeel = cluster.evenkeel()?;
    let check = |words: &[&str]| evenkeel.call(&[&["check-config"], words].concat(), "");
    let own = format!("--data-dir={}", cluster.data.display());
    let said = check(&[&own])?;
    ensure!(said.code == 2 && said.stdout.contains("note  data folder: a server"), "beside its own server: {said:?}");
    ensure!(!said.stdout.contains("FIX"), "beside its own server: {said:?}");
    let other = cluster.data.join("other");
    let other = format!("--data-dir={}", other.display());
    let said = check(&[&other])?;
    ensure!(said.code == 1 && said.stdout.contains("FIX   ports: tcp 6443, tcp 10250: something"), "{said:?}");
    ensure!(said.stdout.contains("--https-listen-port"), "no action is named: {said:?}");
    let said = check(&[&other, "--https-listen-port=7443", "--kubelet-port=7250"])?;
    ensure!(said.code != 1 && said.stdout.contains("ok    ports"), "other ports: {said:?}");
    let folder = cluster.data.join("k3s");
    fs::create_dir_all(&folder)?;
    fs::copy("/bin/sleep", folder.join("k3s"))?;
    let foreign = Daemon::start(&cluster.host, &folder, "other", &format!("{} 999", folder.join("k3s").display()))?;
    let said = eventually("another cluster is found", std::time::Duration::from_secs(10), || {
        let said = check(&[&own])?;
        ensure!(said.stdout.contains("FIX   other clusters: k3s"), "{said:?}");
        Ok(said)
    })?;
    ensure!(said.code == 1, "{said:?}");
    drop(foreign);
    second_server(cluster)
}

/// A second server with the same data, or with the same ports, does not start and says why.
fn second_server(cluster: &Cluster) -> anyhow::Result<()> {
    let evenkeel = cluster.evenkeel()?;
    let same = format!("--data-dir={}", cluster.data.display());
    let said = evenkeel.call(&["server", &same], "")?.failed()?;
    ensure!(said.contains("is this server running already?: another process uses"), "{said}");
    let other = format!("--data-dir={}", cluster.data.join("second").display());
    let said = evenkeel.call(&["server", "--disable-agent", &other], "")?.failed()?;
    ensure!(said.contains("listen on [::]:6443") && said.contains("in use"), "{said}");
    let joining = format!("--data-dir={}", cluster.data.join("joining").display());
    let said = evenkeel.call(&["server", &joining, "--server=https://first:6443"], "")?.failed()?;
    ensure!(said.contains("token"), "what a server joins with is not named: {said}");
    Ok(())
}

/// A key that is no setting ends the start with its place; a k3s setting without a meaning warns once.
pub fn configuration(cluster: &Cluster) -> anyhow::Result<()> {
    let evenkeel = cluster.evenkeel()?;
    let folder = cluster.data.join("configuration");
    fs::create_dir_all(folder.join("config.yaml.d"))?;
    let (file, more) = (folder.join("config.yaml"), folder.join("config.yaml.d/10-more.yaml"));
    let config = format!("--config={}", file.display());
    fs::write(&file, "# ours\ntls-san: [a.example]\ntls-sna: [b.example]\n")?;
    let said = evenkeel.call(&["server", &config], "")?.failed()?;
    ensure!(said.contains("config.yaml:3: there is no setting \"tls-sna\""), "{said}");
    fs::write(&file, "https-listen-port: many\n")?;
    let said = evenkeel.call(&["server", &config], "")?.failed()?;
    ensure!(said.contains("--https-listen-port") && said.contains("many"), "{said}");
    let data = folder.join("data");
    let text = format!(
        "data-dir: {}\ndisable-agent: true\nhttps-listen-port: 7443\ntls-san: [a.example]\nflannel-backend: vxlan\nrecipient: \
         [somebody]\n",
        data.display()
    );
    fs::write(&file, text)?;
    fs::write(&more, "tls-san+: [b.example]\n")?;
    let mut tool = evenkeel.clone();
    tool.environment.push(("K3S_NODE_NAME".into(), "named-by-k3s".into()));
    let mut server = Dialogue::with(tool.spawn_with(&["server", &config, "--docker"])?)?;
    let bound = std::time::Duration::from_secs(60);
    let said = server.expect("the API is up", bound)?;
    ensure!(
        said.matches("flannel-backend").count() == 1 && said.matches("--docker").count() == 1,
        "it warns so: {said}"
    );
    let names = Tool::new("openssl")
        .ok(&format!("x509 -noout -ext subjectAltName -in {}", data.join("server/tls/serving.crt").display()))?;
    for name in ["a.example", "b.example", "named-by-k3s"] {
        ensure!(names.contains(&format!("DNS:{name}")), "{name} is not in {names}");
    }
    evenkeel.ok(&format!("stop --data-dir={}", data.display()))?;
    ensure!(server.end(bound)?.success());
    Ok(())
}

/// The unit as systemd reads it, its settings for root alone, twice the same; and gone again.
pub fn install(cluster: &Cluster) -> anyhow::Result<()> {
    let folder = cluster.data.join("units");
    fs::create_dir_all(&folder)?;
    let (unit, settings) = (folder.join("evenkeel.service"), folder.join("evenkeel.env"));
    let units = format!("--unit-dir={}", folder.display());
    let data = format!("--data-dir={}", cluster.data.join("installed").display());
    let mut evenkeel = cluster.evenkeel()?;
    evenkeel.environment.push(("EVENKEEL_TOKEN".into(), "K10-secret".into()));
    evenkeel.ok_with(&["install", &units, &data])?;
    let read = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
    let (text, kept) = (read(&unit)?, read(&settings)?);
    ensure!(!text.contains("K10-secret") && kept.contains("EVENKEEL_TOKEN=\"K10-secret\""), "{text}\n{kept}");
    ensure!(fs::metadata(&settings)?.permissions().mode() & 0o777 == 0o600, "others can read the settings");
    let verdict = Tool::new("systemd-analyze").call(&["verify", &unit.display().to_string()], "")?;
    ensure!(verdict.success && !verdict.stderr.contains("evenkeel.service:"), "systemd says {verdict:?}");
    cluster.evenkeel()?.ok_with(&["install", &units, &data])?;
    ensure!((read(&unit)?, read(&settings)?) == (text, kept), "installing again changed something");
    fs::create_dir_all(cluster.data.join("installed/server"))?;
    evenkeel.ok_with(&["uninstall", &units, &data])?;
    ensure!(!unit.exists() && !settings.exists() && cluster.data.join("installed").exists());
    evenkeel.ok_with(&["uninstall", "--data", &units, &data])?;
    ensure!(!cluster.data.join("installed").exists(), "the data is still there");
    Ok(())
}

/// Of a server that runs, with a pod on it, nothing is left on the machine: no process, mount, link, rule, cgroup, file.
pub fn uninstall(_: &()) -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::lane("uninstall", 16))?;
    let kubectl = cluster.kubectl();
    kubectl.ok_fed("apply -f -", pods::SLEEPER)?;
    kubectl.ok("wait pod/sleeper --for=condition=Ready --timeout=90s")?;
    let data = cluster.data.display().to_string();
    let on_host = |program: &str, words: &str| cluster.host.tool(program)?.ok(words);
    let left = || -> anyhow::Result<Vec<String>> {
        let mounts = on_host("cat", "/proc/mounts")?;
        let mounts = mounts.lines().filter(|line| line.contains(&data)).map(|line| format!("mount {line}"));
        let links = on_host("cat", "/proc/net/dev")?;
        let links = links.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
        let links = links.filter(|name| !matches!(*name, "lo" | "eth0")).map(|name| format!("link {name}"));
        let tables = on_host("nft", "list tables")?;
        let tables = tables.lines().map(|line| format!("rules {line}"));
        let processes = on_host("ps", "-eo args")?;
        let processes = processes.lines().filter(|line| line.contains(&data)).map(|line| format!("process {line}"));
        let groups = cgroups(&cluster.data)?.into_iter().map(|path| path.display().to_string());
        let files = cluster.data.exists().then(|| data.clone());
        Ok(mounts.chain(links).chain(tables).chain(processes).chain(groups).chain(files).collect())
    };
    let before = left()?;
    for kind in ["mount", "link", "rules", "process"] {
        ensure!(before.iter().any(|one| one.starts_with(kind)), "there is no {kind} to remove: {before:?}");
    }
    // As an administrator who never looked: while all of it runs.
    let units = std::env::temp_dir().join("evenkeel-no-units");
    let words = format!("uninstall --data --data-dir={data} --unit-dir={}", units.display());
    let said = cluster.evenkeel()?.ok(&words)?;
    ensure!(said.contains("stopped evenkeel") && said.contains(&format!("removed {data}")), "uninstall says {said}");
    let after = left()?;
    ensure!(after.is_empty(), "left behind: {after:#?}");
    Ok(())
}
