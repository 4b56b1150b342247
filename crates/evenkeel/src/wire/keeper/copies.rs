//! How the copies of the state are, each asked by itself.

use anyhow::{Context, Result};
use futures::future::join_all;
use keeper::{Copies, NodeName, Replica, ReplicaState};
use store::etcd::{AlarmKind, Member, MemberStatus, Members};

use crate::wire::etcd::Managed;

/// None are known where the state is a file, or in an etcd that somebody else runs.
pub async fn look(etcd: Option<&Managed>) -> Result<Copies> {
    let Some(etcd) = etcd else { return Ok(Copies::default()) };
    let members = etcd.members()?;
    let list = members.list().await.context("ask etcd for its members")?;
    let (statuses, alarms) =
        tokio::join!(join_all(list.iter().map(|member| status(&members, member))), members.alarms());
    let alarm = alarms.context("ask etcd for its alarms")?.into_iter().next().map(|alarm| {
        let member = list.iter().find(|member| member.id == alarm.member).map_or("one", |member| member.name.as_str());
        let what = match alarm.kind {
            AlarmKind::NoSpace => "is full",
            AlarmKind::Corrupt => "differs from the others",
            AlarmKind::Other(_) => "raised an alarm",
        };
        format!("the copy of the state on {member} {what}").into()
    });
    let replica = |(member, status): (&Member, Option<MemberStatus>)| Replica {
        node: NodeName(member.name.as_str().into()),
        learner: member.learner,
        state: status.map(|status| ReplicaState {
            led: status.leader != 0,
            applied: status.raft_applied_index,
            used_bytes: status.db_used_bytes,
        }),
    };
    let replicas = list.iter().zip(statuses).map(replica).collect();
    Ok(Copies { replicas, quota_bytes: etcd.quota(), alarm })
}

async fn status(members: &Members, member: &Member) -> Option<MemberStatus> {
    members.status(member.client_urls.first()?).await.ok()
}
