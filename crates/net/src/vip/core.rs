//! Who has the virtual address: decided here from the lease, the answers on the segment and time. Reads no clock, does no
//! IO; the driver performs what comes out.
//!
//! The holder gives the address up before anybody may take it: it counts from when it *asked* for its last renewal, the
//! others from when they *saw* it, and its time is the shorter. The kernel is told that time as well, so that also a
//! process that stands still loses the address.

use std::time::Duration;

use crate::peers::Hardware;

/// Others may take the lease when they have seen no renewal for so long.
pub const LEASE: Duration = Duration::from_secs(4);
/// The holder has the address for so long after it asked for its last renewal.
pub const LIFETIME: Duration = Duration::from_secs(3);
/// Between two renewals.
pub const RENEWAL: Duration = Duration::from_secs(1);
/// An address that somebody else answers for is looked at again after this long.
const BLOCKED: Duration = Duration::from_secs(5);
/// A new holder says so a few times at once, and then now and then: neighbours and switches forget.
const FIRST_ANNOUNCEMENTS: u32 = 3;
const ANNOUNCEMENT: Duration = Duration::from_secs(10);
// The kernel takes an address away up to a second late.
const _: () = assert!(LIFETIME.as_millis() + 1000 <= LEASE.as_millis() && RENEWAL.as_millis() < LIFETIME.as_millis());

/// The lease as the API shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Empty where nobody holds it.
    pub holder: String,
    pub revision: u64,
}

/// What the segment says of the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    Free,
    /// Somebody answers for it.
    Taken(Hardware),
    /// No link of this machine has its subnet, or it could not be asked.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The lease changed, or was seen for the first time; None where there is none.
    Lease(Option<Lease>),
    /// Whether this server's API serves.
    Ready(bool),
    Probed(Probe),
    /// The lease was written as asked, or was not.
    Written(bool),
    Tick,
    /// The server drains.
    Stop,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the segment who has the address.
    Probe,
    /// Write the lease, as it was seen last, with us as its holder.
    Write,
    /// Write that nobody holds it.
    Release,
    /// Put the address on the link, for so long.
    Put(Duration),
    /// Take it off.
    Drop,
    /// Tell the segment that the address is here.
    Announce,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Waiting,
    /// The lease may be taken; the segment is asked first.
    Probing,
    /// It is being written, asked for at this time.
    Taking {
        asked: Duration,
    },
    Blocked {
        by: Option<Hardware>,
        until: Duration,
    },
    Holding(Held),
    Stopped,
}

/// The address is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// When the renewal was asked for that counts.
    granted: Duration,
    /// One that is on its way.
    asked: Option<Duration>,
    announced: u32,
    announced_at: Duration,
    /// Who answers for the address beside us.
    pub contested_by: Option<Hardware>,
}

/// Waits for the address, holds it, gives it up.
#[derive(Clone, Debug)]
pub struct Core {
    me: String,
    state: State,
    ready: bool,
    /// None until the first list.
    lease: Option<Option<Lease>>,
    /// When it changed last, as we saw it.
    changed: Duration,
}

// === impl Core ===

