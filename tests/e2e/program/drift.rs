//! Changes by hand: told within a minute with who was logged in, left alone or put back as the policy says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{Cluster, Options, eventually};
use serde_json::Value;

/// A minute is what is promised; a machine that is busy with other cases gets another half.
const TOLD: Duration = Duration::from_secs(90);
/// A build machine's resolvers are not reached from here, which `wrong` would rightly tell first.
const RESOLVERS: &str = "--resolv-conf=/dev/null";
const FROM: &str = "203.0.113.9";
const RULE: &str = "tcp dport 9 drop";
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: deployed}\ndata: {a: file}\n";

pub fn by_hand(_: &()) -> anyhow::Result<()> {
    let options = Options { arguments: vec![RESOLVERS.to_owned()], ..Options::lane("drift", 20) };
    let mut lab = Lab { cluster: Cluster::start(options)? };
    fs::write(lab.cluster.data.join("server/manifests/web.yaml"), MAP)?;
    eventually("what is there is recorded", TOLD, || {
        ensure!(lab.cluster.data.join("agent/drift/joined.json").exists(), "not yet");
        lab.cluster.kubectl().ok("get configmap deployed").map(drop)
    })?;
    let (code, said) = lab.drift(&[])?;
    ensure!(code == 0 && said.starts_with("Cluster ") && said.contains("nothing was changed by hand"), "{code} {said}");

    lab.nothing_to_do()?;
    lab.ways_in()?;
    let mut session = lab.log_in()?;
    let start = Instant::now();
    lab.change()?;
    lab.told()?;
    println!("  five changes by hand are told after {:.1} s", start.elapsed().as_secs_f64());
    lab.found_wrong()?;
    let (code, said) = lab.ask(&["diff"])?;
    ensure!(
        code == 2 && said.contains(&format!("firewall: inet {} chain forward: {RULE}", lab.table()?)),
        "{code} {said}"
    );
    ensure!(lab.as_changed()?, "a report wrote something");
    session.kill().and_then(|()| session.wait()).context("log out")?;

    lab.cluster.set_arguments([RESOLVERS, "--drift-policy=repair"].map(str::to_owned).to_vec());
    lab.cluster.stop_server()?;
    lab.cluster.start_server()?;
    eventually("only what is foreign is left", TOLD, || lab.only_foreign())?;
    let start = Instant::now();
    lab.change()?;
    eventually("everything of ours is put back", TOLD, || lab.put_back())?;
    println!("  they are put back after {:.1} s", start.elapsed().as_secs_f64());
    eventually("the ledger says so", TOLD, || lab.only_foreign())?;
    let (_, said) = lab.drift(&["--all", "--json"])?;
    ensure!(said.contains("\"repaired\""), "nothing was put back: {said}");
    ensure!(lab.host("nft", &["list", "tables"])?.contains("table ip hand"), "a table of others was removed");
    Ok(())
}

struct Lab {
    cluster: Cluster,
}

impl Lab {
    fn drift(&self, words: &[&str]) -> anyhow::Result<(i32, String)> {
        let words: Vec<&str> = ["drift"].into_iter().chain(words.iter().copied()).collect();
        self.ask(&words)
    }

    fn ask(&self, words: &[&str]) -> anyhow::Result<(i32, String)> {
        let data = format!("--data-dir={}", self.cluster.data.display());
        let words: Vec<&str> = words.iter().copied().chain([data.as_str()]).collect();
        let said = self.cluster.evenkeel()?.call(&words, "")?;
        ensure!(said.code != 1, "{said:?}");
        Ok((said.code, said.stdout))
    }

    /// What is declared runs, and one screen says how things are done.
    fn nothing_to_do(&self) -> anyhow::Result<()> {
        let host = &self.cluster.host.name;
        let (code, said) = self.ask(&["diff"])?;
        ensure!(code == 0 && said.lines().count() == 1, "{code} {said}");
        let (code, said) = self.ask(&["compare", host, host])?;
        ensure!(code == 0 && said.contains("do not differ"), "{code} {said}");
        let (code, said) = self.ask(&["explain"])?;
        let wanted = ["Cluster ", "server/manifests, 1 file", "1: as installed", "evenkeel restore BUNDLE"];
        let missing = wanted.iter().find(|text| !said.contains(**text));
        ensure!(code == 0 && missing.is_none() && said.lines().count() < 40, "{missing:?} is not in {said}");
        Ok(())
    }

    fn ways_in(&self) -> anyhow::Result<()> {
        let names = || {
            let said: Value = serde_json::from_str(&self.ask(&["access", "--json"])?.1)?;
            let ways = said["ways"].as_array().with_context(|| format!("{said:#}"))?.clone();
            let name = |way: &Value| way["name"].as_str().unwrap_or_default().to_owned();
            anyhow::Ok(ways.iter().map(name).collect::<Vec<String>>())
        };
        let before = names()?;
        let machine = format!("machine/{}", self.cluster.host.name);
        ensure!(before.contains(&machine) && before.iter().any(|name| name == "binding/cluster-admin"), "{before:?}");
        self.ask(&["token", "create"])?;
        let token = names()?.into_iter().find(|name| name.starts_with("token/") && !before.contains(name));
        self.ask(&["access", "revoke", &token.context("a new token is a way in")?])?;
        ensure!(names()? == before, "a token that was revoked is still a way in");
        let (code, _) = self.ask(&["access", "revoke", &machine])?;
        ensure!(code == 3 && names()? == before, "a machine leaves by another command: {code}");
        Ok(())
    }

