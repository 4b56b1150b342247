//! Who may join under which name. Pure: what the cluster knows and what was asked, in; a verdict, out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::pki::{MachineId, Role};

/// Machines that once had a node's name and were removed; the oldest are forgotten first.
pub const REMOVED_MAX: usize = 64;

/// What a cluster knows of a node's machine. One record for each name, so that a name has one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    pub node: String,
    pub role: Role,
    /// None once it was removed.
    pub machine: Option<MachineId>,
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    pub first_seen: Timestamp,
    /// Machines that had this name before, and when they lost it. They do not come back.
    #[serde(default)]
    pub removed: BTreeMap<MachineId, Timestamp>,
}

/// What a machine wants to be.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    pub node: &'a str,
    pub machine: &'a MachineId,
    pub role: Role,
}

/// The join token that came along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    Nothing,
    /// Unknown, or past its end.
    Unknown,
    Valid(Role),
}

/// Why a machine may not join: one sentence, with what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "this machine was removed from the cluster as {node} at {at}; to join anew, run `evenkeel leave --local` on it \
         and give it a join token"
    )]
    Removed { node: String, at: Timestamp },
    #[error(
        "the machine calling itself {node} is another one than the machine that joined as {node}; if that one is gone, \
         run `evenkeel node remove {node}` first"
    )]
    Impostor { node: String },
    #[error("this machine has joined as {before} and cannot be {node} too; run `evenkeel leave` on it first")]
    Renamed { before: String, node: String },
    #[error("a join token is needed: `evenkeel token create` on a server prints one")]
    NoToken,
    #[error("the join token is unknown or has expired: `evenkeel token create` on a server prints another")]
    UnknownToken,
    #[error("this token lets agents join, and no servers: `evenkeel token create --role server` prints one that does")]
    AgentToken,
}

/// The machine as it is to be recorded; None where the record says it already.
pub fn judge(
    known: &[Machine],
    asked: &Asked<'_>,
    token: Offered,
    addresses: &[IpAddr],
    now: Timestamp,
) -> Result<Option<Machine>, Refusal> {
    for record in known {
        if let Some(at) = record.removed.get(asked.machine) {
            return Err(Refusal::Removed { node: record.node.clone(), at: *at });
        }
        if record.node != asked.node && record.machine.as_ref() == Some(asked.machine) {
            return Err(Refusal::Renamed { before: record.node.clone(), node: asked.node.to_owned() });
        }
    }
    let record = known.iter().find(|record| record.node == asked.node);
    match record.and_then(|record| record.machine.as_ref()) {
        Some(machine) if machine != asked.machine => return Err(Refusal::Impostor { node: asked.node.to_owned() }),
        Some(_) if record.is_some_and(|record| record.may_be(asked.role)) => {
            let known = record.expect("it was found").clone();
            let changed = known.addresses != addresses;
            return Ok(changed.then(|| Machine { addresses: addresses.to_vec(), ..known }));
        }
        _ => {}
    }
    match (token, asked.role) {
        (Offered::Nothing, _) => Err(Refusal::NoToken),
        (Offered::Unknown, _) => Err(Refusal::UnknownToken),
        (Offered::Valid(Role::Agent), Role::Server) => Err(Refusal::AgentToken),
        (Offered::Valid(Role::Server), _) | (Offered::Valid(Role::Agent), Role::Agent) => {
            Ok(Some(Machine::new(record, asked, addresses, now)))
        }
    }
}

// === impl Machine ===

impl Machine {
    /// `before` is what is recorded of the name.
    pub fn new(before: Option<&Machine>, asked: &Asked<'_>, addresses: &[IpAddr], now: Timestamp) -> Machine {
        let removed = before.map(|record| record.removed.clone()).unwrap_or_default();
        Machine {
            node: asked.node.to_owned(),
            role: asked.role,
            machine: Some(asked.machine.clone()),
            addresses: addresses.to_vec(),
            first_seen: now,
            removed,
        }
    }

    /// A server that was not removed.
    pub fn is_server(&self) -> bool {
        self.role == Role::Server && self.machine.is_some()
    }

