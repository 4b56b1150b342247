//! What goes wrong with a rack, and how all of it is made right again.

use jiff::SignedDuration;
use keeper::Attention;

use super::machine::{Event, Process};
use super::{Place, Rack};
use crate::world::below;

// === impl Rack ===

impl Rack {
    pub(super) fn any(&self) -> usize {
        usize::try_from(below(&*self.rng, self.places.len() as u64)).expect("a small number")
    }

    /// One thing goes wrong, or right again.
    pub(super) async fn trouble(&mut self, generation: u64) {
        let (one, other) = (self.any(), self.any());
        let Place { machine, server, power, .. } = &self.places[one];
        match below(&*self.rng, 20) {
            0 | 1 => {
                machine.tell(Event::Kill);
                self.judge.count(|counts| counts.kills += 1);
            }
            2 | 3 => self.kill_the_coordinator(generation),
            4 => {
                power.send_replace(false);
                machine.tell(Event::Off);
                self.judge.count(|counts| counts.outages += 1);
            }
            5..=7 => self.power_on(),
            8 => {
                if let Some(server) = server {
                    server.lock().await.cut(true);
                    self.judge.count(|counts| counts.cuts += 1);
                }
            }
            9 | 10 => self.mend_links().await,
            11 | 12 if one != other => {
                let (from, to) = (&self.places[one].machine.name, &self.places[other].machine.name);
                self.net.cut(from, to);
                if below(&*self.rng, 2) == 0 {
                    self.net.cut(to, from);
                }
                self.judge.count(|counts| counts.cuts += 1);
            }
            13 | 14 => self.net.mend(),
            15 => {
                let off = i64::try_from(below(&*self.rng, 20)).expect("a small number") - 10;
                machine.clock.skew(SignedDuration::from_secs(off));
            }
            16 | 17 => self.ask().await,
            18 if one != other && below(&*self.rng, 3) == 0 => self.replace(one, other).await,
            _ => {}
        }
    }

    /// A machine is lost for good, and a blank one takes its place, with the program that another one runs.
    async fn replace(&self, lost: usize, like: usize) {
        let Place { machine, power, .. } = &self.places[lost];
        let like = &self.places[like].machine;
        let installed = like.disk().installed.release.program.clone();
        let Some((_, program)) = like.program(&installed) else { return };
        power.send_replace(false);
        machine.tell(Event::Off);
        let mut process = machine.process.subscribe();
        let _ = process.wait_for(|process| *process == Process::Off).await;
        // Nobody may hear of it: then its next machine is seen as the old one, restarted.
        let _ = self.people[0].remove(&machine.name).await;
        machine.replace(&program);
        power.send_replace(true);
    }

    /// Whoever wrote the last entry ends, as `kill -9`.
    fn kill_the_coordinator(&self, generation: u64) {
        let last = self.judge.run(generation).and_then(|kept| kept.journal.last().map(|entry| entry.actor.clone()));
        if let Some(machine) = last.and_then(|actor| self.net.machines.get(actor.as_str())) {
            machine.tell(Event::Kill);
            self.judge.count(|counts| counts.kills += 1);
        }
    }

    /// Somebody asks something of the run, whatever it is at.
    async fn ask(&mut self) {
        let why = || "the seed wishes it".to_owned();
        let wish = match below(&*self.rng, 6) {
            0 => Attention::Back { why: why() },
            1 | 2 => Attention::Pause { why: why() },
            _ => Attention::Resume,
        };
        let at = usize::try_from(below(&*self.rng, 2)).expect("a small number");
        if self.people[at].ask(&wish).await.is_ok() {
            self.report.asked += 1;
        }
    }

    fn power_on(&self) {
        for place in &self.places {
            place.power.send_replace(true);
        }
    }

    async fn mend_links(&self) {
        for server in self.places.iter().filter_map(|place| place.server.as_ref()) {
            server.lock().await.cut(false);
        }
    }

    /// Everything on, every link up, every clock right; every agent answers.
    pub(super) async fn heal(&mut self) {
        self.net.calm(true);
        self.net.mend();
        self.mend_links().await;
        self.power_on();
        for place in &self.places {
            place.machine.clock.skew(SignedDuration::ZERO);
        }
        for place in &self.places {
            let mut process = place.machine.process.subscribe();
            let _ = process.wait_for(|process| matches!(process, Process::Up { .. })).await;
        }
    }
}
