//! Scorecards: what each part of the story measured, with what it may be at most; a file each, and one table.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use serde_json::{Map, Value, json};

/// One part's figures.
pub struct Card {
    part: &'static str,
    begin: Instant,
    figures: Vec<Figure>,
}

struct Figure {
    name: &'static str,
    value: f64,
    most: Option<f64>,
}

// === impl Card ===

impl Card {
    pub fn new(part: &'static str) -> Card {
        eprintln!("== {part}");
        Card { part, begin: Instant::now(), figures: Vec::new() }
    }

    pub fn note(&mut self, name: &'static str, value: f64) {
        eprintln!("   {name} {value:.1}");
        self.figures.push(Figure { name, value, most: None });
    }

    /// A figure with a bound, which is judged when all parts are over.
    pub fn at_most(&mut self, name: &'static str, value: f64, most: f64) {
        eprintln!("   {name} {value:.1} of {most:.1}");
        self.figures.push(Figure { name, value, most: Some(most) });
    }

    pub fn holds(&self) -> bool {
        self.figures.iter().all(|figure| figure.most.is_none_or(|most| figure.value <= most))
    }

    /// Writes the file; the part is over.
    pub fn keep(&mut self, folder: &Path) -> anyhow::Result<()> {
        self.note("part_s", self.begin.elapsed().as_secs_f64());
        let rounded = |value: f64| (value * 10.0).round() / 10.0;
        let figures: Map<String, Value> =
            self.figures.iter().map(|figure| (figure.name.to_owned(), json!(rounded(figure.value)))).collect();
        let bounds: Map<String, Value> =
            self.figures.iter().filter_map(|figure| Some((figure.name.to_owned(), json!(figure.most?)))).collect();
        let card = json!({"part": self.part, "holds": self.holds(), "figures": figures, "bounds": bounds});
        let path = folder.join(format!("{}.json", self.part));
        fs::write(&path, format!("{card:#}\n")).with_context(|| format!("write {}", path.display()))
    }

    pub fn print(&self) {
        for Figure { name, value, most } in &self.figures {
            let bound = most.map(|most| format!("of {most:.1}")).unwrap_or_default();
            let over = if most.is_some_and(|most| most < *value) { "  <- too much" } else { "" };
            println!("{:<12} {name:<24} {value:>9.1} {bound}{over}", self.part);
        }
    }
}
