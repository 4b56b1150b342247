//! Who is around: whom this machine reaches and how well, and what they say of themselves.
//!
//! Machines that were known last are met at once, the others as soon as the record has told of them: a record that does
//! not come holds nobody up. Nobody is waited for whose doors are silent.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use keeper::wrong::{Fact, Facts, Missing, Name, What};

use super::access::{Access, Record};
use super::members::Copies;
use super::reach::{self, Doors, Target};
use super::{API_PORT, as_recorded, fact, members, paths};
use crate::layout::Layout;

/// How much longer one is waited for whose doors do not speak.
const GRACE: Duration = Duration::from_millis(250);

/// Who looks around.
pub struct Around<'a> {
    pub own: &'a str,
    pub layout: &'a Layout,
    /// As whom others are asked what they say of themselves. None: they are not.
    pub access: Option<&'a Access>,
}

/// What was found.
#[derive(Default)]
pub struct Found {
    pub facts: Vec<Fact>,
    /// What each of the others says.
    pub said: Vec<Facts>,
    /// Who is where, as far as that is known here.
    pub names: BTreeMap<IpAddr, Name>,
}

/// Another machine, and what became of the meeting.
struct Meeting {
    target: Target,
    seen: Vec<What>,
    said: Option<Result<Facts, String>>,
}

// === impl Around ===

impl Around<'_> {
    pub async fn look(&self, record: impl Future<Output = Record>) -> (Record, Found) {
        let remembered = self.remembered();
        let late = async {
            let record = record.await;
            let mut news = self.others(&record.targets);
            news.retain(|target| !remembered.iter().any(|known| known.is(target)));
            // The router once: it tells who is cut off, where somebody could be.
            let asks_router = remembered.is_empty() && !news.is_empty();
            let met = self.meet(news, asks_router).await;
            (record, met)
        };
        let early = self.meet(remembered.clone(), !remembered.is_empty());
        let ((early, router), (record, (late, late_router)), copies) =
            tokio::join!(early, late, members::ask(self.layout));
        let mut found = Found { names: copies.as_ref().map(Copies::names).unwrap_or_default(), ..Found::default() };
        found.names.extend(record.targets.iter().filter_map(|target| Some((target.ip()?, target.node.clone()))));
        let known = early.into_iter().filter_map(|meeting| meeting.recorded(&record.targets, &found.names));
        let known: Vec<Meeting> = known.collect();
        for meeting in known.into_iter().chain(late) {
            meeting.tell(self.own, &mut found);
        }
        found.facts.extend(router.into_iter().chain(late_router));
        found.facts.extend(copies.map(|copies| copies.facts(self.own, &found.names)).into_iter().flatten());
        found.facts.extend(as_recorded(self.layout, self.own, &record.targets));
        (record, found)
    }

    /// Servers as they were listed last, and those that hold a copy: one that stopped in good order is on no list, and its
    /// copy may be needed.
    fn remembered(&self) -> Vec<Target> {
        let listed = reach::remembered(self.layout);
        let port = listed.iter().find_map(|target| target.api).map_or(API_PORT, |api| api.port());
        let mut all = self.others(&listed);
        for copy in self.others(&members::machines(self.layout, port)) {
            if !all.iter().any(|known| known.is(&copy)) {
                all.push(copy);
            }
        }
        all
    }

    fn others(&self, targets: &[Target]) -> Vec<Target> {
        targets.iter().filter(|target| target.node != self.own && !target.is_here()).cloned().collect()
    }

    /// All of these at once, and the first router where it is asked.
    async fn meet(&self, targets: Vec<Target>, asks_router: bool) -> (Vec<Meeting>, Option<Fact>) {
        let addresses: Vec<_> = targets.iter().filter_map(Target::ip).collect();
        let doors = Doors::new();
        let meet = targets.iter().map(|target| self.one(&doors, target));
        let (met, paths) = tokio::join!(futures::future::join_all(meet), paths::look(&addresses, asks_router));
        let meeting = |(target, (reach, said)): (Target, (Option<What>, _))| {
            let loss = target.ip().and_then(|address| paths.losses.get(&address).cloned());
            Meeting { target, seen: reach.into_iter().chain(loss).collect(), said }
        };
        let router = paths.router.map(|what| fact(self.own, paths::GATEWAY, what));
        (targets.into_iter().zip(met).map(meeting).collect(), router)
    }

    /// Knocks and asks at once.
    async fn one(&self, doors: &Option<Doors>, target: &Target) -> (Option<What>, Option<Result<Facts, String>>) {
        let knock = async {
            match doors {
                Some(doors) => Some(doors.knock(target).await),
                None => None,
            }
        };
        let Some(access) = self.access else { return (knock.await, None) };
        let (mut knock, mut ask) = (std::pin::pin!(knock), std::pin::pin!(access.ask(self.own, target)));
        let reach = tokio::select! {
            said = &mut ask => return (knock.await, Some(said)),
            reach = &mut knock => reach,
        };
        if reach.as_ref().is_none_or(reach::speaks) || !access.goes_straight_to(target) {
            return (reach, Some(ask.await));
        }
        let said = tokio::time::timeout(GRACE, ask).await;
        (reach, Some(said.unwrap_or_else(|_| Err("it does not answer".to_owned()))))
    }
}

