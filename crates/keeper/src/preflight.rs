//! What is looked at before anything is changed. Each finding has a code, says what is the case, and stands in the way or
//! not; what stands in the way can be waived by its code, one by one.
//!
//! What is wrong with the cluster is known already, as an answer of [`crate::wrong`]: here it is only said what of it a
//! change must not begin with.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::copies::Copies;
use crate::wrong::{Answer, Class, Facts, What, answer};

/// Clocks further apart than this make times in journals, leases and certificates unreliable.
const OFFSET_MILLIS_MAX: u64 = 100;
/// An authority that ends sooner is replaced first.
const AUTHORITY_LEFT_MIN: SignedDuration = SignedDuration::from_hours(30 * 24);
/// A proof that is older proves an older program, on an older state.
const PROOF_AGE_MAX: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Trouble that can wait till morning, but not a change. All others that can wait are only told.
const IN_THE_WAY: [&str; 5] =
    ["CLOCK_SKEW", "CERT_EXPIRING", "BACKUP_FAILED", "BACKUP_UNRESTORABLE", "LEADER_FLAPPING"];
/// Of a change that was begun: a change is how they end.
const OF_A_CHANGE: [&str; 3] = ["UPGRADE_STUCK", "UPGRADE_HALF_DONE", "VERSION_SKEW"];

/// Something that was found, with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub code: String,
    pub blocks: bool,
    pub sentence: String,
}

/// How many pods of a set may be stopped by eviction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    pub name: String,
    /// Pods it is about.
    pub pods: u64,
    /// Of them that must be there.
    pub needed: u64,
}

// === impl Finding ===

impl Finding {
    pub fn blocks(code: &str, sentence: impl Into<String>) -> Finding {
        Finding { code: code.to_owned(), blocks: true, sentence: sentence.into() }
    }

    pub fn notes(code: &str, sentence: impl Into<String>) -> Finding {
        Finding { code: code.to_owned(), blocks: false, sentence: sentence.into() }
    }
}

/// What stands in the way and whose code a person named does so no more; it is told all the same.
pub fn waive(findings: &mut [Finding], codes: &[String]) {
    for finding in findings.iter_mut().filter(|finding| finding.blocks && codes.contains(&finding.code)) {
        finding.blocks = false;
        finding.sentence = format!("waived: {}", finding.sentence);
    }
}

/// What the facts say against a change now.
pub fn of_facts(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    let said = answer(facts, now);
    let mut found = active(&said);
    if found.iter().all(|finding| finding.code != "CLOCK_SKEW") {
        found.extend(clocks(facts));
    }
    found.extend(authorities(facts, now));
    found.extend(backups(facts, now));
    found
}

/// What is wrong already.
fn active(said: &Answer) -> Vec<Finding> {
    let cause = said.cause.iter().map(|cause| (cause.code, cause.class, &cause.sentence));
    let all = cause.chain(said.others.iter().map(|other| (other.code, other.class, &other.sentence)));
    let relevant = all.filter(|(code, class, _)| *class != Class::Info && !OF_A_CHANGE.contains(code));
    let found = relevant.map(|(code, class, sentence)| {
        if class == Class::Page || IN_THE_WAY.contains(&code) {
            Finding::blocks(code, sentence)
        } else {
            Finding::notes(code, sentence)
        }
    });
    found.collect()
}

fn clocks(facts: &Facts) -> Option<Finding> {
    let offset = |fact: &crate::wrong::Fact| match fact.what {
        What::ClockOffset { millis } => Some((millis, fact.about.clone(), fact.by.clone())),
        _ => None,
    };
    let (millis, about, by) = facts.others().filter_map(offset).max_by_key(|(millis, ..)| millis.unsigned_abs())?;
    (OFFSET_MILLIS_MAX < millis.unsigned_abs()).then(|| {
        let apart = millis.unsigned_abs();
        let how = if 0 < millis { "ahead of" } else { "behind" };
        let sentence = format!(
            "the clock of {about} is {apart} ms {how} that of {by}, and {OFFSET_MILLIS_MAX} ms is the most before a \
             change: look at its time service"
        );
        Finding::blocks("CLOCK_OFFSET", sentence)
    })
}

