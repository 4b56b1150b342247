//! Scripts: a time in milliseconds, what comes in, and what must come out.

use super::*;

fn input(words: &str) -> Input {
    let (verb, rest) = words.split_once(' ').unwrap_or((words, ""));
    match (verb, rest) {
        ("lease", "none") => Input::Lease(None),
        ("lease", holder) => Input::Lease(Some(Lease { holder: holder.replace("nobody", ""), revision: 1 })),
        ("ready", word) => Input::Ready(word == "yes"),
        ("free", _) => Input::Probed(Probe::Free),
        ("unknown", _) => Input::Probed(Probe::Unknown),
        ("taken", _) => Input::Probed(Probe::Taken([2, 0, 0, 0, 0, 9])),
        ("written", _) => Input::Written(true),
        ("refused", _) => Input::Written(false),
        ("tick", _) => Input::Tick,
        ("stop", _) => Input::Stop,
        other => panic!("{other:?}"),
    }
}

fn word(effect: &Effect) -> String {
    match effect {
        Effect::Put(time) => format!("put {}", time.as_millis()),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// Lines of `MILLISECONDS INPUT > EFFECTS`.
fn check(script: &str) -> Core {
    let mut core = Core::new("me");
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (asked, wanted) = line.split_once('>').unwrap_or((line, ""));
        let (at, words) = asked.trim().split_once(' ').unwrap();
        let mut out = Vec::new();
        core.step(input(words), Duration::from_millis(at.parse().unwrap()), &mut out);
        let found: Vec<String> = out.iter().map(word).collect();
        assert_eq!(found.join(", "), wanted.trim(), "{line}\nof{script}");
    }
    core
}

const HELD: &str = "
    0 ready yes
    0 lease none > probe
    300 free > write
    350 written > put 2950, announce
";

#[test]
fn an_address_that_nobody_has_is_taken_and_announced() {
    check(&format!(
        "{HELD}
        400 lease me > announce
        600 tick > announce
        850 tick
        1300 tick > write
        1400 written > put 2900
        10600 tick > drop, probe"
    ));
}

#[test]
fn the_holder_says_so_now_and_then_and_asks_who_else_does() {
    let mut script = HELD.to_owned();
    for second in 1..=10 {
        let at = second * 1000 + 300;
        let also = match second {
            1 | 2 => ", announce",
            _ => "",
        };
        script += &format!("{at} tick > write{also}\n{at} written > put 3000\n");
    }
    let core = check(&format!("{script} 12300 tick > write, announce, probe\n 12310 taken > announce"));
    let State::Holding(held) = core.state() else { panic!("{core:?}") };
    assert_eq!(held.contested_by, Some([2, 0, 0, 0, 0, 9]));
}

#[test]
fn another_holder_is_waited_for_until_it_was_silent_for_a_whole_lease() {
    check(
        "0 ready yes\n 0 lease other\n 3900 tick\n 3900 lease other\n 7900 tick\n 7901 tick > probe\n 8200 free > write",
    );
    // A release is not waited for.
    check("0 ready yes\n 0 lease other\n 100 lease nobody > probe");
    // It came back while the segment was asked.
    check("0 ready yes\n 0 lease other\n 4001 tick > probe\n 4100 lease other\n 4300 free");
}

#[test]
fn the_holder_gives_up_before_others_may_take() {
    // Nobody hears the renewals.
    check(&format!(
        "{HELD} 1300 tick > write, announce\n 2300 refused > write, announce\n 3299 refused > write\n 3300 tick > drop, probe"
    ));
    // The process stood still: the first thing it does is to give up, whatever wakes it. Its lease is asked for anew.
    check(&format!("{HELD} 9000 written > drop, probe\n 9001 lease other\n 9300 free"));
    // Somebody else has it after all.
    check(&format!("{HELD} 1000 lease other > drop"));
    assert!(LIFETIME < LEASE);
}

#[test]
fn a_lease_that_was_granted_too_late_is_no_use() {
    check("0 ready yes\n 0 lease none > probe\n 300 free > write\n 3300 written > probe");
}

#[test]
fn only_a_server_that_serves_takes_or_keeps_it() {
    check("0 lease none\n 10 ready no\n 20 ready yes > probe\n 30 ready no\n 300 free");
    check(&format!("{HELD} 700 ready no > drop, release\n 800 lease nobody\n 900 ready yes > probe"));
}

#[test]
fn who_else_answers_is_left_alone() {
    let core = check(
        "0 ready yes\n 0 lease none > probe\n 300 taken\n 5299 tick\n 5300 tick\n 5301 tick > probe\n 5600 taken",
    );
    assert!(matches!(core.state(), State::Blocked { by: Some([2, 0, 0, 0, 0, 9]), .. }));
    check("0 ready yes\n 0 lease none > probe\n 300 unknown\n 5300 tick\n 5301 tick > probe");
}

#[test]
fn a_stop_releases_what_is_held_or_asked_for() {
    check(&format!("{HELD} 700 stop > drop, release\n 9000 tick\n 9000 lease nobody"));
    check("0 ready yes\n 0 lease none > probe\n 300 free > write\n 310 stop > release");
    check("0 ready yes\n 0 lease other\n 310 stop");
}
