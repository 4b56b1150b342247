//! What comes next of a rotation, and who is not ready for it. Pure: what is recorded and what machines say, in; a
//! verdict, out.

use crate::pki::{Phase, Role};

/// What a machine says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub name: String,
    pub role: Role,
    /// The last phase that it has gone along with; None where it trusts what was before, or says nothing.
    pub reached: Option<Phase>,
    /// False for one that has been silent for a while.
    pub live: bool,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Advance(Phase),
    /// For these machines.
    Wait(Vec<String>),
    /// Somebody asked for it.
    Paused,
    /// What comes next locks out whoever has not come along: a person says when.
    Decide,
    Over,
}

/// A machine that is silent holds nobody up: until the end it comes back to servers that still vouch for themselves with
/// the old authority.
pub fn judge(phase: Phase, paused: bool, machines: &[Machine]) -> Verdict {
    if phase == Phase::Done {
        return Verdict::Over;
    }
    let behind: Vec<String> = behind(phase, machines).filter(|one| one.live).map(|one| one.name.clone()).collect();
    match (behind.is_empty(), phase) {
        (_, _) if paused => Verdict::Paused,
        (false, _) => Verdict::Wait(behind),
        (true, Phase::Distribute) => Verdict::Advance(Phase::Issue),
        (true, Phase::Issue) => Verdict::Decide,
        (true, Phase::Finish | Phase::Done) => Verdict::Advance(Phase::Done),
    }
}

/// The machines that would be out if the old authorities ended now.
pub fn locked_out(machines: &[Machine]) -> Vec<String> {
    behind(Phase::Issue, machines).map(|one| one.name.clone()).collect()
}

/// Whether it is this server's turn to start its etcd member again, which trusts what it read at its start: one at a
/// time, in the order of their names.
pub fn is_turn_of(own: &str, machines: &[Machine]) -> bool {
    let mut waiting: Vec<&Machine> = behind(Phase::Finish, machines).filter(|one| one.role == Role::Server).collect();
    waiting.retain(|one| one.live || one.name == own);
    waiting.iter().map(|one| one.name.as_str()).min() == Some(own)
}

/// Whether a member may be away for a moment, with this many others that answer. Fewer than three have no margin, and
/// their clients wait for that moment.
pub fn may_be_away(others: usize, answering: usize) -> bool {
    let all = others + 1;
    if all < 3 { others == answering } else { all / 2 < answering }
}

fn behind(phase: Phase, machines: &[Machine]) -> impl Iterator<Item = &Machine> {
    machines.iter().filter(move |one| one.reached < Some(phase))
}

#[cfg(test)]
mod tests {
    use super::{Machine, Verdict, is_turn_of, judge, locked_out, may_be_away};
    use crate::pki::{Phase, Role};

    fn phase(text: &str) -> Option<Phase> {
        match text {
            "old" => None,
            "both" => Some(Phase::Distribute),
            "new" => Some(Phase::Issue),
            "alone" => Some(Phase::Finish),
            "done" => Some(Phase::Done),
            other => panic!("{other}"),
        }
    }

    /// `server a both`, `agent b old silent`, a line each.
    fn machines(script: &str) -> Vec<Machine> {
        let machine = |line: &str| {
            let mut words = line.split_whitespace();
            let role = if words.next()? == "server" { Role::Server } else { Role::Agent };
            let (name, reached) = (words.next()?.to_owned(), phase(words.next()?));
            Some(Machine { name, role, reached, live: words.next() != Some("silent") })
        };
        script.lines().filter_map(machine).collect()
    }

    fn check(at: &str, script: &str, wanted: &str) {
        let (at, paused) = at.strip_suffix(" paused").map_or((at, false), |at| (at, true));
        let verdict = match judge(phase(at).unwrap(), paused, &machines(script)) {
            Verdict::Advance(phase) => format!("advance {phase:?}"),
            Verdict::Wait(names) => format!("wait {}", names.join(" ")),
            other => format!("{other:?}"),
        };
        assert_eq!(verdict, wanted, "{at}: {script}");
    }

    #[test]
    fn a_phase_ends_when_all_that_live_went_along() {
        check("both", "server a both\nserver b old\nagent c old", "wait b c");
        check("both", "server a both\nserver b both\nagent c both", "advance Issue");
        check("new", "server a new\nserver b both", "wait b");
        check("alone", "server a alone\nagent b new", "wait b");
        check("alone", "server a alone\nagent b alone", "advance Done");
        check("done", "server a old", "Over");
    }

    #[test]
    fn the_silent_hold_nobody_up_until_a_person_decides_about_them() {
        check("both", "server a both\nagent b old silent", "advance Issue");
        check("new", "server a new\nagent b old silent\nagent c both silent", "Decide");
        assert_eq!(locked_out(&machines("server a new\nagent b old silent\nagent c both silent")), ["b", "c"]);
        check("alone", "server a alone\nagent b old silent", "advance Done");
    }

    #[test]
    fn a_pause_holds_between_phases_and_changes_nothing_else() {
        check("both paused", "server a both", "Paused");
        check("new paused", "server a both", "Paused");
        check("both", "server a both", "advance Issue");
    }

    #[test]
    fn members_start_again_one_after_another() {
        let script = "server b new\nserver a alone\nserver c new\nagent 0 new";
        assert!(is_turn_of("b", &machines(script)));
        assert!(!is_turn_of("c", &machines(script)) && !is_turn_of("a", &machines(script)));
        let silent = "server b new silent\nserver c new";
        assert!(is_turn_of("c", &machines(silent)), "one that is off is not waited for");
        assert!(may_be_away(0, 0) && may_be_away(1, 1) && !may_be_away(1, 0));
        assert!(may_be_away(2, 2) && !may_be_away(2, 1) && may_be_away(4, 3));
    }
}
