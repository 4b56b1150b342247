//! The matrix of `replace`: the command is killed at every look, effect and record; somebody else runs it again on another
//! server, and the new machine is in its place. Two who work at the same replacement do no harm.

use base::{Rng, SeededRng};
use jiff::{SignedDuration, Timestamp};
use keeper::replace::{Holder, Mark, Next, Replacement, Seen, Times};

const OLD: u32 = 1;
const NEW: u32 = 2;
/// A replacement ends within so many turns, or not at all.
const TURNS_MAX: usize = 200;
const SEEDS: u64 = 300;

/// The cluster around one node.
#[derive(Clone, Debug)]
struct Rack {
    /// The machine that has the node's name.
    holder: Option<u32>,
    /// The API has an object of the node, with what was kept or without.
    node: Option<bool>,
    /// How far the new machine is; it begins when somebody has printed a command.
    came: u32,
    tokens: u32,
    /// The record with its version, and the machine that it is about.
    record: Option<(u64, Times, Option<u32>)>,
    versions: u64,
    claimed: bool,
    /// Scorecards, by the time in them.
    cards: Vec<Option<Timestamp>>,
    clock: Timestamp,
}

/// One command on some server.
#[derive(Clone)]
struct Person {
    part: Replacement,
    version: u64,
    machine: Option<u32>,
    ended: bool,
}

/// Where a command is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kill {
    /// It has decided, and done nothing.
    Before,
    /// It was done, and nobody knows.
    After,
}

// === impl Rack ===

impl Rack {
    /// A node whose machine is lost; with `out`, somebody has removed it by hand before.
    fn new(out: bool) -> Rack {
        Rack {
            holder: (!out).then_some(OLD),
            node: Some(false),
            came: 0,
            tokens: 0,
            record: None,
            versions: 0,
            claimed: false,
            cards: Vec::new(),
            clock: Timestamp::UNIX_EPOCH,
        }
    }

    /// The new machine comes a little further whenever somebody looks.
    fn look(&mut self, about: Option<u32>) -> Seen {
        self.clock += SignedDuration::from_secs(1);
        if 0 < self.tokens && self.holder.is_none_or(|holder| holder == NEW) {
            self.came += 1;
        }
        match self.came {
            2 => self.holder = Some(NEW),
            // Its node has none of what the old one had.
            3 => self.node = Some(false),
            _ => {}
        }
        let holder = match self.holder {
            None => Holder::Nobody,
            machine if machine == about => Holder::Old,
            Some(_) => Holder::New,
        };
        let new = |since| self.holder == Some(NEW) && since <= self.came;
        Seen {
            holder,
            registered: self.node.is_some(),
            joined: new(4),
            ready: new(6),
            restored: self.node == Some(true),
            settled: new(8),
        }
    }

    /// Writes the record where nobody else did since.
    fn note(&mut self, person: &mut Person) {
        match &mut self.record {
            Some((version, times, _)) if *version == person.version => {
                self.versions += 1;
                (*version, *times) = (self.versions, person.part.times);
                person.version = self.versions;
            }
            Some((version, times, about)) => {
                person.part.reread(*times);
                (person.version, person.machine) = (*version, *about);
            }
            None => person.ended = true,
        }
    }

    fn perform(&mut self, person: &mut Person, next: Next) {
        match next {
            Next::Remove => match self.holder {
                holder if holder.is_some() && holder != person.machine => {}
                holder => {
                    assert_ne!(holder, Some(NEW), "the new machine is taken out");
                    (self.holder, self.node) = (None, None);
                }
            },
            Next::Restore => self.node = self.node.map(|_| true),
            Next::KeepCard if !self.cards.contains(&person.part.times.verified) => {
                self.cards.push(person.part.times.verified);
            }
            Next::ReleaseLayer => self.claimed = false,
            Next::Forget => {
                let own = self.record.as_ref().is_some_and(|(version, ..)| *version == person.version);
                self.record.take_if(|_| own);
            }
            Next::Offer => self.tokens += 1,
            Next::Note(_) | Next::KeepCard | Next::Wait(_) | Next::Ended => {}
        }
    }

    /// The new machine is in its place, and nothing of the work is left.
    fn is_whole(&self) -> bool {
        self.holder == Some(NEW) && self.node == Some(true) && self.record.is_none() && self.cards.len() == 1
    }
}

// === impl Person ===