/// Leaves renew themselves, and those that did not are told as trouble; an authority does not.
fn authorities(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    let ending = facts.facts.iter().filter_map(|fact| match &fact.what {
        What::Certificate { name, ends, authority: true, .. } if ends.duration_since(now) < AUTHORITY_LEFT_MIN => {
            Some((name.clone(), *ends))
        }
        _ => None,
    });
    let mut ending: Vec<(String, Timestamp)> = ending.collect();
    ending.sort();
    ending.dedup();
    let found = ending.into_iter().map(|(name, ends)| {
        let day = ends.strftime("%Y-%m-%d");
        Finding::blocks(
            "AUTHORITY_ENDS",
            format!("the authority {name} ends on {day}: replace it before anything else"),
        )
    });
    found.collect()
}

fn backups(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    let made = facts.facts.iter().find_map(|fact| match &fact.what {
        What::Backup { last_good, .. } => Some(*last_good),
        _ => None,
    });
    let proofs = facts.facts.iter().filter_map(|fact| match &fact.what {
        What::RestoreProof { ok: true, of, .. } => Some(*of),
        _ => None,
    });
    let proven = proofs.max();
    let mut found = Vec::new();
    if made.flatten().is_none() {
        let sentence = "no backup was made yet but the one this run makes first: evenkeel backup";
        found.push(Finding::notes("BACKUP_NONE", sentence));
    }
    match proven.map(|at| now.duration_since(at)) {
        Some(age) if PROOF_AGE_MAX < age => {
            let days = age.as_hours() / 24;
            let sentence =
                format!("the newest backup that a restore has proven is {days} days old: evenkeel backup prove");
            found.push(Finding::blocks("BACKUP_PROOF_OLD", sentence));
        }
        Some(_) => {}
        None => {
            let sentence = "no backup of this cluster was proven by a restore yet: evenkeel backup prove";
            found.push(Finding::notes("BACKUP_UNPROVEN", sentence));
        }
    }
    found
}

/// What the copies of the state say against a change now.
pub fn of_copies(copies: &Copies) -> Vec<Finding> {
    let quorum = copies.all_well().err().map(|why| Finding::blocks("QUORUM_AT_RISK", why));
    quorum.into_iter().chain(copies.too_full().map(|why| Finding::blocks("STORE_FULL", why))).collect()
}

/// Budgets that let no pod stop, ever. No step empties a node, so they stand in nobody's way yet.
pub fn of_budgets(budgets: &[Budget]) -> Vec<Finding> {
    let stiff = budgets.iter().filter(|budget| 0 < budget.pods && budget.pods <= budget.needed);
    let found = stiff.map(|Budget { name, pods, needed }| {
        let sentence = format!(
            "the budget {name} lets no pod stop ({needed} of {pods} must be there): this change empties no node, but one \
             that had to be emptied would wait for it"
        );
        Finding::notes("BUDGET_STIFF", sentence)
    });
    found.collect()
}

/// The Kubernetes version of a program against what runs: one minor at a time, in either direction.
pub fn of_kubernetes(running: &str, next: &str) -> Option<Finding> {
    let (old, new) = (minor(running)?, minor(next)?);
    (old.0 != new.0 || 1 < old.1.abs_diff(new.1)).then(|| {
        let sentence = format!(
            "from Kubernetes {running} to {next} skips a minor version, which nodes and clients do not support"
        );
        Finding::blocks("SKEW", sentence)
    })
}

