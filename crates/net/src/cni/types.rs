//! The words of the CNI specification, and what plugin and agent say to each other.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::VERSION;
use crate::address::PortMapping;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Command {
    Add,
    Del,
    Check,
}

/// What the plugin sends, one line of JSON, the namespace's descriptor beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    pub command: Command,
    pub container_id: String,
    pub netns: PathBuf,
    pub interface: String,
    /// `CNI_ARGS`: `K8S_POD_NAME=...;...`.
    pub arguments: String,
    pub config: NetConf,
}

/// What the agent answers, one line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    Done(Value),
    Failed(CniError),
}

/// The part of a network configuration that is ours.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetConf {
    pub cni_version: String,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// Where the agent listens.
    pub socket: PathBuf,
    pub runtime_config: RuntimeConfig,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeConfig {
    pub port_mappings: Vec<PortMapping>,
}

/// Error codes of the specification, and ours from 100 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Version = 1,
    UnknownContainer = 3,
    Environment = 4,
    Io = 5,
    Decode = 6,
    Config = 7,
    TryAgainLater = 11,
    Network = 100,
    Addresses = 101,
}

/// An error as the specification writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{msg}: {details}")]
pub struct CniError {
    #[serde(default)]
    pub cni_version: String,
    pub code: u32,
    pub msg: String,
    #[serde(default)]
    pub details: String,
}

// === impl CniError ===

impl CniError {
    pub fn new(code: Code, msg: &str, details: impl std::fmt::Display) -> CniError {
        CniError {
            cni_version: VERSION.to_owned(),
            code: code as u32,
            msg: msg.to_owned(),
            details: details.to_string(),
        }
    }
}

// === impl NetConf ===

impl NetConf {
    /// The version to answer in.
    pub fn version(&self) -> &str {
        if self.cni_version.is_empty() { VERSION } else { &self.cni_version }
    }

    /// The file that makes containerd call us.
    pub fn list(name: &str, socket: &std::path::Path) -> Value {
        json!({
            "cniVersion": VERSION,
            "name": name,
            "plugins": [{
                "type": super::PLUGIN,
                "socket": socket,
                "capabilities": { "portMappings": true },
            }],
        })
    }
}

/// The value of one key of `CNI_ARGS`.
pub fn argument<'a>(arguments: &'a str, key: &str) -> Option<&'a str> {
    arguments.split(';').find_map(|pair| pair.split_once('=').filter(|(name, _)| *name == key).map(|(_, value)| value))
}
