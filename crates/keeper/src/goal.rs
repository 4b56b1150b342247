//! What a run is for.

use serde::{Deserialize, Serialize};

use crate::declaration::Declaration;
use crate::digest::Digest;

/// What is wished for. Each goal has its rows in the crash matrix (`tests/matrix`), which does not compile without them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "goal")]
pub enum Goal {
    /// Every node runs this program, for which the maker of the manifest vouches.
    Upgrade {
        program: Digest,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        manifest: Option<Manifest>,
    },
    /// Every node is what the cluster file says, and runs its program, if it names one.
    Apply {
        declared: Declaration,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        program: Option<Digest>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        manifest: Option<Manifest>,
    },
    /// What ran before the newest run.
    Back,
    /// What is stored takes the form of the newest program.
    Finalise,
}

/// What a release says of its program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub version: String,
    pub program: Digest,
    pub signature: String,
}

// === impl Manifest ===

impl Manifest {
    /// The text that is signed.
    pub fn signed(&self) -> String {
        format!("evenkeel-release\n{}\n{}\n", self.version, self.program)
    }
}
