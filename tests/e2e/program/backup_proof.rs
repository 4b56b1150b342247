//! Backups without being asked: the first bundle, its proof in an empty network, the evidence, retention; and what a proof
//! says of a bundle that is cut off, damaged, or made without a key.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Cluster, Options, Tool, eventually};
use serde_json::Value;

use super::pods;

const SOON: Duration = Duration::from_secs(180);
/// What a whole proof looks at.
const CHECKS: [&str; 11] =
    ["whole", "opens", "complete", "loads", "counts", "authorities", "serves", "secrets", "tokens", "pod", "isolated"];

pub fn proves_itself(_: &()) -> anyhow::Result<()> {
    let mut options = Options::lane("proof", 30);
    options.arguments = ["--backup-schedule=20s", "--backup-retention=2"].map(str::to_owned).to_vec();
    let cluster = Cluster::start(options)?;
    let kubectl = cluster.kubectl();
    kubectl.ok("create secret generic secret --from-literal=word=plain")?;
    kubectl.ok_fed("apply -f -", pods::SLEEPER)?;
    let backups = Backups { evenkeel: cluster.evenkeel()?, data: cluster.data.clone() };
    let first = eventually("a first bundle is proven", SOON, || {
        backups.list()?.into_iter().find(|bundle| bundle["proven"] == true).context("none is proven yet")
    })?;
    evidence(&kubectl)?;
    known(&kubectl)?;
    guarded(&kubectl, &first)?;
    kit(&backups)?;
    kept(&backups, &first)?;
    refused(&backups)?;
    without_a_key(&backups, &kubectl)
}

/// The evidence is an object; nothing left the scratch control plane.
fn evidence(kubectl: &Tool) -> anyhow::Result<()> {
    let list = "get configmaps -n kube-system -l evenkeel.io/evidence=backup -o json";
    let maps: Value = serde_json::from_str(&kubectl.ok(list)?)?;
    let text = maps.pointer("/items/0/data/evidence.json").and_then(Value::as_str).context("no evidence")?;
    let evidence: Value = serde_json::from_str(text)?;
    ensure!(evidence["passed"] == true && evidence["packets"] == 0, "the evidence: {evidence:#}");
    let checks = evidence["checks"].as_array().context("it lists checks")?;
    let names: Vec<&str> = checks.iter().filter_map(|check| check["name"].as_str()).collect();
    ensure!(names == CHECKS, "it looked at {names:?}");
    let passed = |check: &&Value| check["outcome"] == "passed";
    ensure!(checks.iter().filter(passed).count() == CHECKS.len(), "not all passed: {evidence:#}");
    println!("scratch restore: {} ms", evidence["millis"]);
    Ok(())
}

/// What `evenkeel status` reads.
fn known(kubectl: &Tool) -> anyhow::Result<()> {
    let status = status(kubectl)?;
    ensure!(status["provenBundle"]["name"].is_string(), "nothing is known to be proven: {status:#}");
    let text = status["findings"].to_string();
    for code in ["BACKUP_RECIPIENTS_FEW", "BACKUP_KIT_ON_SERVER", "BACKUP_OFFSITE_MISSING"] {
        ensure!(text.contains(code), "{code} is not among {text}");
    }
    ensure!(!text.contains("BACKUP_UNPROVEN"), "it is proven and said not to be: {text}");
    Ok(())
}

/// Bundles are for those who may: administrators, and so the other servers.
fn guarded(kubectl: &Tool, bundle: &Value) -> anyhow::Result<()> {
    let path = format!("/v1-evenkeel/bundles/{}", bundle["name"].as_str().unwrap_or_default());
    kubectl.ok("get --raw /v1-evenkeel/bundles")?;
    let words = ["get", "--raw", &path, "--as=system:serviceaccount:default:default"];
    let said = kubectl.call(&words, "")?.failed()?;
    ensure!(said.contains("Forbidden"), "a workload may fetch bundles: {said}");
    let said = kubectl.call(&["get", "--raw", "/v1-evenkeel/bundles/token"], "")?.failed()?;
    ensure!(said.contains("BadRequest"), "a name that is no bundle's: {said}");
    Ok(())
}

fn status(kubectl: &Tool) -> anyhow::Result<Value> {
    let map: Value = serde_json::from_str(&kubectl.ok("get configmap -n kube-system evenkeel-backup -o json")?)?;
    let text = map.pointer("/data/status.json").and_then(Value::as_str).context("no status")?;
    Ok(serde_json::from_str(text)?)
}

/// It is for one reader; a copy is checked; a new one replaces it.
fn kit(backups: &Backups) -> anyhow::Result<()> {
    let path = backups.data.join("server/recovery-kit.txt");
    let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "the kit has mode {mode:o}");
    let copy = backups.data.join("copy");
    fs::copy(&path, &copy)?;
    let check = format!("kit --check={}", copy.display());
    backups.ok(&check)?;
    let newest = backups.file(&backups.newest()?);
    let said = backups.ok(&format!("prove {} --secret-file={}", newest.display(), copy.display()))?;
    ensure!(said.contains("proven in"), "with the kit: {said}");
    let said = backups.ok("kit --rotate")?;
    ensure!(said.contains("EVK-SECRET-"), "the new kit: {said}");
    let said = backups.fails(&check)?;
    ensure!(said.contains("one that was replaced"), "the old kit: {said}");
    let said = backups.ok("kit")?;
    fs::remove_file(&path)?;
    let sealed = backups.ok("kit")?;
    let secret = |text: &str| text.split_whitespace().find(|word| word.starts_with("EVK-SECRET-")).map(str::to_owned);
    ensure!(secret(&said).is_some() && secret(&said) == secret(&sealed), "carried away, and not found again: {sealed}");
    Ok(())
}