impl Person {
    /// The command, run by somebody: goes on where there is a record. None where it refuses, because the node's machine
    /// answers.
    fn new(rack: &mut Rack) -> Option<Person> {
        if rack.record.is_none() {
            if rack.holder == Some(NEW) {
                return None;
            }
            let times = Times { decided: Some(rack.clock), ..Times::default() };
            rack.versions += 1;
            rack.record = Some((rack.versions, times, rack.holder));
        }
        rack.claimed = true;
        let (version, times, machine) = rack.record.as_ref()?;
        Some(Person { part: Replacement::new(*times), version: *version, machine: *machine, ended: false })
    }

    fn decide(&mut self, rack: &mut Rack) -> Next {
        let seen = rack.look(self.machine);
        self.part.next(&seen)
    }

    fn act(&mut self, rack: &mut Rack, next: Next) {
        rack.perform(self, next);
        self.part.done(next, rack.clock);
        match next {
            Next::Offer | Next::Note(_) => rack.note(self),
            Next::Ended => self.ended = true,
            _ => {}
        }
    }

    fn turn(&mut self, rack: &mut Rack) {
        let next = self.decide(rack);
        self.act(rack, next);
    }

    fn finish(&mut self, rack: &mut Rack) {
        for _ in 0..TURNS_MAX {
            if self.ended {
                return;
            }
            self.turn(rack);
        }
        panic!("no end: {rack:?}");
    }
}

/// The command as far as the cut, and what it was about to do there.
fn begun(out: bool, cut: usize) -> Option<(Rack, Person, Next)> {
    let mut rack = Rack::new(out);
    let mut person = Person::new(&mut rack).unwrap();
    for _ in 0..cut {
        person.turn(&mut rack);
    }
    let next = person.decide(&mut rack);
    (!person.ended).then_some((rack, person, next))
}

fn everywhere(check: impl Fn(&str, Rack, Person, Next)) {
    let mut points = 0;
    for out in [false, true] {
        for cut in 0..TURNS_MAX {
            let Some((rack, person, next)) = begun(out, cut) else { break };
            check(&format!("out {out}, cut at {cut} before {next:?}"), rack, person, next);
            points += 1;
        }
    }
    assert!(24 <= points, "{points} points are not every look, effect and record");
}

#[test]
fn whoever_goes_on_brings_it_to_its_end() {
    everywhere(|at, rack, first, next| {
        for kill in [Kill::Before, Kill::After] {
            let mut rack = rack.clone();
            if kill == Kill::After {
                first.clone().act(&mut rack, next);
            }
            if let Some(mut second) = Person::new(&mut rack) {
                second.finish(&mut rack);
            }
            assert!(rack.is_whole() && !rack.claimed, "{at}, {kill:?}: {rack:?}");
        }
    });
}

/// The first one sleeps for as long as the second takes, and then does what it was about to do.
#[test]
fn who_comes_late_does_no_harm() {
    everywhere(|at, mut rack, mut first, next| {
        if let Some(mut second) = Person::new(&mut rack) {
            second.finish(&mut rack);
        }
        first.act(&mut rack, next);
        first.finish(&mut rack);
        assert!(rack.is_whole(), "{at}: {rack:?}");
    });
}

#[test]
fn any_number_of_people_at_once_end_it_once() {
    for seed in 0..SEEDS {
        let rng = SeededRng::new(seed);
        let below = |bound: u64| usize::try_from(rng.next_u64() % bound).unwrap();
        let mut rack = Rack::new(below(2) == 0);
        let mut people: Vec<(Person, Option<Next>)> = Vec::new();
        for _ in 0..below(80) {
            match below(8) {
                0 if people.len() < 4 => people.extend(Person::new(&mut rack).map(|person| (person, None))),
                1 if !people.is_empty() => drop(people.swap_remove(below(people.len() as u64))),
                _ if people.is_empty() => {}
                _ => {
                    let at = below(people.len() as u64);
                    let (person, pending) = &mut people[at];
                    match pending.take() {
                        _ if person.ended => {}
                        Some(next) => person.act(&mut rack, next),
                        None => *pending = Some(person.decide(&mut rack)),
                    }
                }
            }
        }
        for (mut person, pending) in people {
            if let Some(next) = pending {
                person.act(&mut rack, next);
            }
            person.finish(&mut rack);
        }
        if let Some(mut last) = Person::new(&mut rack) {
            last.finish(&mut rack);
        }
        assert!(rack.is_whole(), "seed {seed}: {rack:?}");
    }
}

/// What was reached is not reached again: the times are those of the first.
#[test]
fn times_are_kept_over_a_change_of_hands() {
    let mut times = Times::default();
    times.mark(Mark::Asked, Timestamp::UNIX_EPOCH);
    times.mark(Mark::Asked, Timestamp::UNIX_EPOCH + SignedDuration::from_secs(9));
    assert_eq!(times.asked, Some(Timestamp::UNIX_EPOCH));
}