impl Core {
    pub fn new(me: &str) -> Core {
        Core { me: me.to_owned(), state: State::Waiting, ready: false, lease: None, changed: Duration::ZERO }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn holder(&self) -> &str {
        self.lease.as_ref().and_then(Option::as_ref).map_or("", |lease| &lease.holder)
    }

    /// `now` comes from a clock that never goes back and counts while the machine sleeps.
    pub fn step(&mut self, input: Input, now: Duration, out: &mut Vec<Effect>) {
        // A process that stood still learns first how late it is.
        let state = expired(std::mem::replace(&mut self.state, State::Stopped), now, out);
        self.learn(&input, now);
        let state = self.react(state, input, now, out);
        self.state = self.look(state, now, out);
    }

    fn learn(&mut self, input: &Input, now: Duration) {
        match input {
            Input::Lease(lease) => {
                self.lease = Some(lease.clone());
                self.changed = now;
            }
            Input::Ready(ready) => self.ready = *ready,
            Input::Probed(_) | Input::Written(_) | Input::Tick | Input::Stop => {}
        }
    }

    fn react(&self, state: State, input: Input, now: Duration, out: &mut Vec<Effect>) -> State {
        match (state, input) {
            // ## any => Stopped
            (State::Stopped, _) => State::Stopped,
            (State::Holding(_), Input::Stop) => give_up(out, State::Stopped),
            (State::Taking { .. }, Input::Stop) => {
                out.push(Effect::Release);
                State::Stopped
            }
            (State::Waiting | State::Probing | State::Blocked { .. }, Input::Stop) => State::Stopped,
            // ## Probing => Taking | Blocked | Waiting
            (State::Probing, Input::Probed(Probe::Free)) if self.may_take(now) => {
                out.push(Effect::Write);
                State::Taking { asked: now }
            }
            (State::Probing, Input::Probed(Probe::Free)) => State::Waiting,
            (State::Probing, Input::Probed(Probe::Taken(by))) => State::Blocked { by: Some(by), until: now + BLOCKED },
            (State::Probing, Input::Probed(Probe::Unknown)) => State::Blocked { by: None, until: now + BLOCKED },
            // ## Taking => Holding | Waiting
            (State::Taking { asked }, Input::Written(true)) if now < asked + LIFETIME => {
                out.extend([Effect::Put(asked + LIFETIME - now), Effect::Announce]);
                let (announced, announced_at) = (1, now);
                State::Holding(Held { granted: asked, asked: None, announced, announced_at, contested_by: None })
            }
            (State::Taking { .. }, Input::Written(_)) => State::Waiting,
            // ## Holding => Holding | Waiting
            (State::Holding(held), Input::Written(true)) => renewed(held, now, out),
            // Somebody else wrote, or nobody heard us: the lease itself will tell, or our time ends.
            (State::Holding(held), Input::Written(false)) => State::Holding(Held { asked: None, ..held }),
            (State::Holding(_), Input::Lease(_)) if self.holder() != self.me => {
                out.push(Effect::Drop);
                State::Waiting
            }
            (State::Holding(_), Input::Ready(false)) => give_up(out, State::Waiting),
            (State::Holding(held), Input::Probed(probe)) => contested(held, probe, out),
            // Late answers to what is no question any more, and news that are learned already.
            (state, Input::Probed(_) | Input::Written(_) | Input::Lease(_) | Input::Ready(_) | Input::Tick) => state,
        }
    }

    /// What time and the lease ask for.
    fn look(&self, state: State, now: Duration, out: &mut Vec<Effect>) -> State {
        match state {
            State::Waiting if self.may_take(now) => {
                out.push(Effect::Probe);
                State::Probing
            }
            State::Blocked { until, .. } if until <= now => State::Waiting,
            State::Holding(mut held) => {
                if held.asked.is_none() && held.granted + RENEWAL <= now {
                    out.push(Effect::Write);
                    held.asked = Some(now);
                }
                let again = held.announced < FIRST_ANNOUNCEMENTS;
                if held.announced_at != now && (again || held.announced_at + ANNOUNCEMENT <= now) {
                    out.push(Effect::Announce);
                    if !again {
                        out.push(Effect::Probe);
                    }
                    (held.announced, held.announced_at) = (held.announced.saturating_add(1), now);
                }
                State::Holding(held)
            }
            state @ (State::Waiting
            | State::Probing
            | State::Taking { .. }
            | State::Blocked { .. }
            | State::Stopped) => state,
        }
    }

    /// The lease is free, ours from before, or was not renewed in time.
    fn may_take(&self, now: Duration) -> bool {
        let Some(lease) = &self.lease else { return false };
        let free = lease.as_ref().is_none_or(|lease| lease.holder.is_empty() || lease.holder == self.me);
        self.ready && (free || self.changed + LEASE < now)
    }
}

fn expired(state: State, now: Duration, out: &mut Vec<Effect>) -> State {
    match state {
        State::Holding(held) if held.granted + LIFETIME <= now => {
            out.push(Effect::Drop);
            State::Waiting
        }
        state => state,
    }
}

fn give_up(out: &mut Vec<Effect>, next: State) -> State {
    out.extend([Effect::Drop, Effect::Release]);
    next
}

fn renewed(held: Held, now: Duration, out: &mut Vec<Effect>) -> State {
    let granted = held.asked.unwrap_or(held.granted);
    out.push(Effect::Put((granted + LIFETIME).saturating_sub(now)));
    State::Holding(Held { granted, asked: None, ..held })
}

fn contested(held: Held, probe: Probe, out: &mut Vec<Effect>) -> State {
    let contested_by = match probe {
        Probe::Taken(by) => {
            out.push(Effect::Announce);
            Some(by)
        }
        Probe::Free | Probe::Unknown => None,
    };
    State::Holding(Held { contested_by, ..held })
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