/// Newer bundles come and go, the proven one stays.
fn kept(backups: &Backups, proven: &Value) -> anyhow::Result<()> {
    eventually("bundles beyond the retention are gone", SOON, || {
        let list = backups.list()?;
        let newer = list.iter().filter(|bundle| bundle["made"].as_str() > proven["made"].as_str()).count();
        ensure!(newer == 2 && list.len() == 3, "{list:?}");
        ensure!(list.iter().any(|bundle| bundle["name"] == proven["name"]), "the proven one went: {list:?}");
        Ok(())
    })?;
    let text = backups.ok("list")?;
    ensure!(text.contains("unproven") && text.contains("   proven"), "the list says {text}");
    Ok(())
}

/// Each of these fails with its check by name, and leaves nothing behind.
fn refused(backups: &Backups) -> anyhow::Result<()> {
    let whole = fs::read(backups.file(&backups.newest()?))?;
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let cases = [("cut off", whole[..whole.len() / 2].to_vec()), ("is damaged", damaged)];
    for (wanted, content) in cases {
        let file = backups.data.join("other.bundle");
        fs::write(&file, content)?;
        let secret = backups.data.join("server/cred/proof.key");
        let words = format!("prove {} --json --secret-file={}", file.display(), secret.display());
        let (said, evidence) = backups.refuted(&words)?;
        ensure!(said.contains("not proven: whole"), "{wanted}: it says {said}");
        ensure!(evidence["checks"][0]["said"].as_str().is_some_and(|text| text.contains(wanted)), "{evidence:#}");
    }
    ensure!(!backups.data.join("scratch").join("plane").exists(), "a scratch control plane was left behind");
    Ok(())
}

/// A bundle that was made while a key was gone is known to be less, and its proof names the key.
fn without_a_key(backups: &Backups, kubectl: &Tool) -> anyhow::Result<()> {
    let (key, away) = (backups.data.join("server/cred/encryption.keys"), backups.data.join("away"));
    fs::rename(&key, &away)?;
    let said = backups.ok("")?;
    ensure!(said.contains("BACKUP_INCOMPLETE") && said.contains("server/cred/encryption.keys"), "it says {said}");
    let (_, evidence) = backups.refuted("prove --json")?;
    fs::rename(&away, &key)?;
    let checks = evidence["checks"].as_array().context("it lists checks")?;
    let failed = checks.iter().find(|check| check["outcome"] == "failed").context("a check failed")?;
    ensure!(failed["name"] == "complete", "another check failed: {evidence:#}");
    let said = failed["said"].as_str().unwrap_or_default();
    ensure!(said.contains("server/cred/encryption.keys"), "it says {said}");
    let text = status(kubectl)?["findings"].to_string();
    ensure!(text.contains("BACKUP_PROOF_FAILED"), "the failed proof is not among {text}");
    let said = backups.ok("")?;
    ensure!(!said.contains("BACKUP_INCOMPLETE"), "with the key back: {said}");
    Ok(())
}

/// The backups of one cluster, through the command line.
pub struct Backups {
    pub evenkeel: Tool,
    pub data: PathBuf,
}

impl Backups {
    fn line(&self, words: &str) -> String {
        format!("backup --data-dir={} {words}", self.data.display())
    }

    pub fn ok(&self, words: &str) -> anyhow::Result<String> {
        self.evenkeel.ok(&self.line(words))
    }

    pub fn fails(&self, words: &str) -> anyhow::Result<String> {
        self.evenkeel.call(&self.line(words).split_whitespace().collect::<Vec<_>>(), "")?.failed()
    }

    /// What is said of a bundle that is not proven, and the evidence.
    fn refuted(&self, words: &str) -> anyhow::Result<(String, Value)> {
        let told = self.evenkeel.call(&self.line(words).split_whitespace().collect::<Vec<_>>(), "")?;
        let evidence = serde_json::from_str(&told.stdout).with_context(|| format!("{told:?}"))?;
        Ok((told.failed()?, evidence))
    }

    /// The bundles in the first target, oldest first.
    pub fn list(&self) -> anyhow::Result<Vec<Value>> {
        self.list_of(0)
    }

    pub fn list_of(&self, target: usize) -> anyhow::Result<Vec<Value>> {
        let listings: Value = serde_json::from_str(&self.ok("list --json")?)?;
        let listing = &listings[target];
        ensure!(listing["error"].is_null(), "{listing:#}");
        Ok(listing["bundles"].as_array().cloned().unwrap_or_default())
    }

    fn newest(&self) -> anyhow::Result<Value> {
        self.list()?.pop().context("there is no bundle")
    }

    fn file(&self, bundle: &Value) -> PathBuf {
        Path::new(&self.data).join("backups").join(bundle["name"].as_str().unwrap_or_default())
    }
}