// === impl Meeting ===

impl Meeting {
    /// Under the name that is known. None where there is a record that does not have it.
    fn recorded(mut self, targets: &[Target], names: &BTreeMap<IpAddr, Name>) -> Option<Meeting> {
        let known = targets.is_empty() || targets.iter().any(|known| known.is(&self.target));
        if let Some(name) = self.target.ip().and_then(|address| names.get(&address)) {
            self.target.node = name.clone();
        }
        known.then_some(self)
    }

    fn tell(self, own: &str, found: &mut Found) {
        let node = self.target.node;
        found.facts.extend(self.seen.into_iter().map(|what| fact(own, &node, what)));
        found.said.extend(self.said.map(|said| {
            said.unwrap_or_else(|why| {
                let what = format!("what {node} says of itself");
                Facts { missing: vec![Missing { what, why }], ..Facts::default() }
            })
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::{Around, Meeting, Record, Target};
    use crate::layout::Layout;
    use keeper::wrong::{Answers, What};
    use std::time::{Duration, Instant};
    use tokio::net::TcpListener;

    fn target(node: &str, api: &str) -> Target {
        Target { node: node.into(), api: Some(api.parse().unwrap()), agent: None, ranges: Vec::new() }
    }

    #[test]
    fn who_is_remembered_has_the_name_of_the_record_or_is_gone() {
        let met = || Meeting { target: target("10.0.0.2:6443", "10.0.0.2:6443"), seen: Vec::new(), said: None };
        let name = |targets: &[Target]| {
            let names = targets.iter().map(|target| (target.ip().unwrap(), target.node.clone())).collect();
            met().recorded(targets, &names).map(|one| one.target.node.to_string())
        };
        assert_eq!(name(&[target("b", "10.0.0.2:6443")]).as_deref(), Some("b"));
        assert_eq!(name(&[target("c", "10.0.0.3:6443")]), None, "it was removed");
        assert_eq!(name(&[]).as_deref(), Some("10.0.0.2:6443"), "nobody knows better");
        let of_members = [("10.0.0.2".parse().unwrap(), "b".into())].into();
        assert_eq!(met().recorded(&[], &of_members).map(|one| one.target.node).as_deref(), Some("b"));
    }

    /// 192.0.2.0/24 is nobody's; whether the kernel says so or says nothing, the door is silent.
    #[tokio::test]
    async fn a_record_that_does_not_come_holds_up_nobody_who_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        std::fs::create_dir_all(layout.known_servers().parent().unwrap()).unwrap();
        let closed = TcpListener::bind("127.0.0.2:0").await.unwrap().local_addr().unwrap();
        std::fs::write(
            layout.known_servers(),
            format!(r#"{{"servers":["https://192.0.2.7:6443","https://{closed}"]}}"#),
        )
        .unwrap();
        let around = Around { own: "a", layout: &layout, access: None };
        let start = Instant::now();
        let record = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Record::default()
        };
        let (_, found) = around.look(record).await;
        assert!(start.elapsed() < Duration::from_millis(1_400), "{:?}", start.elapsed());
        let silent = |what: &What| matches!(what, What::Reach { api: Some(Answers::Silent), .. });
        assert!(
            found.facts.iter().any(|fact| fact.about == "192.0.2.7:6443" && silent(&fact.what)),
            "{:?}",
            found.facts
        );
    }
}
