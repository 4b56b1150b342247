//! The answer as text: twelve lines at most, five for a phone.

use super::answer::{Answer, Apps, Cause, Confidence, Margin};
use super::words::list;

/// Apps and codes that are named; the rest is counted.
const NAMED_MAX: usize = 3;
const OTHERS_MAX: usize = 5;

// === impl Answer ===

impl Answer {
    /// Which cluster, and what margin: the first line of every command.
    pub fn head(&self) -> String {
        format!("Cluster {}, seen from {}. {}", self.cluster, self.from, self.margin.text())
    }

    /// The whole screen.
    pub fn text(&self) -> String {
        let mut lines = vec![self.head(), self.verdict()];
        if let Some(cause) = &self.cause {
            lines.push(format!("Seen:        {}{}", cause.seen.join("; "), cause.confidence.text()));
        }
        let changed = self.changed.clone().unwrap_or_else(|| "none known within a day".to_owned());
        lines.push(format!("Last change: {changed}."));
        if let Some(cause) = &self.cause {
            lines.push(cause.command_line());
            lines.push(format!("If not:      {}.", cause.otherwise));
            lines.push(self.decider(cause));
        }
        if !self.others.is_empty() {
            lines.push(format!("Also:        {}.", self.also()));
        }
        if !self.unknown.is_empty() {
            lines.push(format!("Not known:   {}.", self.unknown.join("; ")));
        }
        lines.join("\n") + "\n"
    }

    /// Five lines.
    pub fn short(&self) -> String {
        let mut lines = vec![self.head(), self.verdict()];
        if let Some(cause) = &self.cause {
            lines.extend([cause.command_line(), format!("If not:      {}.", cause.otherwise), self.decider(cause)]);
        }
        lines.join("\n") + "\n"
    }

    /// Whether apps are affected, and the cause in one sentence.
    pub fn verdict(&self) -> String {
        let nothing = if self.exit == 0 { "Nothing is wrong." } else { "Nothing is known to be wrong." };
        let sentence = self.cause.as_ref().map_or(nothing, |cause| &cause.sentence);
        format!("{} {sentence}", self.apps.text())
    }

    fn decider(&self, cause: &Cause) -> String {
        let who = self.decides.as_deref().unwrap_or("nobody is named");
        let must = if cause.decision { " A person must choose." } else { "" };
        format!("Decides:     {who}.{must} Runbook page: {}", cause.code)
    }

    fn also(&self) -> String {
        let named: Vec<String> =
            self.others.iter().take(OTHERS_MAX).map(|other| format!("{} {}", other.code, other.about)).collect();
        match self.others.len().checked_sub(OTHERS_MAX) {
            None | Some(0) => named.join(", "),
            Some(more) => format!("{} and {more} more", named.join(", ")),
        }
    }
}

// === impl Cause ===

impl Cause {
    /// The one next command, with its place, risk and time.
    pub fn command_line(&self) -> String {
        let place = self.on.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
        format!("Do now{place} ({}, ~{}): {}", self.risk, self.time, self.command)
    }
}

// === impl Confidence ===

impl Confidence {
    fn text(self) -> &'static str {
        match self {
            Confidence::Certain => ".",
            Confidence::Likely => " (one witness: likely, not certain).",
        }
    }
}

// === impl Margin ===

impl Margin {
    pub fn text(&self) -> String {
        match self {
            Margin::Known { servers, spare: 0 } => {
                format!("Margin 0 of {servers} servers: if another one stops, changes stop.")
            }
            Margin::Known { servers, spare: 1 } => format!("Margin 1 of {servers} servers: one may stop."),
            Margin::Known { servers, spare } => format!("Margin {spare} of {servers} servers: {spare} may stop."),
            Margin::Below { servers, well } => format!("No margin: {well} of {servers} servers, changes are stopped."),
            Margin::Single => "Margin 0: the state is on one server; if it stops, changes stop.".to_owned(),
            Margin::Unknown => "Margin not known.".to_owned(),
        }
    }
}

// === impl Apps ===

impl Apps {
    pub fn text(&self) -> String {
        match self {
            Apps::Well => "Apps OK.".to_owned(),
            Apps::Hurt { which } => {
                let named: Vec<&str> = which.iter().take(NAMED_MAX).map(String::as_str).collect();
                match which.len().checked_sub(NAMED_MAX) {
                    None | Some(0) => format!("Apps affected: {}.", list(&named)),
                    Some(more) => format!("Apps affected: {} and {more} more.", named.join(", ")),
                }
            }
            Apps::Unknown { containers: Some(count) } => format!("Apps not known; {count} containers run."),
            Apps::Unknown { containers: None } => "Apps not known.".to_owned(),
        }
    }
}
