//! A table of nftables as data: rendered whole for the first transaction, as a difference for the ones after it.
//!
//! A difference keeps what lives only in the kernel, the remembered clients of session affinity, and costs what changed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A table of family `inet`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    pub sets: BTreeMap<String, Set>,
    pub chains: BTreeMap<String, Chain>,
}

/// A set or, where elements have values, a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    pub map: bool,
    /// `type ipv4_addr; flags interval;`
    pub spec: String,
    pub elements: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// `type nat hook prerouting priority -100; policy accept;` for the chains packets enter by.
    pub hook: Option<String>,
    pub rules: Vec<String>,
}

/// A difference. `after` removes chains and sets that nothing names any more; kernels before 6.2 refuse that in the
/// transaction which drops the last mention.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    pub main: String,
    pub after: String,
}

// === impl Set ===

impl Set {
    pub fn plain(spec: &str) -> Set {
        Set { map: false, spec: spec.to_owned(), elements: BTreeMap::new() }
    }

    pub fn map(spec: &str) -> Set {
        Set { map: true, ..Set::plain(spec) }
    }

    fn word(&self) -> &'static str {
        if self.map { "map" } else { "set" }
    }

    fn element(&self, key: &str, value: &str) -> String {
        if self.map { format!("{key} : {value}") } else { key.to_owned() }
    }
}

// === impl Table ===

impl Table {
    /// Replaces the whole table, whatever it was.
    pub fn render(&self) -> String {
        let mut text = format!("add table inet {0}\ndelete table inet {0}\ntable inet {0} {{\n", self.name);
        for (name, set) in &self.sets {
            let _ = write!(text, "  {} {name} {{ {}", set.word(), set.spec);
            if !set.elements.is_empty() {
                let elements: Vec<_> = set.elements.iter().map(|(key, value)| set.element(key, value)).collect();
                let _ = write!(text, " elements = {{ {} }}", elements.join(", "));
            }
            text.push_str(" }\n");
        }
        for (name, chain) in &self.chains {
            let _ = writeln!(text, "  chain {name} {{");
            for line in chain.hook.iter().chain(&chain.rules) {
                let _ = writeln!(text, "    {line}");
            }
            text.push_str("  }\n");
        }
        text.push_str("}\n");
        text
    }

    /// What makes `old` into this. None where a set or an entry chain is declared otherwise: then the whole is replaced.
    pub fn delta(&self, old: &Table) -> Option<Delta> {
        let same_sets = self
            .sets
            .iter()
            .all(|(name, set)| old.sets.get(name).is_none_or(|old| (old.map, &old.spec) == (set.map, &set.spec)));
        let same_hooks =
            self.chains.iter().all(|(name, chain)| old.chains.get(name).is_none_or(|old| old.hook == chain.hook));
        if old.name != self.name || !same_sets || !same_hooks {
            return None;
        }
        let mut delta = Delta::default();
        self.declare(old, &mut delta.main);
        self.withdraw(old, &mut delta.main);
        self.refill(old, &mut delta.main);
        for name in old.chains.keys().filter(|name| !self.chains.contains_key(*name)) {
            let _ = writeln!(delta.after, "delete chain inet {} {name}", self.name);
        }
        for (name, set) in old.sets.iter().filter(|(name, _)| !self.sets.contains_key(*name)) {
            let _ = writeln!(delta.after, "delete {} inet {} {name}", set.word(), self.name);
        }
        Some(delta)
    }

    fn declare(&self, old: &Table, text: &mut String) {
        for (name, set) in self.sets.iter().filter(|(name, _)| !old.sets.contains_key(*name)) {
            let _ = writeln!(text, "add {} inet {} {name} {{ {} }}", set.word(), self.name, set.spec);
        }
        for (name, chain) in self.chains.iter().filter(|(name, _)| !old.chains.contains_key(*name)) {
            let hook = chain.hook.as_ref().map(|hook| format!(" {{ {hook} }}")).unwrap_or_default();
            let _ = writeln!(text, "add chain inet {} {name}{hook}", self.name);
        }
    }

    /// Elements that change or go, and rules of chains that change or go.
    fn withdraw(&self, old: &Table, text: &mut String) {
        for (name, old_set) in &old.sets {
            let now = self.sets.get(name).map(|set| &set.elements);
            let gone = old_set.elements.iter().filter(|(key, value)| now.and_then(|now| now.get(*key)) != Some(value));
            let keys: Vec<&str> = gone.map(|(key, _)| key.as_str()).collect();
            if !keys.is_empty() {
                let _ = writeln!(text, "delete element inet {} {name} {{ {} }}", self.name, keys.join(", "));
            }
        }
        for (name, old_chain) in &old.chains {
            let same = self.chains.get(name).is_some_and(|chain| chain.rules == old_chain.rules);
            if !same && !old_chain.rules.is_empty() {
                let _ = writeln!(text, "flush chain inet {} {name}", self.name);
            }
        }
    }

    fn refill(&self, old: &Table, text: &mut String) {
        for (name, chain) in &self.chains {
            if old.chains.get(name).is_some_and(|old| old.rules == chain.rules) {
                continue;
            }
            for rule in &chain.rules {
                let _ = writeln!(text, "add rule inet {} {name} {rule}", self.name);
            }
        }
        for (name, set) in &self.sets {
            let before = old.sets.get(name).map(|set| &set.elements);
            let new = set.elements.iter().filter(|(key, value)| before.and_then(|old| old.get(*key)) != Some(value));
            let elements: Vec<String> = new.map(|(key, value)| set.element(key, value)).collect();
            if !elements.is_empty() {
                let _ = writeln!(text, "add element inet {} {name} {{ {} }}", self.name, elements.join(", "));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(rules: &[&str]) -> Chain {
        Chain { hook: None, rules: rules.iter().map(|rule| (*rule).to_owned()).collect() }
    }

    #[test]
    fn a_difference_names_only_what_changed() {
        let mut old = Table { name: "t".into(), ..Table::default() };
        let mut map = Set::map("type inet_service : verdict;");
        map.elements.insert("80".into(), "goto a".into());
        map.elements.insert("81".into(), "goto b".into());
        old.sets.insert("m".into(), map);
        old.chains.insert("a".into(), chain(&["accept"]));
        old.chains.insert("b".into(), chain(&["drop"]));
        let mut new = old.clone();
        new.sets.get_mut("m").unwrap().elements.remove("81");
        new.sets.get_mut("m").unwrap().elements.insert("80".into(), "goto c".into());
        new.chains.remove("b");
        new.chains.insert("c".into(), chain(&["return"]));
        let delta = new.delta(&old).unwrap();
        assert_eq!(
            delta.main,
            "add chain inet t c\ndelete element inet t m { 80, 81 }\nflush chain inet t b\n\
             add rule inet t c return\nadd element inet t m { 80 : goto c }\n"
        );
        assert_eq!(delta.after, "delete chain inet t b\n");
        assert_eq!(new.delta(&new), Some(Delta::default()));
        new.sets.get_mut("m").unwrap().spec = "type ipv4_addr : verdict;".into();
        assert_eq!(new.delta(&old), None);
    }
}
