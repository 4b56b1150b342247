//! The crash matrix of every goal: the coordinator, or an agent, ends at every point of the run; somebody else takes over on
//! another server, and the cluster arrives. A person may ask for the way back at every point; coordinators with each other's
//! orders do no harm.
#![allow(clippy::unwrap_used, reason = "tests")]

mod case;
mod coordinator;
mod replacing;
mod world;

use base::SeededRng;
use keeper::{Attention, Entry, Phase, Standing};

use case::{Case, name, runs, upgrade_with_new_form};
use coordinator::{Coordinator, below};
use world::{Kill, World};

/// Of each case.
const SEEDS: u64 = 150;

/// Calls `check` for every case and every point at which its run can be cut off.
fn everywhere(mut check: impl FnMut(&Case, usize)) {
    for case in case::all() {
        for cut in 0..length(&case) {
            check(&case, cut);
        }
    }
}

/// How many effects a run without trouble has.
fn length(case: &Case) -> usize {
    let (mut world, mut count) = (World::new(case), 0);
    let mut coordinator = Coordinator::new(&world, 1);
    while !coordinator.ended {
        if coordinator.turn(&mut world, true) {
            count += 1;
        } else {
            coordinator.look();
        }
    }
    assert!(world.has_arrived(), "{}", case.name);
    count
}

/// The run as far as the cut, by the first coordinator.
fn begun(case: &Case, cut: usize) -> (World, Coordinator) {
    let mut world = World::new(case);
    let mut first = Coordinator::new(&world, 1);
    first.turns(&mut world, cut);
    (world, first)
}

/// Taken over by a coordinator on another server, with a wish of somebody else.
fn taken_over(world: &mut World, token: u64, wish: Option<Attention>) -> Coordinator {
    let mut next = Coordinator::new(world, token);
    if let Some(wish) = wish {
        next.ask(wish);
    }
    next.finish(world);
    next
}

#[test]
fn whoever_takes_over_arrives() {
    everywhere(|case, cut| {
        for lost_answer in [false, true] {
            let (mut world, mut first) = begun(case, cut);
            if lost_answer {
                first.turn(&mut world, false);
            }
            let left = world.journal.entries().len();
            let second = taken_over(&mut world, 2, None);
            let at = format!("{}, cut at {cut}", case.name);
            assert!(second.ended && world.has_arrived(), "{at}");
            assert_eq!(world.swaps(), case.swaps(), "{at}");
            assert!(world.journal.entries()[left..].iter().all(|entry| entry.actor == second.actor), "{at}");
        }
    });
}

#[test]
fn orders_of_the_past_are_refused() {
    everywhere(|case, cut| {
        for later in 0..12 {
            let (mut world, mut first) = begun(case, cut);
            let mut second = Coordinator::new(&world, 2);
            for _ in 0..later {
                second.turn(&mut world, true);
            }
            // The first one did not notice that it was replaced, and goes on.
            first.finish(&mut world);
            second.finish(&mut world);
            taken_over(&mut world, 3, None);
            let at = format!("{}, cut at {cut}, {later} later", case.name);
            assert!(world.has_arrived(), "{at}");
            assert_eq!(world.swaps(), case.swaps(), "{at}");
        }
    });
}

/// An order that was held up comes when somebody has gone another way since, under the same coordinator.
#[test]
fn an_order_that_comes_late_is_refused() {
    everywhere(|case, cut| {
        let (mut world, mut first) = begun(case, cut);
        let Some(order) = first.hold() else { return };
        first.ask(Attention::Back { why: "not today".into() });
        first.finish(&mut world);
        let before = (world.versions().join(" "), world.level, world.swaps());
        order.deliver(&mut world);
        let after = (world.versions().join(" "), world.level, world.swaps());
        assert_eq!(before, after, "{}, cut at {cut}: {order:?}", case.name);
    });
}

/// The later lease holder has the smaller token: it gives no order, and what it does is nothing.
#[test]
fn two_coordinators_with_swapped_tokens_do_no_harm() {
    everywhere(|case, cut| {
        let mut world = World::new(case);
        let mut first = Coordinator::new(&world, 2);
        first.turns(&mut world, cut);
        let mut second = Coordinator::new(&world, 1);
        for turn in 0..40 {
            let one = if turn % 2 == 0 { &mut second } else { &mut first };
            if !one.turn(&mut world, true) {
                one.look();
            }
        }
        second.finish(&mut world);
        first.finish(&mut world);
        taken_over(&mut world, 3, None);
        let at = format!("{}, cut at {cut}", case.name);
        assert!(world.has_arrived(), "{at}");
        assert_eq!(world.swaps(), case.swaps(), "{at}");
    });
}

