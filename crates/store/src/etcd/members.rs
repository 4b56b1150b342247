//! The members of an etcd cluster: who they are, how each is, and what an operator does to them.
//!
//! What concerns the cluster goes to whoever of the endpoints answers; what concerns one member goes to that member.

use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Code, Status};

use super::config::{self, Config, ConnectError};
use super::wire;
use super::wire::alarm_request::AlarmAction;

/// A member rewrites its whole database: most of the quota, on a slow disk.
const DEFRAGMENT_TIMEOUT: Duration = Duration::from_secs(600);
/// A member reads its whole database for it.
const FINGERPRINT_TIMEOUT: Duration = Duration::from_secs(60);
/// A member that takes longer to say how it is counts as one that does not answer.
const STATUS_TIMEOUT: Duration = Duration::from_secs(3);
/// Adding, promoting and removing are agreed on by a quorum.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// One member as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: u64,
    /// Empty until it has started for the first time.
    pub name: String,
    pub peer_urls: Vec<String>,
    /// Empty until it has started for the first time.
    pub client_urls: Vec<String>,
    pub learner: bool,
}

/// How one member is, by its own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    pub id: u64,
    pub version: String,
    /// The size of its file, which the quota is about, and what of it is in use.
    pub db_bytes: u64,
    pub db_used_bytes: u64,
    /// Zero where it knows none.
    pub leader: u64,
    pub raft_term: u64,
    pub raft_index: u64,
    pub raft_applied_index: u64,
    /// etcd's own revision, without the epoch base.
    pub revision: i64,
    pub learner: bool,
    pub errors: Vec<String>,
}

/// What a member holds up to a revision, in a number. Two are comparable where the same history was forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint {
    pub hash: u32,
    pub compacted: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    /// The quota is reached: no writes until it is disarmed.
    NoSpace,
    /// A member's data differs from the others'.
    Corrupt,
    Other(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    pub member: u64,
    pub kind: AlarmKind,
}

