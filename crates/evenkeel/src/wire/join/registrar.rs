//! Machines on their way into the cluster: judged by what is recorded, and recorded in turn.

use std::net::IpAddr;

use jiff::Timestamp;
use tracing::{info, warn};
use view::Client;

use super::judge::{Asked, Machine, Offered, Refusal, judge};
use super::records::{NODE_NAME_BYTES_MAX, RecordError, Recorded, Records};
use crate::pki::{MachineId, Role};

/// Somebody else may write a record between our reading and our writing it this often.
const RACES_MAX: usize = 5;

/// Judges and records, through the API.
#[derive(Clone, Debug)]
pub struct Registrar {
    pub records: Records,
}

/// A machine that asks, and how it is reached.
#[derive(Clone, Copy, Debug)]
pub struct Applicant<'a> {
    pub node: &'a str,
    pub machine: &'a MachineId,
    pub role: Role,
    pub addresses: &'a [IpAddr],
}

/// Which machine may lose its name.
#[derive(Clone, Copy, Debug)]
pub enum Only<'a> {
    Whoever,
    /// The one that was recorded when somebody looked, if one was.
    Recorded(Option<&'a MachineId>),
}

#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{0:?} cannot be a node's name")]
    Name(String),
    #[error("{0} is another machine by now than the one that was to be removed")]
    Another(String),
    #[error(transparent)]
    Records(#[from] RecordError),
}

// === impl Registrar ===

impl Registrar {
    pub fn new(client: Client) -> Registrar {
        Registrar { records: Records::new(client) }
    }

    /// Lets a machine in under its name, by what is recorded of it or by a join token.
    pub async fn admit(&self, who: Applicant<'_>, secret: Option<&str>, now: Timestamp) -> Result<(), RegisterError> {
        if !is_node_name(who.node) {
            return Err(RegisterError::Name(who.node.to_owned()));
        }
        let offered = self.records.offered(secret, who.node, now).await?;
        self.record(who.node, |known| {
            let asked = Asked { node: who.node, machine: who.machine, role: who.role };
            judge(known, &asked, offered, who.addresses, now)
        })
        .await
    }

    /// Whether a machine has the name that it says, and nothing else.
    pub async fn knows(&self, who: Applicant<'_>, now: Timestamp) -> Result<(), RegisterError> {
        let known = self.records.machines().await?;
        let machines: Vec<Machine> = known.into_iter().map(|recorded| recorded.machine).collect();
        let asked = Asked { node: who.node, machine: who.machine, role: who.role };
        judge(&machines, &asked, Offered::Nothing, who.addresses, now).map(drop)?;
        Ok(())
    }

    /// The machine of a server itself: it holds the authorities, so that no token is asked of it. After a restore it is
    /// another machine than the one that had its name, which does not come back.
    pub async fn register_own(&self, who: Applicant<'_>, now: Timestamp) -> Result<(), RegisterError> {
        self.record(who.node, |known| own(known, who, now)).await
    }

    /// Marks the machine of a node as removed: its certificates hold no longer, and it is not let in again. No other
    /// machine than `only` is.
    pub async fn remove(&self, node: &str, only: Only<'_>, now: Timestamp) -> Result<(), RegisterError> {
        let mut another = false;
        let decide = |known: &[Machine]| {
            let record = known.iter().find(|record| record.node == node && record.machine.is_some());
            another = record.is_some_and(|record| is_another(record, only));
            Ok(record.filter(|_| !another).map(|record| record.clone().without(now)))
        };
        self.record(node, decide).await?;
        if another { Err(RegisterError::Another(node.to_owned())) } else { Ok(()) }
    }

    /// Says so where the node has another machine than this one.
    pub async fn expect(&self, node: &str, only: Only<'_>) -> Result<(), RegisterError> {
        let known = self.records.machines().await?;
        let another = known.iter().any(|one| one.machine.node == node && is_another(&one.machine, only));
        if another { Err(RegisterError::Another(node.to_owned())) } else { Ok(()) }
    }

