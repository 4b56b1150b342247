//! The cluster file: which nodes there are, and what each of them is told.
//!
//! ```yaml
//! cluster: 1f0c2a            # as the first line of every answer names it
//! version: 0.2.0             # of a release; without it programs stay as they are
//! settings:                  # of all nodes, as in config.yaml
//!   drift-policy: repair
//! nodes:
//!   a: {role: server}
//!   b: {role: server, settings: {node-label: [zone=2]}}
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use base::SmolStr;
use keeper::{Declaration, Declared, Generation, NodeName, Role, Settings};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config;

/// A file for people to read, not a store.
const BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    cluster: SmolStr,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    settings: Map<String, Value>,
    nodes: BTreeMap<SmolStr, WrittenNode>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenNode {
    role: Role,
    #[serde(default)]
    settings: Map<String, Value>,
}

/// What a file says.
#[derive(Debug, PartialEq, Eq)]
pub struct ClusterFile {
    pub declared: Declaration,
    pub version: Option<String>,
}

pub fn read(path: &Path) -> Result<ClusterFile> {
    let length = std::fs::metadata(path).with_context(|| format!("read {}", path.display()))?.len();
    ensure!(length <= BYTES_MAX, "{}: {length} bytes are more than a cluster file has", path.display());
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    parse(&text).with_context(|| path.display().to_string())
}

fn parse(text: &str) -> Result<ClusterFile> {
    let written: Written = match serde_saphyr::from_str(text) {
        Ok(written) => written,
        Err(error) => bail!("{}", error.to_string().lines().next().unwrap_or_default()),
    };
    ensure!(!written.nodes.is_empty(), "a cluster has nodes");
    let all = settings(&written.settings).context("settings")?;
    let node = |(name, node): (SmolStr, WrittenNode)| {
        let own = settings(&node.settings).with_context(|| format!("nodes: {name}: settings"))?;
        Ok((NodeName(name), Declared { role: node.role, settings: all.with(&own) }))
    };
    let nodes = written.nodes.into_iter().map(node).collect::<Result<_>>()?;
    Ok(ClusterFile { declared: Declaration { cluster: written.cluster, nodes }, version: written.version })
}

fn settings(written: &Map<String, Value>) -> Result<Settings> {
    let words = |(key, value): (&String, &Value)| {
        let words = config::words(value).with_context(|| format!("{key}: a value, or a list of values"))?;
        Ok((key.as_str().into(), words.into_iter().map(SmolStr::from).collect()))
    };
    Ok(Settings::new(written.iter().map(words).collect::<Result<_>>()?)?)
}

/// The file that says what is declared now.
pub fn show(current: &Generation) -> String {
    let mut out = format!("# Generation {}. `evenkeel apply FILE` has every node be what this says.\n", current.number);
    let _ = writeln!(out, "cluster: {}\nnodes:", quoted(&current.cluster));
    for (name, node) in &current.nodes {
        let _ = writeln!(out, "  {}:\n    role: {}", quoted(&name.0), node.role.word());
        if !node.runs.settings.is_empty() {
            out.push_str("    settings:\n");
        }
        for (key, words) in node.runs.settings.iter() {
            let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            let _ = writeln!(out, "      {key}: [{}]", words.join(", "));
        }
    }
    out
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::{parse, show};
    use keeper::{Digest, Generation, NodeTarget, Release, Runs};

    const FILE: &str = "\
cluster: shop
version: 0.2.0
settings: {drift-policy: repair, tls-san: [a, b]}
nodes:
  a: {role: server, settings: {tls-san: c, debug: true}}
  b: {role: agent}
";

    #[test]
    fn each_node_has_everybodys_settings_and_its_own() {
        let file = parse(FILE).unwrap();
        assert_eq!(file.version.as_deref(), Some("0.2.0"));
        let told: Vec<String> = file.declared.nodes.values().map(|node| format!("{:?}", node.settings)).collect();
        assert_eq!(
            told,
            [
                r#"Settings({"debug": ["true"], "drift-policy": ["repair"], "tls-san": ["c"]})"#,
                r#"Settings({"drift-policy": ["repair"], "tls-san": ["a", "b"]})"#
            ]
        );
    }

    #[test]
    fn what_is_shown_is_read_as_the_same() {
        let declared = parse(FILE).unwrap().declared;
        let release = Release { version: "0.1.0".into(), program: Digest::none() };
        let target = |(name, node): (&keeper::NodeName, &keeper::Declared)| {
            let runs = Runs { release: release.clone(), settings: node.settings.clone() };
            (name.clone(), NodeTarget { role: node.role, runs })
        };
        let nodes = declared.nodes.iter().map(target).collect();
        let current = Generation { cluster: "shop".into(), number: 7, parent: Digest::none(), level: 1, nodes };
        let shown = show(&current);
        assert!(shown.starts_with("# Generation 7."), "{shown}");
        assert_eq!(parse(&shown).unwrap().declared, declared, "{shown}");
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, wanted: &str| {
            let told = format!("{:#}", parse(text).unwrap_err());
            assert!(told.contains(wanted), "{told}");
        };
        check("cluster: a\nnodes: {a: {role: server}}\nwindws: 1\n", "windws");
        check("cluster: a\nnodes: {a: {role: chief}}\n", "chief");
        check("cluster: a\nnodes: {}\n", "a cluster has nodes");
        check(
            "cluster: a\nnodes: {a: {role: server, settings: {x: {y: 1}}}}\n",
            "nodes: a: settings: x: a value, or a list",
        );
    }
}