#[derive(Debug, thiserror::Error)]
pub enum MembersError {
    #[error("the address of etcd")]
    Config(#[from] ConnectError),
    /// A learner that is promoted too early; worth another try.
    #[error("the learner has not caught up with the leader yet")]
    NotCaughtUp,
    #[error("etcd knows no such member")]
    NotFound,
    /// The one before has to be promoted or removed first.
    #[error("another learner is joining")]
    LearnerJoins,
    #[error("a member with this address is there already")]
    Exists,
    /// The change, or a failure right after it, would stop all writes.
    #[error("too few members are healthy for this change")]
    Margin(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no etcd answers")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("etcd refuses")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The handle on an etcd cluster's members. Cheap to clone.
#[derive(Clone)]
pub struct Members {
    config: Config,
    channel: Channel,
}

// === impl Members ===

impl Members {
    /// Prepares the connection, which is made when it is needed.
    ///
    /// # Errors
    /// For endpoints that are not URLs.
    pub fn new(config: Config) -> Result<Members, ConnectError> {
        let channel = config::channel_within(&config, CHANGE_TIMEOUT)?;
        Ok(Members { config, channel })
    }

    /// All members, ordered by name and id.
    ///
    /// # Errors
    /// When none answers, or (since etcd 3.5) none with a quorum.
    pub async fn list(&self) -> Result<Vec<Member>, MembersError> {
        self.listed(true).await
    }

    /// All members as the one that answers knows them, which needs no quorum.
    ///
    /// # Errors
    /// When none answers.
    pub async fn list_as_known(&self) -> Result<Vec<Member>, MembersError> {
        self.listed(false).await
    }

    async fn listed(&self, linearizable: bool) -> Result<Vec<Member>, MembersError> {
        let answer = self.cluster().member_list(wire::MemberListRequest { linearizable }).await;
        Ok(members(answer.map_err(error)?.into_inner().members))
    }

    /// Announces a member that does not vote yet. It is started afterwards, with every member answered here.
    ///
    /// # Errors
    /// Where another learner is joining, or the address is known.
    pub async fn add_learner(&self, peer_url: &str) -> Result<(Member, Vec<Member>), MembersError> {
        let request = wire::MemberAddRequest { peer_urls: vec![peer_url.to_owned()], is_learner: true };
        let answer = self.cluster().member_add(request).await.map_err(error)?.into_inner();
        let added = answer.member.ok_or(MembersError::NotFound)?;
        Ok((member(added), members(answer.members)))
    }

    /// Gives a learner its vote.
    ///
    /// # Errors
    /// [`MembersError::NotCaughtUp`] until it has nearly everything; a member that votes already is [`MembersError::Refused`].
    pub async fn promote(&self, id: u64) -> Result<Vec<Member>, MembersError> {
        let answer = self.cluster().member_promote(wire::MemberPromoteRequest { id }).await;
        Ok(members(answer.map_err(error)?.into_inner().members))
    }

    /// Takes a member out. It ends by itself when it learns of it; its data is of no use any more.
    ///
    /// # Errors
    /// Where the rest would have no quorum.
    pub async fn remove(&self, id: u64) -> Result<Vec<Member>, MembersError> {
        let answer = self.cluster().member_remove(wire::MemberRemoveRequest { id }).await;
        Ok(members(answer.map_err(error)?.into_inner().members))
    }

    /// How the member at this client URL is; answers without a quorum too.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self, endpoint: &str) -> Result<MemberStatus, MembersError> {
        let answer = self.one(endpoint, STATUS_TIMEOUT)?.status(wire::StatusRequest {}).await;
        Ok(status(answer.map_err(error)?.into_inner()))
    }

    /// Gives free pages of the member at this client URL back to the file system. It answers nothing meanwhile.
    ///
    /// # Errors
    /// When it does not answer in time; then it may still be at it.
    pub async fn defragment(&self, endpoint: &str) -> Result<(), MembersError> {
        let answer = self.one(endpoint, DEFRAGMENT_TIMEOUT)?.defragment(wire::DefragmentRequest {}).await;
        answer.map(drop).map_err(error)
    }

    /// What the member at this client URL holds up to one of etcd's own revisions.
    ///
    /// # Errors
    /// When it does not answer, does not know the revision yet, or has forgotten it.
    pub async fn fingerprint(&self, endpoint: &str, revision: i64) -> Result<Fingerprint, MembersError> {
        let request = wire::HashKvRequest { revision };
        let answer = self.one(endpoint, FINGERPRINT_TIMEOUT)?.hash_kv(request).await.map_err(error)?.into_inner();
        Ok(Fingerprint { hash: answer.hash, compacted: answer.compact_revision })
    }

    /// Has the leader, at this client URL, hand over to another member.
    ///
    /// # Errors
    /// When it does not lead, or the other does not take over.
    pub async fn move_leader(&self, endpoint: &str, target: u64) -> Result<(), MembersError> {
        let request = wire::MoveLeaderRequest { target_id: target };
        self.one(endpoint, CHANGE_TIMEOUT)?.move_leader(request).await.map(drop).map_err(error)
    }

    /// What etcd raised.
    ///
    /// # Errors
    /// When none answers.
    pub async fn alarms(&self) -> Result<Vec<Alarm>, MembersError> {
        let request = wire::AlarmRequest { action: AlarmAction::Get.into(), ..Default::default() };
        let answer = self.maintenance().alarm(request).await.map_err(error)?.into_inner();
        let mut alarms: Vec<Alarm> = answer.alarms.iter().map(alarm).collect();
        alarms.sort_unstable();
        Ok(alarms)
    }

    /// Takes an alarm back. etcd raises it again where its reason is still there.
    ///
    /// # Errors
    /// Without a quorum.
    pub async fn disarm(&self, alarm: Alarm) -> Result<(), MembersError> {
        let kind = match alarm.kind {
            AlarmKind::NoSpace => wire::AlarmType::Nospace.into(),
            AlarmKind::Corrupt => wire::AlarmType::Corrupt.into(),
            AlarmKind::Other(kind) => kind,
        };
        let request =
            wire::AlarmRequest { action: AlarmAction::Deactivate.into(), member_id: alarm.member, alarm: kind };
        self.maintenance().alarm(request).await.map(drop).map_err(error)
    }

    /// Forgets the history up to one of etcd's own revisions, and returns when the space is free for use again.
    ///
    /// # Errors
    /// Without a quorum. A history that is compacted further already is none.
    pub async fn compact(&self, revision: i64) -> Result<(), MembersError> {
        let mut kv = wire::kv_client::KvClient::new(self.channel.clone());
        match kv.compact(wire::CompactionRequest { revision, physical: true }).await {
            Err(status) if status.code() != Code::OutOfRange => Err(error(status)),
            _ => Ok(()),
        }
    }

    fn cluster(&self) -> wire::cluster_client::ClusterClient<Channel> {
        wire::cluster_client::ClusterClient::new(self.channel.clone())
    }

    fn maintenance(&self) -> wire::maintenance_client::MaintenanceClient<Channel> {
        wire::maintenance_client::MaintenanceClient::new(self.channel.clone())
    }

    /// A connection to one member only.
    fn one(
        &self,
        endpoint: &str,
        timeout: Duration,
    ) -> Result<wire::maintenance_client::MaintenanceClient<Channel>, MembersError> {
        let config = Config { endpoints: vec![endpoint.to_owned()], others: None, ..self.config.clone() };
        let channel = config::channel_within(&config, timeout)?;
        Ok(wire::maintenance_client::MaintenanceClient::new(channel))
    }
}

fn members(list: Vec<wire::Member>) -> Vec<Member> {
    let mut members: Vec<Member> = list.into_iter().map(member).collect();
    members.sort_unstable_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    members
}

fn member(one: wire::Member) -> Member {
    let wire::Member { id, name, peer_urls, client_urls, is_learner: learner } = one;
    Member { id, name, peer_urls, client_urls, learner }
}

fn status(one: wire::StatusResponse) -> MemberStatus {
    let header = one.header.unwrap_or_default();
    let bytes = |size: i64| u64::try_from(size).unwrap_or(0);
    MemberStatus {
        id: header.member_id,
        revision: header.revision,
        db_bytes: bytes(one.db_size),
        db_used_bytes: bytes(one.db_size_in_use),
        version: one.version,
        leader: one.leader,
        raft_term: one.raft_term,
        raft_index: one.raft_index,
        raft_applied_index: one.raft_applied_index,
        learner: one.is_learner,
        errors: one.errors,
    }
}

fn alarm(one: &wire::AlarmMember) -> Alarm {
    let kind = match one.alarm() {
        wire::AlarmType::Nospace => AlarmKind::NoSpace,
        wire::AlarmType::Corrupt => AlarmKind::Corrupt,
        wire::AlarmType::None => AlarmKind::Other(one.alarm),
    };
    Alarm { member: one.member_id, kind }
}

/// etcd has one code for many refusals; its sentences are the same since 3.4.
fn error(status: Status) -> MembersError {
    let message = status.message();
    let says = |text: &str| message.contains(text);
    match status.code() {
        Code::FailedPrecondition if says("in sync with leader") => MembersError::NotCaughtUp,
        Code::FailedPrecondition if says("too many learner") => MembersError::LearnerJoins,
        Code::FailedPrecondition if says("already exist") => MembersError::Exists,
        Code::FailedPrecondition if says("not enough started") => MembersError::Margin(status.into()),
        Code::Unavailable if says("unhealthy cluster") => MembersError::Margin(status.into()),
        Code::NotFound => MembersError::NotFound,
        Code::FailedPrecondition | Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated => {
            MembersError::Refused(status.into())
        }
        _ => MembersError::Unavailable(status.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::{MembersError, error};
    use tonic::Status;

    #[test]
    fn refusals_are_told_apart_by_what_to_do_about_them() {
        let early =
            Status::failed_precondition("etcdserver: can only promote a learner member which is in sync with leader");
        assert!(matches!(error(early), MembersError::NotCaughtUp));
        let voter = Status::failed_precondition("etcdserver: can only promote a learner member");
        assert!(matches!(error(voter), MembersError::Refused(_)));
        let second = Status::failed_precondition("etcdserver: too many learner members in cluster");
        assert!(matches!(error(second), MembersError::LearnerJoins));
        let known = Status::failed_precondition("etcdserver: Peer URLs already exists");
        assert!(matches!(error(known), MembersError::Exists));
        assert!(matches!(error(Status::not_found("etcdserver: member not found")), MembersError::NotFound));
        assert!(matches!(error(Status::unavailable("etcdserver: unhealthy cluster")), MembersError::Margin(_)));
        assert!(matches!(error(Status::unavailable("etcdserver: no leader")), MembersError::Unavailable(_)));
    }
}