/// An agent that dies in the middle of any order is not sent the order again before it was looked at.
#[test]
fn an_agent_may_be_killed_by_any_order() {
    for case in case::all() {
        let (world, _) = begun(&case, length(&case));
        for order in 0..world.orders {
            for kill in [Kill::Before, Kill::After, Kill::AndFalls] {
                let mut world = World::new(&case);
                world.kill = Some((order, kill));
                let first = taken_over(&mut world, 1, None);
                let at = format!("{}, order {order}, {kill:?}", case.name);
                if first.ended {
                    assert_eq!(world.swaps(), case.swaps(), "{at}");
                } else {
                    // What was tried and fell needs a person, who may be another one, elsewhere.
                    let last = &world.journal.entries().last().unwrap().phase;
                    assert!(kill == Kill::AndFalls && matches!(last, Phase::Stuck { .. }), "{at}: {last:?}");
                    assert!(taken_over(&mut world, 2, Some(Attention::Resume)).ended, "{at}");
                }
                assert!(world.has_arrived(), "{at}");
            }
        }
    }
}

#[test]
fn the_way_back_is_open_at_every_point_before_the_last() {
    everywhere(|case, cut| {
        let (mut world, _) = begun(case, cut);
        assert!(goes_back(&mut world, 2), "{}, cut at {cut}", case.name);
    });
}

/// A node's way back that was not gone to its end leaves what the run did there: the run's way back takes it along.
#[test]
fn what_was_resumed_can_be_taken_back() {
    let mut resumed = 0;
    everywhere(|case, cut| {
        let (mut world, mut first) = begun(case, cut);
        world.silent = Some(name("b"));
        first.finish(&mut world);
        world.silent = None;
        if first.ended {
            return;
        }
        for later in 0..14 {
            let mut world = world.clone();
            let mut second = Coordinator::new(&world, 2);
            second.ask(Attention::Resume);
            second.turns(&mut world, later);
            assert!(goes_back(&mut world, 3), "{}, cut at {cut}, {later} later", case.name);
            resumed += 1;
        }
    });
    assert!(resumed > 0);
}

/// Asks for the way back, and says whether it is gone. What is done is not taken back: that is a run of its own.
fn goes_back(world: &mut World, token: u64) -> bool {
    let over = match Standing::of(&world.case.plan(), &world.journal) {
        Standing::Running { step, .. } => step.is_none(),
        standing => standing.is_over(),
    };
    let next = taken_over(world, token, Some(Attention::Back { why: "I changed my mind".into() }));
    next.ended && if over || world.final_begun() { world.has_arrived() } else { world.is_as_before() }
}

#[test]
fn a_node_that_does_not_get_well_goes_back_alone_and_a_person_decides() {
    let mut world = World::new(&upgrade_with_new_form());
    world.bad = Some((name("c"), runs("0.2.0")));
    let mut coordinator = Coordinator::new(&world, 1);
    coordinator.finish(&mut world);
    // The order is b, c, a: the one whose work would be missed comes last.
    assert_eq!(world.versions(), ["0.1.0", "0.2.0", "0.1.0"]);
    let last = &world.journal.entries().last().unwrap().phase;
    assert_eq!(*last, Phase::Stuck { why: "the node does not get well".into() });
    assert!(!coordinator.ended && coordinator.waits);

    let mut back = world.clone();
    assert!(taken_over(&mut back, 2, Some(Attention::Back { why: "not today".into() })).ended);
    assert!(back.is_as_before());

    world.bad = None;
    assert!(taken_over(&mut world, 2, Some(Attention::Resume)).ended);
    assert!(world.has_arrived());
}

