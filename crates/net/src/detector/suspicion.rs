//! Which other nodes are taken for silent. Pure: the answers of one round come in, the nodes to avoid are there to read.
//!
//! A node that never answered is not judged: its network may swallow what we ask. Nobody is avoided unless this node and
//! those that it hears are the majority of all: who hears few is itself the suspect.

use std::collections::{BTreeMap, BTreeSet};

/// Rounds without an answer after which a node is silent.
pub const SILENT_ROUNDS: u32 = 3;
/// Answered rounds after which a node that was silent counts again, with its agent there: what ran on it may be gone.
pub const BACK_ROUNDS: u32 = 3;
/// The same, with an agent that this node may never be able to reach.
pub const BACK_BLIND_ROUNDS: u32 = 30;

/// Who answered in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Nobody,
    /// Its kernel.
    Machine,
    /// Its agent as well.
    Agent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Never heard.
    Unknown,
    Heard {
        missed: u32,
    },
    Silent {
        answered: u32,
    },
}

/// What is thought of every other node.
#[derive(Debug, Default)]
pub struct Suspicion {
    nodes: BTreeMap<String, State>,
    avoided: BTreeSet<String>,
}

// === impl Suspicion ===

impl Suspicion {
    /// The answers of all other nodes that there are.
    pub fn round(&mut self, answers: &BTreeMap<String, Answer>) {
        self.nodes.retain(|node, _| answers.contains_key(node));
        for (node, answer) in answers {
            let state = self.nodes.entry(node.clone()).or_insert(State::Unknown);
            *state = state.step(*answer);
        }
        let silent = self.nodes.iter().filter(|(_, state)| matches!(state, State::Silent { .. }));
        let silent: BTreeSet<String> = silent.map(|(node, _)| node.clone()).collect();
        if !self.majority(|state| matches!(state, State::Heard { .. })) {
            self.avoided.clear();
        } else if self.majority(|state| matches!(state, State::Heard { missed: 0 })) {
            self.avoided = silent;
        } else {
            // Others begin to be silent as well: nobody is added until that is decided.
            self.avoided.retain(|node| silent.contains(node));
        }
    }

    /// Nodes to send nothing to while there is somebody else.
    pub fn avoided(&self) -> &BTreeSet<String> {
        &self.avoided
    }

    /// Whether it matters that a node's agent answers and not only its kernel.
    pub fn asks_agent(&self, node: &str) -> bool {
        matches!(self.nodes.get(node), Some(State::Silent { .. }))
    }

    fn majority(&self, heard: impl Fn(&State) -> bool) -> bool {
        let heard = self.nodes.values().filter(|state| heard(state)).count();
        self.nodes.len() + 1 < 2 * (heard + 1)
    }
}

// === impl State ===

impl State {
    fn step(self, answer: Answer) -> State {
        match (self, answer) {
            // ## Unknown => Heard
            (State::Unknown, Answer::Nobody) => State::Unknown,
            (State::Unknown | State::Heard { .. }, Answer::Machine | Answer::Agent) => State::Heard { missed: 0 },
            // ## Heard => Silent
            (State::Heard { missed }, Answer::Nobody) if SILENT_ROUNDS <= missed + 1 => State::Silent { answered: 0 },
            (State::Heard { missed }, Answer::Nobody) => State::Heard { missed: missed + 1 },
            // ## Silent => Heard
            (State::Silent { .. }, Answer::Nobody) => State::Silent { answered: 0 },
            (State::Silent { answered }, Answer::Agent) if BACK_ROUNDS <= answered + 1 => State::Heard { missed: 0 },
            (State::Silent { answered }, Answer::Machine) if BACK_BLIND_ROUNDS <= answered + 1 => {
                State::Heard { missed: 0 }
            }
            (State::Silent { answered }, Answer::Machine | Answer::Agent) => State::Silent { answered: answered + 1 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, BACK_BLIND_ROUNDS, BACK_ROUNDS, SILENT_ROUNDS, Suspicion};

    /// Each step is a line of answers, one letter for each node from `a` on: `+` agent, `k` kernel alone, `.` nobody, and
    /// how often; then who is avoided.
    fn check(script: &[(&str, u32, &str)]) {
        let mut suspicion = Suspicion::default();
        for (number, (line, times, wanted)) in script.iter().enumerate() {
            let answers = ('a'..).zip(line.chars()).map(|(node, letter)| {
                let answer = match letter {
                    '+' => Answer::Agent,
                    'k' => Answer::Machine,
                    _ => Answer::Nobody,
                };
                (node.to_string(), answer)
            });
            let answers = answers.collect();
            for _ in 0..*times {
                suspicion.round(&answers);
            }
            let avoided: String = suspicion.avoided().iter().map(String::as_str).collect();
            assert_eq!(&avoided, wanted, "step {number}: {line}");
        }
    }

    #[test]
    fn one_of_three_is_avoided_after_some_rounds() {
        check(&[("++", 1, ""), ("+.", SILENT_ROUNDS - 1, ""), ("+.", 1, "b"), ("+.", 100, "b")]);
        check(&[("++", 1, ""), ("+.", SILENT_ROUNDS - 1, ""), ("++", 1, ""), ("+.", SILENT_ROUNDS - 1, "")]);
    }

    #[test]
    fn who_hears_nobody_avoids_nobody() {
        check(&[("++", 1, ""), ("..", 100, "")]);
        check(&[("+", 1, ""), (".", 100, "")]);
        // The second falls silent a little later than the first.
        check(&[("++", 1, ""), ("+.", SILENT_ROUNDS - 1, ""), ("..", 100, "")]);
    }

    #[test]
    fn the_majority_of_five_avoids_the_others_and_they_avoid_nobody() {
        check(&[("++++", 1, ""), ("++..", SILENT_ROUNDS, "cd"), ("+...", SILENT_ROUNDS, "")]);
        check(&[("++++", 1, ""), ("+...", 100, "")]);
    }

    #[test]
    fn when_more_fall_silent_all_count_again() {
        let silent = SILENT_ROUNDS;
        check(&[("++", 1, ""), ("+.", silent, "b"), ("..", silent - 1, "b"), ("..", 1, ""), ("+.", BACK_ROUNDS, "b")]);
    }

    #[test]
    fn a_lost_answer_of_another_changes_nothing() {
        check(&[("++", 1, ""), ("+.", SILENT_ROUNDS, "b"), ("..", 1, "b"), ("+.", 1, "b")]);
    }

    #[test]
    fn a_node_is_back_with_its_agent() {
        let begin = [("++", 1, ""), ("+.", SILENT_ROUNDS, "b")];
        check(&[begin.as_slice(), &[("++", BACK_ROUNDS - 1, "b"), ("++", 1, "")]].concat());
        check(&[begin.as_slice(), &[("+k", BACK_ROUNDS, "b"), ("++", 1, "")]].concat());
        check(&[begin.as_slice(), &[("+k", BACK_BLIND_ROUNDS - 1, "b"), ("+k", 1, "")]].concat());
        check(&[begin.as_slice(), &[("++", 1, "b"), ("+.", 1, "b"), ("++", BACK_ROUNDS - 1, "b")]].concat());
    }

    #[test]
    fn who_never_answered_is_not_judged() {
        check(&[("+.", 100, "")]);
        check(&[("+k.", 1, ""), ("+..", 100, "")]);
    }

    #[test]
    fn a_node_that_is_removed_is_forgotten() {
        check(&[("+++", 1, ""), ("++.", SILENT_ROUNDS, "c"), ("++", 1, ""), ("++.", 100, "")]);
    }
}
