//! Runs the cases of a lane over one cluster, some at a time, and counts them.

use std::sync::Mutex;
use std::thread;
use std::time::Instant;

/// One case: a name and what must hold.
pub struct Case<C> {
    pub name: &'static str,
    pub run: fn(&C) -> anyhow::Result<()>,
}

/// Runs every case whose name contains one of the words given on the command line (all, without words).
///
/// Prints one line per case and a closing line that counts them. Returns whether none failed.
pub fn run_all<C: Sync>(context: &C, cases: &[Case<C>], at_once: usize) -> bool {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let asked = |case: &&Case<C>| words.iter().any(|word| case.name.contains(word.as_str()));
    let known = |case: &&Case<C>| {
        gap(case.name).is_some_and(|why| {
            println!("case {:<48} gap: {why}", case.name);
            true
        })
    };
    let chosen = cases.iter().filter(|case| if words.is_empty() { !known(case) } else { asked(case) });
    let queue = Mutex::new(chosen);
    let tally = Mutex::new((0_usize, Vec::new()));
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(case) = next(&queue) {
                    let start = Instant::now();
                    let outcome = (case.run)(context);
                    let seconds = start.elapsed().as_secs_f64();
                    let mut tally = tally.lock().expect("no holder of this lock panics");
                    match outcome {
                        Ok(()) => tally.0 += 1,
                        Err(ref error) => tally.1.push(format!("{}: {error:?}", case.name)),
                    }
                    let word = if outcome.is_ok() { "ok" } else { "FAILED" };
                    println!("case {:<48} {word} {seconds:.1} s", case.name);
                }
            });
        }
    });
    let (passed, failures) = tally.into_inner().expect("all threads ended");
    for failure in &failures {
        println!("--- {failure}\n");
    }
    println!("{passed} passed, {} failed", failures.len());
    failures.is_empty()
}

/// Why a case is known not to hold yet. Such cases run only when they are named; the list may only shrink.
fn gap(name: &str) -> Option<&'static str> {
    let lines = include_str!("../gaps.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(' ')).find(|(case, _)| *case == name).map(|(_, why)| why)
}

fn next<'a, C: 'a>(queue: &Mutex<impl Iterator<Item = &'a Case<C>>>) -> Option<&'a Case<C>> {
    queue.lock().expect("no holder of this lock panics").next()
}