/// `v1.36.0+evenkeel.0.1.0` is (1, 36).
fn minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').splitn(3, '.');
    let mut number = || parts.next().and_then(|part| part.parse().ok());
    Some((number()?, number()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::NodeName;
    use crate::wrong::{API, CLUSTER, Fact};

    fn now() -> Timestamp {
        "2026-05-01T00:00:00Z".parse().unwrap()
    }

    fn of(list: &[(&str, &str, What)]) -> Vec<Finding> {
        let fact = |(by, about, what): &(&str, &str, What)| Fact {
            by: (*by).into(),
            about: (*about).into(),
            at: now(),
            what: what.clone(),
        };
        let facts = Facts { facts: list.iter().map(fact).collect(), ..Facts::default() };
        of_facts(&facts, now())
    }

    fn check(found: &[Finding], code: &str, blocks: bool, part: &str) {
        let one = found.iter().find(|finding| finding.code == code).unwrap_or_else(|| panic!("{code}: {found:?}"));
        assert!(one.blocks == blocks && one.sentence.contains(part), "{one:?}");
    }

    fn backup(last_good: Option<Timestamp>) -> What {
        What::Backup { last_good, overdue: None, target: String::new(), error: String::new() }
    }

    fn proof(days: i64) -> What {
        What::RestoreProof { ok: true, of: now() - SignedDuration::from_hours(24 * days), why: String::new() }
    }

    #[test]
    fn clocks_may_be_little_apart() {
        let apart = |millis| of(&[("a", "b", What::ClockOffset { millis }), (API, CLUSTER, proof(1))]);
        assert!(apart(90).iter().all(|finding| !finding.blocks));
        check(&apart(-150), "CLOCK_OFFSET", true, "the clock of b is 150 ms behind that of a");
        let far = apart(4_000);
        check(&far, "CLOCK_SKEW", true, "");
        assert!(far.iter().all(|finding| finding.code != "CLOCK_OFFSET"), "once is enough: {far:?}");
    }

    #[test]
    fn an_authority_that_ends_soon_comes_first() {
        let authority = |days: i64| {
            let ends = now() + SignedDuration::from_hours(24 * days);
            What::Certificate { name: "server-ca".into(), ends, due: ends, authority: true }
        };
        check(&of(&[("a", "a", authority(20)), ("b", "b", authority(20))]), "AUTHORITY_ENDS", true, "on 2026-05-21");
        assert!(of(&[("a", "a", authority(60))]).iter().all(|finding| finding.code != "AUTHORITY_ENDS"));
    }

    #[test]
    fn a_proof_has_an_age() {
        check(&of(&[(API, CLUSTER, backup(None))]), "BACKUP_NONE", false, "evenkeel backup");
        check(&of(&[(API, CLUSTER, backup(Some(now())))]), "BACKUP_UNPROVEN", false, "evenkeel backup prove");
        check(&of(&[(API, CLUSTER, proof(40)), (API, CLUSTER, proof(31))]), "BACKUP_PROOF_OLD", true, "31 days old");
        assert_eq!(of(&[(API, CLUSTER, backup(Some(now()))), (API, CLUSTER, proof(3))]), []);
    }

    #[test]
    fn what_is_wrong_now_is_put_right_first_and_what_can_wait_is_told() {
        let failed = What::Backup {
            last_good: Some(now() - SignedDuration::from_hours(40)),
            overdue: Some(now() - SignedDuration::from_hours(20)),
            target: "nas".into(),
            error: "403".into(),
        };
        check(&of(&[(API, CLUSTER, failed)]), "BACKUP_FAILED", true, "nas");
        let stuck = What::Run {
            verb: "upgrade".into(),
            who: "ben".into(),
            state: crate::wrong::RunState::Stuck,
            node: "b".into(),
            last: now(),
            why: "red".into(),
        };
        let found = of(&[(API, CLUSTER, stuck), (API, CLUSTER, proof(1))]);
        assert!(found.iter().all(|finding| !finding.blocks), "the way out of a run is a change: {found:?}");
    }

    #[test]
    fn a_name_waives_one_thing() {
        let mut found = vec![Finding::blocks("STORE_FULL", "it is full"), Finding::blocks("SKEW", "it skips")];
        waive(&mut found, &["STORE_FULL".to_owned()]);
        assert_eq!(found[0], Finding::notes("STORE_FULL", "waived: it is full"));
        assert!(found[1].blocks);
    }

    #[test]
    fn a_budget_that_lets_no_pod_stop_is_told() {
        let budget = |pods, needed| Budget { name: "shop/db".into(), pods, needed };
        assert_eq!(of_budgets(&[budget(3, 2), budget(0, 1)]), []);
        check(&of_budgets(&[budget(3, 3)]), "BUDGET_STIFF", false, "shop/db lets no pod stop (3 of 3");
    }

    #[test]
    fn one_minor_of_kubernetes_at_a_time() {
        assert_eq!(of_kubernetes("v1.36.0+evenkeel.0.1.0", "v1.37.1+evenkeel.0.2.0"), None);
        assert_eq!(of_kubernetes("v1.36.0", "v1.35.9"), None);
        assert!(of_kubernetes("v1.36.0", "v1.38.0").unwrap().sentence.contains("skips a minor version"));
        assert_eq!(of_kubernetes("v1.36.0", "no version"), None, "another finding says so");
    }

    #[test]
    fn copies_that_are_not_well_block() {
        let silent = crate::copies::Replica { node: NodeName("c".into()), learner: false, state: None };
        let found = of_copies(&Copies { replicas: vec![silent], ..Copies::default() });
        check(&found, "QUORUM_AT_RISK", true, "on c does not answer");
        assert_eq!(of_copies(&Copies::default()), []);
    }
}
