//! Facts: plain data, each with the witness, the subject and the time.

use base::SmolStr;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::drift::Kind;

/// The name of a node, of an object as `namespace/name`, or one of [`API`] and [`CLUSTER`].
pub type Name = SmolStr;

/// The cluster's own record as a witness: what the API says.
pub const API: &str = "api";
/// The cluster as a whole as a subject.
pub const CLUSTER: &str = "cluster";
/// What is missing where the cluster's record did not answer at all.
pub const RECORD: &str = "the cluster's record";
/// Facts of one look; what is beyond is dropped.
pub const FACTS_MAX: usize = 20_000;

/// Everything that one look brought in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// Which cluster: the first digits of its authority's hash.
    pub cluster: SmolStr,
    /// The node the look was taken from.
    pub from: Name,
    pub facts: Vec<Fact>,
    /// What did not answer in time.
    #[serde(default)]
    pub missing: Vec<Missing>,
}

/// One thing that somebody observed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// The witness: a node, or [`API`].
    pub by: Name,
    /// The subject.
    pub about: Name,
    pub at: Timestamp,
    #[serde(flatten)]
    pub what: What,
}

/// A question that got no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    pub what: String,
    pub why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    Server,
    Agent,
}

/// What the cluster's record says of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    Ready,
    NotReady,
    /// Its reports stopped.
    Silent,
}

/// How a port of a node answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answers {
    Yes,
    /// The kernel answered that nobody listens.
    Refused,
    /// The kernel took the connection, and nobody spoke.
    Frozen,
    /// Nothing came back at all.
    Silent,
}

