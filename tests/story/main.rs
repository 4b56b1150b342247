//! The whole story on three simulated hosts, unattended: a host dies, is replaced, all are upgraded and go back, two are
//! lost, all are. Each part leaves a scorecard in `target/story`; a judge outside knows which rows were acknowledged.
//!
//! `cargo xtask story` builds what this needs; `cargo xtask story PART...` runs some of its parts.

mod card;
mod judge;
mod lost;
mod quorum;
mod restored;
mod upgraded;
mod world;

use std::process::ExitCode;

use anyhow::{Context, bail};

use card::Card;
use world::World;

struct Part {
    name: &'static str,
    play: fn(&mut World) -> anyhow::Result<Card>,
}

/// In the order they are told.
const PARTS: [Part; 5] = [
    Part { name: "dies", play: lost::dies },
    Part { name: "replace", play: lost::replaced },
    Part { name: "upgrade", play: upgraded::there_and_back },
    Part { name: "quorum", play: quorum::recovered },
    Part { name: "restore", play: restored::from_nothing },
];

fn main() -> ExitCode {
    match story() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn story() -> anyhow::Result<bool> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = wanted.iter().find(|name| !PARTS.iter().any(|part| part.name == name.as_str())) {
        let known: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
        bail!("no part {unknown:?}; parts are {}", known.join(", "));
    }
    eprintln!("== servers and application");
    let mut world = World::start()?;
    let mut cards = Vec::new();
    let outcome = world.fill().and_then(|()| played(&mut world, &wanted, &mut cards));
    if outcome.is_err() {
        world.rack.keep_logs("story/failed")?;
    }
    cards.iter().for_each(Card::print);
    outcome?;
    Ok(cards.iter().all(Card::holds))
}

/// Plays these parts, all where none is named, and keeps the card of each.
fn played(world: &mut World, wanted: &[String], cards: &mut Vec<Card>) -> anyhow::Result<()> {
    let chosen = PARTS.iter().filter(|part| wanted.is_empty() || wanted.iter().any(|name| name == part.name));
    for part in chosen {
        let mut card = (part.play)(world).with_context(|| format!("part {}", part.name))?;
        card.keep(&world.folder)?;
        cards.push(card);
    }
    Ok(())
}