    /// The open lines of this node.
    fn lines(&self) -> anyhow::Result<Vec<Value>> {
        let (_, said) = self.drift(&["--json"])?;
        let said: Value = serde_json::from_str(&said)?;
        let lines = &said["nodes"][&self.cluster.host.name]["lines"];
        Ok(lines.as_array().with_context(|| format!("no lines in {said:#}"))?.clone())
    }

    fn host(&self, program: &str, words: &[&str]) -> anyhow::Result<String> {
        self.cluster.host.tool(program)?.ok_with(words)
    }

    /// A session as one over SSH is: the first process of its own session, with where it came from.
    fn log_in(&self) -> anyhow::Result<Child> {
        let from = format!("SSH_CONNECTION={FROM} 50000 {} 22", self.cluster.host.address);
        self.cluster.host.tool("env")?.spawn_with(&[&from, "setsid", "--wait", "sleep", "600"])
    }

    fn config(&self) -> PathBuf {
        self.cluster.data.join("agent/containerd/config.toml")
    }

    fn key(&self) -> PathBuf {
        self.cluster.data.join("server/tls/client-ca.key")
    }

    fn table(&self) -> anyhow::Result<String> {
        let tables = self.host("nft", &["list", "tables"])?;
        let own = tables
            .lines()
            .find_map(|line| line.strip_prefix("table inet ").filter(|name| name.starts_with("evenkeel")));
        own.map(str::to_owned).with_context(|| format!("no table of ours in {tables}"))
    }

    fn change(&self) -> anyhow::Result<()> {
        let config = fs::read_to_string(self.config())?;
        fs::write(self.config(), config + "# by hand\n")?;
        fs::set_permissions(self.key(), fs::Permissions::from_mode(0o644))?;
        self.host("sh", &["-c", &format!("echo 0 > {FORWARD}")])?;
        let table = self.table()?;
        self.host("nft", &["add", "rule", "inet", &table, "forward", RULE])?;
        self.host("nft", &["add", "table", "ip", "hand"])?;
        let patch = r#"{"data":{"a":"hand"}}"#;
        self.cluster.kubectl().ok(&format!("patch configmap deployed --type=merge -p {patch}")).map(drop)
    }

    /// Every change is a line with its kind and with who was there.
    fn told(&self) -> anyhow::Result<()> {
        eventually("all changes are told", TOLD, || {
            let lines = self.lines()?;
            let of = |kind: &str, name: &str| {
                let has = |line: &&Value| {
                    line["kind"] == kind && line["name"].as_str().is_some_and(|text| text.contains(name))
                };
                lines.iter().find(has).with_context(|| format!("no {kind} {name} in {lines:#?}"))
            };
            let here = [
                of("file", "agent/containerd/config.toml")?,
                of("certificate", "server/tls/client-ca.key")?,
                of("sysctl", "net.ipv4.ip_forward")?,
                of("firewall", &format!("chain forward: {RULE}"))?,
                of("firewall", "table ip hand")?,
            ];
            let unknown = here.iter().find(|line| !line["who"].as_str().is_some_and(|who| who.contains(FROM)));
            ensure!(unknown.is_none(), "nobody is named: {unknown:#?}");
            let object = of("manifest", "web.yaml: ConfigMap default/deployed")?;
            ensure!(
                object["change"].as_str().is_some_and(|text| text.starts_with("data.a set by kubectl-patch")),
                "{object}"
            );
            Ok(())
        })
    }

    fn found_wrong(&self) -> anyhow::Result<()> {
        let data = format!("--data-dir={}", self.cluster.data.display());
        eventually("wrong names the rule", TOLD, || {
            let said = self.cluster.evenkeel()?.call(&["wrong", "--json", &data], "")?;
            let said: Value = serde_json::from_str(&said.stdout)?;
            let cause = &said["cause"];
            let sentence = cause["sentence"].as_str().unwrap_or_default();
            ensure!(cause["code"] == "DRIFT_FIREWALL" && sentence.contains(RULE), "{said:#}");
            ensure!(sentence.contains(&self.cluster.host.name) && sentence.contains("first seen"), "{sentence}");
            ensure!(cause["command"] == format!("evenkeel drift {}", self.cluster.host.name).as_str(), "{cause:#}");
            Ok(())
        })
    }

    /// What is there, as it was changed: file, key, setting, rule, object.
    fn states(&self) -> anyhow::Result<[bool; 5]> {
        let map = self.cluster.kubectl().ok("get configmap deployed -o jsonpath={.data.a}")?;
        Ok([
            fs::read_to_string(self.config())?.ends_with("# by hand\n"),
            fs::metadata(self.key())?.permissions().mode() & 0o777 == 0o644,
            self.host("cat", &[FORWARD])?.trim() == "0",
            self.host("nft", &["list", "table", "inet", &self.table()?])?.contains(RULE),
            map == "hand",
        ])
    }

    fn as_changed(&self) -> anyhow::Result<bool> {
        Ok(self.states()? == [true; 5])
    }

    fn put_back(&self) -> anyhow::Result<()> {
        let states = self.states()?;
        ensure!(states == [false; 5], "still as changed: {states:?}");
        Ok(())
    }

    fn only_foreign(&self) -> anyhow::Result<()> {
        self.put_back()?;
        let lines = self.lines()?;
        let foreign = |line: &Value| line["name"] == "table ip hand";
        ensure!(lines.iter().all(foreign) && lines.len() == 1, "{lines:#?}");
        Ok(())
    }
}