    /// What a server may ask, its node may ask too.
    fn may_be(&self, role: Role) -> bool {
        self.role == Role::Server || role == Role::Agent
    }

    /// The record once this machine was removed.
    #[must_use]
    pub fn without(mut self, now: Timestamp) -> Machine {
        if let Some(machine) = self.machine.take() {
            self.removed.insert(machine, now);
        }
        while self.removed.len() > REMOVED_MAX {
            let oldest = self.removed.iter().min_by_key(|(_, at)| **at).map(|(machine, _)| machine.clone());
            self.removed.remove(&oldest.expect("there is more than one"));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, Machine, Offered, Refusal, judge};
    use crate::pki::{MachineId, Role};
    use jiff::Timestamp;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn id(text: &str) -> MachineId {
        serde_json::from_value(serde_json::Value::String(text.to_owned())).unwrap()
    }

    fn ask(
        known: &[Machine],
        (node, machine, role): (&str, &str, Role),
        token: Offered,
    ) -> Result<Option<Machine>, Refusal> {
        judge(known, &Asked { node, machine: &id(machine), role }, token, &[], NOW)
    }

    fn joined(node: &str, machine: &str, role: Role) -> Machine {
        ask(&[], (node, machine, role), Offered::Valid(Role::Server)).unwrap().unwrap()
    }

    #[test]
    fn a_new_name_needs_a_token_of_its_role() {
        let (agent, server) = (("a", "1", Role::Agent), ("a", "1", Role::Server));
        assert_eq!(ask(&[], agent, Offered::Nothing), Err(Refusal::NoToken));
        assert_eq!(ask(&[], agent, Offered::Unknown), Err(Refusal::UnknownToken));
        assert_eq!(ask(&[], server, Offered::Valid(Role::Agent)), Err(Refusal::AgentToken));
        assert!(ask(&[], agent, Offered::Valid(Role::Agent)).unwrap().is_some());
        assert!(ask(&[], agent, Offered::Valid(Role::Server)).unwrap().is_some());
        assert!(ask(&[], server, Offered::Valid(Role::Server)).unwrap().is_some());
    }

    #[test]
    fn a_name_is_one_machine() {
        let known = [joined("a", "1", Role::Agent)];
        assert_eq!(ask(&known, ("a", "1", Role::Agent), Offered::Nothing), Ok(None), "it renews");
        let impostor = Err(Refusal::Impostor { node: "a".to_owned() });
        assert_eq!(ask(&known, ("a", "2", Role::Agent), Offered::Valid(Role::Server)), impostor);
        let renamed = Err(Refusal::Renamed { before: "a".to_owned(), node: "b".to_owned() });
        assert_eq!(ask(&known, ("b", "1", Role::Agent), Offered::Valid(Role::Agent)), renamed);
        assert_eq!(ask(&known, ("a", "1", Role::Server), Offered::Nothing), Err(Refusal::NoToken), "it rises");
    }

    #[test]
    fn a_removed_machine_does_not_come_back_and_its_name_is_free() {
        let gone = joined("a", "1", Role::Server).without(NOW);
        let refused = Err(Refusal::Removed { node: "a".to_owned(), at: NOW });
        let known = [gone];
        assert_eq!(ask(&known, ("a", "1", Role::Server), Offered::Valid(Role::Server)), refused);
        assert_eq!(ask(&known, ("b", "1", Role::Agent), Offered::Valid(Role::Server)), refused);
        let next = ask(&known, ("a", "2", Role::Agent), Offered::Valid(Role::Agent)).unwrap().unwrap();
        assert_eq!((next.machine.clone(), next.removed.len()), (Some(id("2")), 1));
    }

    #[test]
    fn the_removed_are_limited() {
        let mut record = joined("a", "first", Role::Agent);
        for turn in 0..=super::REMOVED_MAX {
            record = record.without(NOW + jiff::SignedDuration::from_secs(i64::try_from(turn).unwrap()));
            record.machine = Some(id(&turn.to_string()));
        }
        assert!(record.removed.len() == super::REMOVED_MAX && !record.removed.contains_key(&id("first")));
    }
}
