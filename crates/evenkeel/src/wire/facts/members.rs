//! The copies of the state, each asked by itself: no quorum is needed to know that there is none.

use std::collections::BTreeMap;
use std::net::IpAddr;

use keeper::wrong::{Alarm, Fact, Name, What};
use store::etcd::{AlarmKind, MemberStatus, Members};

use super::reach::Target;
use super::{ANSWER_TIMEOUT, fact};
use crate::layout::Layout;
use crate::wire::etcd::{Known, address, known};

/// What each member that this server knows of says, or that it says nothing.
pub async fn facts(layout: &Layout, own: &str, targets: &[Target]) -> Vec<Fact> {
    let Ok(Some(known)) = known(layout) else { return Vec::new() };
    let names = names(&known, targets);
    let name =
        |url: &String| address(url).and_then(|ip| names.get(&ip).cloned()).unwrap_or_else(|| url.as_str().into());
    let urls = known.others.iter().map(|url| (name(url), url.clone()));
    let urls: Vec<(Name, String)> = urls.chain([(known.own.as_str().into(), known.own_url.clone())]).collect();
    let ask = urls.iter().map(|(_, url)| status(&known.members, url));
    let (answers, alarms) = tokio::join!(futures::future::join_all(ask), alarms(&known.members));
    let members = urls.iter().zip(answers).map(|((name, _), answer)| {
        let what = answer.map_or_else(absent, |status| member(&status, &alarms, known.quota));
        fact(own, name, what)
    });
    let process = What::Process { name: "etcd".to_owned(), alive: known.running, answers: None };
    members.chain([fact(own, own, process)]).collect()
}

/// The record knows machines by now, the founding by then.
fn names(known: &Known, targets: &[Target]) -> BTreeMap<IpAddr, Name> {
    let now = targets.iter().filter_map(|target| Some((target.agent.or(target.api)?.ip(), target.node.clone())));
    let then = known.names.iter().map(|(address, name)| (*address, Name::from(name.as_str())));
    then.chain(now).collect()
}

async fn status(members: &Members, url: &str) -> Option<MemberStatus> {
    tokio::time::timeout(ANSWER_TIMEOUT, members.status(url)).await.ok()?.ok()
}

async fn alarms(members: &Members) -> BTreeMap<u64, Alarm> {
    let found = tokio::time::timeout(ANSWER_TIMEOUT, members.alarms()).await.ok().and_then(Result::ok);
    let known = found.into_iter().flatten().filter_map(|alarm| {
        let kind = match alarm.kind {
            AlarmKind::NoSpace => Alarm::NoSpace,
            AlarmKind::Corrupt => Alarm::Corrupt,
            AlarmKind::Other(_) => return None,
        };
        Some((alarm.member, kind))
    });
    known.collect()
}

fn member(status: &MemberStatus, alarms: &BTreeMap<u64, Alarm>, quota: u64) -> What {
    What::Member {
        voter: !status.learner,
        // One that knows no leader is of no use to anybody.
        healthy: status.leader != 0,
        leader: status.leader == status.id,
        bytes: status.db_used_bytes,
        quota,
        alarm: alarms.get(&status.id).copied(),
    }
}

fn absent() -> What {
    What::Member { voter: true, healthy: false, leader: false, bytes: 0, quota: 0, alarm: None }
}
