//! A finding: a code with its subject, the words that fill its texts, and who saw what.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::code::Code;
use super::fact::{Fact, Name};

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub code: &'static Code,
    pub about: Name,
    /// The node where it happens, if at one.
    pub node: Option<Name>,
    /// Where the command is to be run, if not where it happens.
    pub run_on: Option<Name>,
    pub since: Option<Timestamp>,
    /// Observations behind it, in words.
    pub seen: Vec<String>,
    pub witnesses: BTreeSet<Name>,
    /// The witness did what it tells of, or looked into its own files: nobody else need agree.
    pub act: bool,
    words: BTreeMap<&'static str, String>,
}

// === impl Finding ===

impl Finding {
    pub fn new(code: &'static Code, about: &str) -> Finding {
        let words = BTreeMap::from([("about", about.to_owned())]);
        Finding {
            code,
            about: about.into(),
            node: None,
            run_on: None,
            since: None,
            seen: Vec::new(),
            witnesses: BTreeSet::new(),
            act: false,
            words,
        }
    }

    /// A finding about a node.
    pub fn of_node(code: &'static Code, node: &str) -> Finding {
        Finding::new(code, node).on(node)
    }

    pub fn on(mut self, node: &str) -> Finding {
        self.node = Some(node.into());
        self.with("node", node)
    }

    /// The command is run elsewhere than where it happens.
    pub fn run_on(mut self, node: &str) -> Finding {
        self.run_on = Some(node.into());
        self
    }

    /// Fills a placeholder.
    pub fn with(mut self, key: &'static str, value: impl ToString) -> Finding {
        self.words.insert(key, value.to_string());
        self
    }

    pub fn since(mut self, at: Option<Timestamp>) -> Finding {
        self.since = at;
        self
    }

    /// What the witness tells of is its own act.
    pub fn act(mut self) -> Finding {
        self.act = true;
        self
    }

    /// The same finding of another witness.
    pub fn merge(&mut self, other: Finding) {
        let news = other.seen.into_iter().filter(|words| !self.seen.contains(words));
        let news: Vec<String> = news.collect();
        self.seen.extend(news);
        self.witnesses.extend(other.witnesses);
    }

    /// An observation behind it.
    pub fn seen(mut self, fact: &Fact, words: impl Into<String>) -> Finding {
        self.witnesses.insert(fact.by.clone());
        self.seen.push(words.into());
        self
    }

    /// A text of the code with its placeholders filled; one that nothing fills stays, and a test finds it.
    pub fn fill(&self, template: &str) -> String {
        let mut text = template.to_owned();
        for (key, value) in &self.words {
            text = text.replace(&format!("{{{key}}}"), value);
        }
        text
    }

    pub fn sentence(&self) -> String {
        self.fill(self.code.sentence)
    }
}
