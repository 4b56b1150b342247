//! How the copies of the state are, each asked by itself.

use anyhow::{Context, Result};
use async_trait::async_trait;
use futures::future::join_all;
use keeper::{Copies, NodeName, Replica, ReplicaState};
use store::etcd::{AlarmKind, Member, MemberStatus, Members};

use super::ports::Replicas;
use crate::wire::etcd::Managed;

/// Of this server's etcd. None are known where the state is a file, or in an etcd that somebody else runs.
pub struct OfEtcd(pub Option<Managed>);

#[async_trait]
impl Replicas for OfEtcd {
    async fn look(&self) -> Result<Copies> {
        match &self.0 {
            Some(etcd) => look(etcd).await,
            None => Ok(Copies::default()),
        }
    }
}

async fn look(etcd: &Managed) -> Result<Copies> {
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
