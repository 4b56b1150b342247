//! The crash matrix of an upgrade: the coordinator ends at every point of the run, another one takes over, and the cluster
//! arrives; a person may ask for the way back at every point; two coordinators with each other's orders do no harm.
#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use base::SeededRng;
use keeper::{Attention, Phase};

use world::{Coordinator, World, below, name, release};

const OLD: [&str; 3] = ["0.1.0"; 3];
const NEW: [&str; 3] = ["0.2.0"; 3];

/// How many effects a run without trouble has.
fn length() -> usize {
    let (mut world, mut count) = (World::new(), 0);
    let mut coordinator = Coordinator::new(&world, 1);
    while !coordinator.ended {
        if coordinator.turn(&mut world, true) {
            count += 1;
        } else {
            coordinator.look();
        }
    }
    assert_eq!(world.versions(), NEW);
    count
}

#[test]
fn whoever_takes_over_arrives() {
    let length = length();
    for cut in 0..length {
        for lost_answer in [false, true] {
            let mut world = World::new();
            let mut first = Coordinator::new(&world, 1);
            first.turns(&mut world, cut);
            if lost_answer {
                first.turn(&mut world, false);
            }
            let mut second = Coordinator::new(&world, 2);
            second.finish(&mut world);
            assert!(second.ended, "cut at {cut}");
            assert_eq!((world.versions(), world.swaps(), world.level), (NEW.to_vec(), vec![1; 3], 2), "cut at {cut}");
        }
    }
}

#[test]
fn orders_of_the_past_are_refused() {
    let length = length();
    for cut in 0..length {
        for later in 0..12 {
            let mut world = World::new();
            let mut first = Coordinator::new(&world, 1);
            first.turns(&mut world, cut);
            let mut second = Coordinator::new(&world, 2);
            for _ in 0..later {
                second.turn(&mut world, true);
            }
            // The first one did not notice that it was replaced, and goes on.
            first.finish(&mut world);
            second.finish(&mut world);
            let mut third = Coordinator::new(&world, 3);
            third.finish(&mut world);
            assert_eq!((world.versions(), world.swaps()), (NEW.to_vec(), vec![1; 3]), "cut at {cut}, {later} later");
        }
    }
}

#[test]
fn the_way_back_is_open_at_every_point_before_the_last() {
    let length = length();
    for cut in 0..length {
        let mut world = World::new();
        let mut first = Coordinator::new(&world, 1);
        first.turns(&mut world, cut);
        let mut second = Coordinator::new(&world, 2);
        second.ask(Attention::Back { why: "I changed my mind".into() });
        second.finish(&mut world);
        assert!(second.ended, "cut at {cut}");
        let begun = |entry: &keeper::Entry| entry.phase == Phase::Intend && entry.node.is_none();
        // Of the two steps that belong to no node the backup is the first.
        let last_begun = world.journal.entries().iter().filter(|entry| begun(entry)).count() == 2;
        let wanted = if last_begun { NEW } else { OLD };
        assert_eq!(world.versions(), wanted, "cut at {cut}");
    }
}

#[test]
fn a_node_that_does_not_get_well_goes_back_alone_and_a_person_decides() {
    let mut world = World::new();
    world.bad = Some((name("c"), release("0.2.0")));
    let mut coordinator = Coordinator::new(&world, 1);
    coordinator.finish(&mut world);
    // The order is b, c, a: the one whose work would be missed comes last.
    assert_eq!(world.versions(), ["0.1.0", "0.2.0", "0.1.0"]);
    let last = &world.journal.entries().last().unwrap().phase;
    assert_eq!(*last, Phase::Stuck { why: "the node does not get well".into() });
    assert!(!coordinator.ended && coordinator.waits);

    let mut back = (world.clone(), Coordinator::new(&world, 2));
    back.1.ask(Attention::Back { why: "not today".into() });
    back.1.finish(&mut back.0);
    assert_eq!((back.0.versions(), back.1.ended), (OLD.to_vec(), true));

    world.bad = None;
    let mut again = Coordinator::new(&world, 2);
    again.ask(Attention::Resume);
    again.finish(&mut world);
    assert_eq!((world.versions(), again.ended, world.level), (NEW.to_vec(), true, 2));
}

#[test]
fn a_pause_leaves_no_node_half_done() {
    let length = length();
    for cut in 0..length {
        let mut world = World::new();
        let mut coordinator = Coordinator::new(&world, 1);
        coordinator.turns(&mut world, cut);
        coordinator.ask(Attention::Pause { why: "lunch".into() });
        coordinator.finish(&mut world);
        if coordinator.ended {
            continue;
        }
        let steps = world::plan().steps;
        let done = |step: &&keeper::Step| {
            let mut entries = world.journal.entries().iter();
            entries.any(|entry| entry.step == Some(step.id) && matches!(entry.phase, Phase::Done | Phase::Skipped))
        };
        let touched =
            |step: &&keeper::Step| step.node.is_some() && !matches!(step.action, keeper::Action::Stage { .. });
        for node in world::NODES {
            let part = || steps.iter().filter(|step| step.node == Some(name(node))).filter(touched);
            let count = part().filter(done).count();
            assert!(count == 0 || count == part().count(), "cut at {cut}: {node} is half done");
        }
        coordinator.ask(Attention::Resume);
        coordinator.finish(&mut world);
        assert_eq!(world.versions(), NEW, "cut at {cut}");
    }
}

#[test]
fn any_order_of_troubles_ends_well() {
    for seed in 0..600 {
        let rng = SeededRng::new(seed);
        let mut world = World::new();
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
        let mut last = Coordinator::new(&world, 99);
        last.ask(Attention::Resume);
        last.finish(&mut world);
        assert_eq!((world.versions(), world.swaps(), world.level), (NEW.to_vec(), vec![1; 3], 2), "seed {seed}");
    }
}

/// What cannot be looked at on the way back is no reason to look for ever.
#[test]
fn a_node_that_does_not_answer_on_the_way_back_needs_a_person() {
    let length = length();
    let mut stuck = 0;
    for cut in 0..length {
        let mut world = World::new();
        let mut first = Coordinator::new(&world, 1);
        first.turns(&mut world, cut);
        world.silent = Some(name("b"));
        let mut second = Coordinator::new(&world, 2);
        second.ask(Attention::Back { why: "not today".into() });
        second.finish(&mut world);
        if !second.ended {
            let last = &world.journal.entries().last().unwrap().phase;
            assert!(matches!(last, Phase::Stuck { .. }), "cut at {cut}: {last:?}");
            stuck += 1;
            world.silent = None;
            let mut third = Coordinator::new(&world, 3);
            third.ask(Attention::Resume);
            third.finish(&mut world);
            assert!(third.ended && world.versions() == OLD, "cut at {cut}");
        }
    }
    assert!(stuck > 0);
}
