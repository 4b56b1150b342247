//! From a pod's specification to what the runtime is told: pure functions, a file per topic.

pub mod container;
pub mod dns;
pub mod env;
pub mod expand;
pub mod hosts;
pub mod names;
pub mod pull_secrets;
pub mod qos;
pub mod resources;
pub mod sandbox;
pub mod security;

/// Why a container cannot be configured (`CreateContainerConfigError`). The text is what users see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SpecError {
    pub message: String,
}

impl SpecError {
    pub fn new(message: impl Into<String>) -> SpecError {
        SpecError { message: message.into() }
    }
}