    async fn record(
        &self,
        node: &str,
        mut decide: impl FnMut(&[Machine]) -> Result<Option<Machine>, Refusal>,
    ) -> Result<(), RegisterError> {
        let mut races = 0;
        loop {
            let known = self.records.machines().await?;
            let machines: Vec<Machine> = known.iter().map(|recorded| recorded.machine.clone()).collect();
            let Some(record) = decide(&machines)? else { return Ok(()) };
            let before: Option<&Recorded> = known.iter().find(|recorded| recorded.machine.node == node);
            match self.records.record(&record, before).await {
                Ok(()) => {
                    info!(node, role = record.role.as_str(), machine = ?record.machine, "recorded");
                    return Ok(());
                }
                Err(error) if error.is_race() && races < RACES_MAX => races += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn is_another(record: &Machine, only: Only<'_>) -> bool {
    match only {
        Only::Whoever => false,
        Only::Recorded(machine) => record.machine.is_some() && record.machine.as_ref() != machine,
    }
}

fn own(known: &[Machine], who: Applicant<'_>, now: Timestamp) -> Result<Option<Machine>, Refusal> {
    for record in known {
        if let Some(at) = record.removed.get(who.machine) {
            return Err(Refusal::Removed { node: record.node.clone(), at: *at });
        }
    }
    let asked = Asked { node: who.node, machine: who.machine, role: who.role };
    let before = known.iter().find(|record| record.node == who.node);
    let wanted = match before {
        Some(record) if record.machine.as_ref() == Some(who.machine) => {
            Machine { role: who.role, addresses: who.addresses.to_vec(), ..record.clone() }
        }
        Some(record) if record.machine.is_some() => {
            warn!(node = who.node, "this is another machine than the one that had this server's name; that one is out");
            Machine::new(Some(&record.clone().without(now)), &asked, who.addresses, now)
        }
        other => Machine::new(other, &asked, who.addresses, now),
    };
    Ok((before != Some(&wanted)).then_some(wanted))
}

fn is_node_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    !name.is_empty() && name.len() <= NODE_NAME_BYTES_MAX && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::{Applicant, Only, RegisterError, Registrar};
    use crate::pki::{MachineId, Role};
    use crate::wire::join::judge::Refusal;
    use jiff::Timestamp;
    use view::fake::FakeApi;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    #[tokio::test]
    async fn a_servers_name_is_its_own_and_moves_only_with_the_authorities() {
        let registrar = Registrar::new(FakeApi::new().client());
        let id = |text: &str| -> MachineId { serde_json::from_value(text.into()).unwrap() };
        let (first, second) = (id("1"), id("2"));
        let server = |machine| Applicant { node: "a", machine, role: Role::Server, addresses: &[] };
        registrar.register_own(server(&first), NOW).await.unwrap();
        registrar.register_own(server(&first), NOW).await.unwrap();
        let secret = registrar.records.create(Role::Server, None, None, "", NOW).await;
        assert!(secret.is_ok());
        let bad = registrar.admit(Applicant { node: "A/..", ..server(&first) }, None, NOW).await;
        assert!(matches!(bad, Err(RegisterError::Name(_))));
        registrar.knows(server(&first), NOW).await.unwrap();
        assert!(registrar.knows(server(&second), NOW).await.is_err());
        registrar.register_own(server(&second), NOW).await.unwrap();
        let back = registrar.register_own(server(&first), NOW).await;
        assert!(matches!(back, Err(RegisterError::Refused(Refusal::Removed { .. }))), "{back:?}");
        registrar.remove("a", Only::Whoever, NOW).await.unwrap();
        registrar.remove("nobody", Only::Whoever, NOW).await.unwrap();
        assert!(registrar.knows(server(&second), NOW).await.is_err());
    }
}
