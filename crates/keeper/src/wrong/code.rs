//! One kind of trouble, as a row: what it is called, what is said, what is done, at what risk.

use serde::Serialize;

/// How soon a person is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    /// Now.
    Page,
    /// The next working day.
    Notify,
    /// To know; nothing is to be done.
    Info,
}

/// What the next command may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Risk {
    Safe,
    /// Something stops for a while.
    Disruptive,
    /// Data may be lost.
    DataRisk,
}

/// Where the command is to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    Anywhere,
    /// On the machine that the finding is about.
    There,
}

/// A row of the table. Texts hold `{placeholders}` that a finding fills.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// Stable: runbooks and silences name it.
    pub name: &'static str,
    /// Numbers in the catalogue of faults; none for what the catalogue does not have.
    pub faults: &'static [u8],
    pub class: Class,
    /// Subject first, effect second, at most 35 words.
    pub sentence: &'static str,
    pub command: &'static str,
    pub place: Place,
    pub risk: Risk,
    /// Expected time of the command.
    pub time: &'static str,
    /// What to do where the command does not help.
    pub otherwise: &'static str,
    /// The program must not choose: a person does.
    pub decision: bool,
    /// One or two sentences for the page of the runbook.
    pub page: &'static str,
}

// === impl Risk ===

impl Risk {
    pub fn word(self) -> &'static str {
        match self {
            Risk::Safe => "safe",
            Risk::Disruptive => "disruptive",
            Risk::DataRisk => "data-risk",
        }
    }
}

// === impl Class ===

impl Class {
    pub fn word(self) -> &'static str {
        match self {
            Class::Page => "page",
            Class::Notify => "notify",
            Class::Info => "info",
        }
    }
}
