//! Rules of the firewall: the own table as its writer put it, and what others' tables hold more than when the node joined.

use std::collections::{BTreeMap, BTreeSet};

use keeper::drift::{Kind, Look, State, Thing};
use net::service::{Blocks, Looked};

/// Of a rule that is named; the rest of a long one is left out.
const RULE_CHARS_MAX: usize = 160;

/// Adds to the look what differs. `joined` is what others had when the node joined.
pub fn look(looked: &Looked, joined: &BTreeSet<String>, look: &mut Look) -> bool {
    let Some(changes) = &looked.changes else { return false };
    for change in changes {
        let rule = if change.rule.is_empty() { String::new() } else { format!(": {}", short(&change.rule)) };
        let thing = Thing::new(Kind::Firewall, format!("{} {}{rule}", looked.table, change.place));
        if change.added {
            look.see(thing, State::There);
        } else {
            look.want(thing, State::There);
        }
    }
    for (table, blocks) in &looked.foreign {
        foreign(table, blocks, joined, look);
    }
    true
}

/// A table that is new is one thing; of one that was there, each rule that was not.
fn foreign(table: &str, blocks: &Blocks, joined: &BTreeSet<String>, look: &mut Look) {
    if !joined.contains(&name(table)) {
        let rules = rules(table, blocks);
        let first = rules.iter().next().map(|rule| format!(", with {rule}")).unwrap_or_default();
        look.see(Thing::new(Kind::Firewall, name(table)), State::Told(format!("was added{first}")));
        return;
    }
    for rule in rules(table, blocks).into_iter().filter(|rule| !joined.contains(rule)) {
        look.see(Thing::new(Kind::Firewall, rule), State::There);
    }
}

/// Everything that others' tables hold, as [`look`] compares it.
pub fn entries(foreign: &BTreeMap<String, Blocks>) -> BTreeSet<String> {
    let of = |(table, blocks): (&String, &Blocks)| {
        let mut all = rules(table, blocks);
        all.insert(name(table));
        all
    };
    foreign.iter().flat_map(of).collect()
}

fn rules(table: &str, blocks: &Blocks) -> BTreeSet<String> {
    let chains = blocks.iter().filter(|(place, _)| place.starts_with("chain "));
    chains
        .flat_map(|(place, rules)| rules.iter().map(move |rule| format!("{table} {place}: {}", short(rule))))
        .collect()
}

fn name(table: &str) -> String {
    format!("table {table}")
}

fn short(rule: &str) -> String {
    rule.chars().take(RULE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use keeper::drift::{Look, compare};
    use net::service::{Change, Listing, Looked};

    use super::{entries, look};

    const BEFORE: &str = "table ip filter {\n\tchain INPUT {\n\t\ttcp dport 22 accept\n\t}\n}\n";
    const NOW: &str = "table ip filter {\n\tchain INPUT {\n\t\ttcp dport 22 accept\n\t\ttcp dport 9 drop\n\t}\n}\n\
                       table inet hand {\n\tchain in {\n\t\tdrop\n\t}\n}\n";

    #[test]
    fn what_others_add_is_told_once_for_a_table() {
        let joined = entries(&Listing::parse(BEFORE).tables);
        let changes = vec![
            Change { place: "chain forward".into(), rule: "accept".into(), added: true },
            Change { place: "chain input".into(), rule: String::new(), added: false },
        ];
        let foreign = Listing::parse(NOW).tables;
        let looked = Looked { table: "inet evenkeel".into(), changes: Some(changes), foreign };
        let mut seen = Look::default();
        assert!(look(&looked, &joined, &mut seen));
        let told: BTreeMap<String, String> =
            compare(&seen).into_iter().map(|(thing, change)| (thing.name, change)).collect();
        let wanted = [
            ("inet evenkeel chain forward: accept", "was added"),
            ("inet evenkeel chain input", "is gone"),
            ("ip filter chain INPUT: tcp dport 9 drop", "was added"),
            ("table inet hand", "was added, with inet hand chain in: drop"),
        ];
        assert_eq!(told, wanted.map(|(name, change)| (name.to_owned(), change.to_owned())).into());
        assert!(!look(&Looked::default(), &joined, &mut Look::default()), "nothing is known yet");
    }
}
