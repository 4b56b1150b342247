//! The copies of the state, each asked by itself: no quorum is needed to know that there is none.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use keeper::wrong::{Alarm, Fact, Name, What};
use store::etcd::{AlarmKind, Member, MemberStatus, Members};

use super::reach::Target;
use super::{ANSWER_TIMEOUT, course, fact};
use crate::layout::Layout;
use crate::wire::etcd::{Known, Managed, address, known};

/// The copies that this server knows of, and what each said; nothing where it said nothing.
pub struct Copies {
    known: Known,
    answers: Vec<Option<MemberStatus>>,
    alarms: BTreeMap<u64, Alarm>,
    /// As etcd has them; a member tells without a quorum too.
    listed: Vec<Member>,
}

/// Asks all of them at once. None where this machine has no copy.
pub async fn ask(layout: &Layout) -> Option<Copies> {
    let known = known(layout).ok()??;
    let ask = urls(&known).map(|url| status(&known.members, url));
    let (answers, raised, listed) =
        tokio::join!(futures::future::join_all(ask), alarms(&known.members), listed(&known.members));
    let odd = course::odd(layout).into_iter().map(|member| (member, Alarm::Corrupt));
    let alarms = odd.chain(raised).collect();
    Some(Copies { known, answers, alarms, listed })
}

/// Where the other copies are, as servers.
pub fn machines(layout: &Layout, port: u16) -> Vec<Target> {
    let urls = Managed::others(layout).unwrap_or_default();
    let machine = |url: &String| {
        let api = SocketAddr::new(address(url)?, port);
        Some(Target { node: api.to_string().into(), api: Some(api), agent: None, ranges: Vec::new() })
    };
    urls.iter().filter_map(machine).collect()
}

/// Its own comes last.
fn urls(known: &Known) -> impl Iterator<Item = &String> {
    known.others.iter().chain([&known.own_url])
}

// === impl Copies ===

impl Copies {
    /// The machines of the members: as of the founding, and as etcd has them now.
    pub fn names(&self) -> BTreeMap<IpAddr, Name> {
        let then = self.known.names.iter().map(|(address, name)| (*address, Name::from(name.as_str())));
        let named = self.listed.iter().filter(|member| !member.name.is_empty());
        let now = named.filter_map(|member| Some((address(member.client_urls.first()?)?, member.name.as_str().into())));
        then.chain(now).collect()
    }

    pub fn facts(&self, own: &str, names: &BTreeMap<IpAddr, Name>) -> Vec<Fact> {
        let Copies { known, answers, alarms, .. } = self;
        let name = |url: &str| match address(url).and_then(|ip| names.get(&ip)) {
            _ if url == known.own_url => known.own.as_str().into(),
            Some(name) => name.clone(),
            None => Name::from(url),
        };
        let members = urls(known).zip(answers).map(|(url, answer)| {
            let what = answer.as_ref().map_or_else(absent, |status| member(status, alarms, known.quota));
            fact(own, &name(url), what)
        });
        let process = What::Process { name: "etcd".to_owned(), alive: known.running, answers: None };
        members.chain([fact(own, own, process)]).collect()
    }
}

async fn listed(members: &Members) -> Vec<Member> {
    tokio::time::timeout(ANSWER_TIMEOUT, members.list_as_known()).await.ok().and_then(Result::ok).unwrap_or_default()
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
        answers: true,
        leader: status.leader == status.id,
        bytes: status.db_used_bytes,
        quota,
        alarm: alarms.get(&status.id).copied(),
    }
}

fn absent() -> What {
    What::Member { voter: true, healthy: false, answers: false, leader: false, bytes: 0, quota: 0, alarm: None }
}