/// One sick node is enough: another one is not touched for it.
#[test]
fn where_another_node_is_in_the_way_nothing_is_taken_back() {
    everywhere(|case, cut| {
        let (mut world, mut first) = begun(case, cut);
        world.in_the_way = Some(name("c"));
        first.finish(&mut world);
        let at = format!("{}, cut at {cut}", case.name);
        assert!(world.journal.entries().iter().all(|entry| !matches!(entry.phase, Phase::Back { .. })), "{at}");
        if first.ended {
            return;
        }
        let last = &world.journal.entries().last().unwrap().phase;
        assert_eq!(*last, Phase::Stuck { why: "another node is not well".into() }, "{at}");
        world.in_the_way = None;
        assert!(taken_over(&mut world, 2, Some(Attention::Resume)).ended && world.has_arrived(), "{at}");
        assert_eq!(world.swaps(), case.swaps(), "{at}");
    });
}

/// Whoever resumes is another person than the one who paused, and the coordinator another one.
#[test]
fn a_pause_leaves_no_node_half_done() {
    everywhere(|case, cut| {
        let (mut world, mut first) = begun(case, cut);
        first.ask(Attention::Pause { why: "lunch".into() });
        let paused = |world: &World| Standing::of(&case.plan(), &world.journal) == Standing::Paused;
        while first.turn(&mut world, true) {
            assert!(!paused(&world) || none_half_done(&world), "{}, cut at {cut}: told too early", case.name);
        }
        first.finish(&mut world);
        if first.ended {
            return;
        }
        assert!(paused(&world) && none_half_done(&world), "{}, cut at {cut}", case.name);
        let second = taken_over(&mut world, 2, Some(Attention::Resume));
        assert!(second.ended && world.has_arrived(), "{}, cut at {cut}", case.name);
        let resumed = world.journal.entries().iter().find(|entry| entry.phase == Phase::Resumed).unwrap();
        assert_eq!(resumed.actor, second.actor);
    });
}

fn none_half_done(world: &World) -> bool {
    case::NODES.iter().all(|node| {
        let (done, all) = part_done(world, node);
        done == 0 || done == all
    })
}

/// How many steps of a node's own part are done, and how many there are.
fn part_done(world: &World, node: &str) -> (usize, usize) {
    let plan = world.case.plan();
    let part = || plan.steps.iter().filter(|step| step.node == Some(name(node)) && !step.action.prepares());
    let is_done = |entry: &Entry| matches!(entry.phase, Phase::Done | Phase::Skipped);
    let done = |step: &&keeper::Step| {
        world.journal.entries().iter().any(|entry| entry.step == Some(step.id) && is_done(entry))
    };
    (part().filter(done).count(), part().count())
}

#[test]
fn any_order_of_troubles_ends_well() {
    for case in case::all() {
        for seed in 0..SEEDS {
            let rng = SeededRng::new(seed);
            let mut world = World::new(&case);
            let mut coordinators = vec![Coordinator::new(&world, 1)];
            for _ in 0..200 {
                let one = below(&rng, coordinators.len());
                match below(&rng, 20) {
                    0 if coordinators.len() < 6 => {
                        let token = coordinators.len() as u64 + 1;
                        coordinators.push(Coordinator::new(&world, token));
                    }
                    1 => coordinators[one].ask(Attention::Pause { why: "seed".into() }),
                    2 => coordinators[one].ask(Attention::Resume),
                    3 => drop(coordinators[one].turn(&mut world, false)),
                    _ => {
                        if !coordinators[one].turn(&mut world, true) {
                            coordinators[one].look();
                        }
                    }
                }
            }
            taken_over(&mut world, 99, Some(Attention::Resume));
            assert!(world.has_arrived(), "{}, seed {seed}", case.name);
            assert_eq!(world.swaps(), case.swaps(), "{}, seed {seed}", case.name);
        }
    }
}

/// What cannot be looked at on the way back is no reason to look for ever.
#[test]
fn a_node_that_does_not_answer_on_the_way_back_needs_a_person() {
    let case = upgrade_with_new_form();
    let mut stuck = 0;
    for cut in 0..length(&case) {
        let (mut world, _) = begun(&case, cut);
        world.silent = Some(name("b"));
        let second = taken_over(&mut world, 2, Some(Attention::Back { why: "not today".into() }));
        if !second.ended {
            let last = &world.journal.entries().last().unwrap().phase;
            assert!(matches!(last, Phase::Stuck { .. }), "cut at {cut}: {last:?}");
            stuck += 1;
            world.silent = None;
            let third = taken_over(&mut world, 3, Some(Attention::Resume));
            assert!(third.ended && world.is_as_before(), "cut at {cut}");
        }
    }
    assert!(stuck > 0);
}