/// What became of a small write that was flushed to the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Write {
    Took { millis: u64 },
    Hangs,
    Full,
    ReadOnly,
    Failed { why: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Alarm {
    NoSpace,
    Corrupt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EngineKind {
    Sqlite,
    Etcd,
}

/// Why a machine was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Refusal {
    /// It belongs to an older life of this cluster, or to another one.
    OtherCluster,
    /// Its name is another machine's.
    Impostor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RunState {
    Running,
    Paused,
    Stuck,
}

/// What was observed. Sizes in bytes, spans in the unit of their name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum What {
    // === a node as the cluster's record has it, and as others reach it
    Node {
        role: Role,
        state: State,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
        #[serde(default)]
        why: String,
        #[serde(default)]
        version: String,
        #[serde(default)]
        cordoned: bool,
        /// Conditions such as DiskPressure that hold.
        #[serde(default)]
        pressures: Vec<String>,
    },
    Reach {
        /// The API's port, where the subject is a server.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        api: Option<Answers>,
        /// The kubelet's port.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<Answers>,
    },
    /// The API of a server as a whole.
    Api {
        ready: bool,
        #[serde(default)]
        why: String,
        /// Loops that do not get on.
        #[serde(default)]
        loops: Vec<String>,
    },
    ClockOffset {
        millis: i64,
    },
    Loss {
        sent: u32,
        lost: u32,
    },
    PathMtu {
        wanted: u32,
        works: u32,
    },
    // === what only a node itself can see
    Disk {
        path: String,
        total: u64,
        free: u64,
        inodes: u64,
        inodes_free: u64,
    },
    DiskWrite {
        path: String,
        write: Write,
    },
    Process {
        name: String,
        alive: bool,
        /// Whether it answers; None where it was not asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answers: Option<bool>,
    },
    Certificate {
        name: String,
        ends: Timestamp,
        due: Timestamp,
        authority: bool,
    },
    Link {
        name: String,
        carrier: bool,
        /// Changes of the carrier within the last five minutes.
        changes: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lost_at: Option<Timestamp>,
    },
    Conntrack {
        count: u64,
        max: u64,
    },
    /// Rules and routes that the node keeps in its kernel.
    Network {
        table: bool,
        /// Nodes whose pods have no route here.
        #[serde(default)]
        unrouted: Vec<Name>,
    },
    Names {
        inside: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        outside: Option<bool>,
        #[serde(default)]
        upstream: String,
        /// Where the servers beyond are named.
        #[serde(default)]
        file: String,
    },
    ClockStep {
        seconds: i64,
    },
    /// How late the program's own timer came.
    Lateness {
        millis: u64,
    },
    Boot {
        booted: Timestamp,
        /// It belonged to the cluster before that.
        member: bool,
    },
    Containers {
        running: u32,
    },
    Address {
        address: String,
        present: bool,
        #[serde(default)]
        link: String,
    },
    VirtualAddress {
        /// As it is put on the link: `192.0.2.9/24`.
        address: String,
        held: bool,
        /// The server has its lease.
        #[serde(default)]
        leased: bool,
    },
    ConfigFile {
        path: String,
        error: String,
    },
    // === the state
    Store {
        engine: EngineKind,
    },
    Member {
        voter: bool,
        /// It answers, and knows a leader.
        healthy: bool,
        /// It answers, whether anybody leads or not.
        #[serde(default)]
        answers: bool,
        #[serde(default)]
        leader: bool,
        #[serde(default)]
        bytes: u64,
        #[serde(default)]
        quota: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        alarm: Option<Alarm>,
    },
    LeaderChanges {
        count: u32,
        minutes: u32,
    },
    Maintenance {
        millis: u64,
    },
    JoinRefused {
        why: Refusal,
    },
    Backup {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_good: Option<Timestamp>,
        /// When the one after the next should have been made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        overdue: Option<Timestamp>,
        #[serde(default)]
        target: String,
        #[serde(default)]
        error: String,
    },
    RestoreProof {
        ok: bool,
        of: Timestamp,
        #[serde(default)]
        why: String,
    },
    Restored {
        to: Timestamp,
        when: Timestamp,
    },
    // === what people run
    Workload {
        wanted: u32,
        ready: u32,
        #[serde(default)]
        platform: bool,
    },
    PodWaits {
        #[serde(default)]
        node: Name,
        why: String,
        since: Timestamp,
    },
    VolumeWait {
        volume: String,
        node: Name,
    },
    CrashLoop {
        restarts: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        changed: Option<Timestamp>,
        #[serde(default)]
        who: String,
        /// What `kubectl rollout undo` takes: `deployment/api`.
        owner: String,
        /// A version before this one is kept.
        #[serde(default)]
        previous: bool,
    },
    Pull {
        image: String,
        host: String,
        why: String,
        #[serde(default)]
        node: Name,
    },
    EvictionBlocked {
        node: Name,
        budget: String,
    },
    Terminating {
        resource: String,
        since: Timestamp,
        waits_for: String,
    },
    Webhook {
        resource: String,
        service: String,
    },
    /// Something on a node that is not as its owner left it.
    Drift {
        of: Kind,
        /// The thing, and in what it differs.
        what: String,
        first: Timestamp,
        who: String,
    },
    // === people and runs
    Change {
        what: String,
        #[serde(default)]
        who: String,
        when: Timestamp,
    },
    Run {
        verb: String,
        who: String,
        state: RunState,
        #[serde(default)]
        node: Name,
        last: Timestamp,
        #[serde(default)]
        why: String,
    },
    OtherTarget {
        wanted: String,
    },
    Administrators {
        people: u32,
    },
    Decider {
        name: String,
        #[serde(default)]
        stand_in: String,
    },
}

// === impl Facts ===

impl Facts {
    /// Facts in which a node speaks of itself.
    pub fn own(&self) -> impl Iterator<Item = &Fact> {
        self.facts.iter().filter(|fact| fact.by == fact.about)
    }

    /// Facts that somebody else saw.
    pub fn others(&self) -> impl Iterator<Item = &Fact> {
        self.facts.iter().filter(|fact| fact.by != fact.about)
    }

    /// Takes in what another look brought; the limit holds.
    pub fn absorb(&mut self, other: Facts) {
        self.facts.extend(other.facts);
        self.facts.truncate(FACTS_MAX);
        self.missing.extend(other.missing);
    }

    /// The role of a node, where the record has one.
    pub fn role(&self, node: &str) -> Option<Role> {
        self.facts.iter().find_map(|fact| match &fact.what {
            What::Node { role, .. } if fact.about == node => Some(*role),
            _ => None,
        })
    }
}
