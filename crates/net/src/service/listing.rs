//! What the kernel says its rules are, as `nft` lists them: parsed, and compared with what they should be. Pure.
//!
//! The kernel words rules its own way, so two listings are compared, never a listing with what was written. Within a chain
//! the order is left aside: a rule cannot move without being removed and added.

use std::collections::BTreeMap;

/// Chains, sets and maps of a table, by their word and name: `chain forward`.
pub type Blocks = BTreeMap<String, Vec<String>>;

/// Every table by family and name: `inet evenkeel`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub tables: BTreeMap<String, Blocks>,
}

/// A rule, an element or a block that is one too many or one too few.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// `chain forward`.
    pub place: String,
    /// Empty for the block itself.
    pub rule: String,
    pub added: bool,
}

// === impl Listing ===

impl Listing {
    /// Reads what `nft -s list ruleset` prints.
    pub fn parse(text: &str) -> Listing {
        let mut listing = Listing::default();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(name) = line.strip_prefix("table ").and_then(|rest| rest.strip_suffix(" {")) {
                listing.tables.insert(name.to_owned(), blocks(&mut lines));
            }
        }
        listing
    }
}

fn blocks<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Blocks {
    let mut found = Blocks::new();
    for line in lines.by_ref().take_while(|line| *line != "}").collect::<Vec<_>>().split(|line| *line == "\t}") {
        let mut inner = line.iter().skip_while(|line| !line.ends_with(" {"));
        let Some(name) = inner.next().and_then(|head| head.trim().strip_suffix(" {")) else { continue };
        let body: Vec<&str> = inner.map(|line| line.trim()).collect();
        let items =
            if name.starts_with("chain ") { body.iter().map(|rule| (*rule).to_owned()).collect() } else { set(&body) };
        found.insert(name.to_owned(), items);
    }
    found
}

/// The lines of a set or map; of one that the kernel itself fills, only how it is declared.
fn set(body: &[&str]) -> Vec<String> {
    let start = body.iter().position(|line| line.starts_with("elements = {")).unwrap_or(body.len());
    let (declared, elements) = body.split_at(start);
    let dynamic = declared.iter().any(|line| line.starts_with("flags ") && line.contains("dynamic"));
    let mut items: Vec<String> = declared.iter().map(|line| (*line).to_owned()).collect();
    if !dynamic {
        let text = elements.join(" ");
        let text = text.strip_prefix("elements = {").unwrap_or_default().trim_end_matches('}');
        items.extend(text.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()));
    }
    items
}

/// What one table has more or less than it should.
pub fn changes(wanted: &Blocks, seen: &Blocks) -> Vec<Change> {
    let mut found = Vec::new();
    for (place, wanted) in wanted {
        let change = |rule: &str, added| Change { place: place.clone(), rule: rule.to_owned(), added };
        match seen.get(place) {
            None => found.push(change("", false)),
            Some(seen) if seen == wanted => {}
            Some(seen) => {
                found.extend(surplus(wanted, seen).into_iter().map(|rule| change(rule, false)));
                found.extend(surplus(seen, wanted).into_iter().map(|rule| change(rule, true)));
            }
        }
    }
    let added = seen.keys().filter(|place| !wanted.contains_key(*place));
    found.extend(added.map(|place| Change { place: place.clone(), rule: String::new(), added: true }));
    found
}

/// What `of` has more often than `than`.
fn surplus<'a>(of: &'a [String], than: &[String]) -> Vec<&'a str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for item in than {
        *counts.entry(item).or_default() += 1;
    }
    let mut left = Vec::new();
    for item in of {
        match counts.get_mut(item.as_str()).filter(|count| 0 < **count) {
            Some(count) => *count -= 1,
            None => left.push(item.as_str()),
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::{Change, Listing, changes};

    const TEXT: &str = "\
table inet evenkeel {
\tset clients {
\t\ttype ipv4_addr
\t\tflags dynamic,timeout
\t\telements = { 10.0.0.1 expires 5s }
\t}

\tmap services4 {
\t\ttype ipv4_addr . inet_proto . inet_service : verdict
\t\telements = { 10.43.0.1 . tcp . 443 : goto svc-a/b/c,
\t\t\t     10.43.0.2 . udp . 53 : goto svc-d }
\t}

\tchain forward {
\t\ttype filter hook forward priority -110; policy accept;
\t\tct state new jump refuse
\t}

\tchain none {
\t}
}
# Warning: table ip filter is managed by iptables-nft, do not touch!
table ip filter {
\tchain INPUT {
\t\ttype filter hook input priority filter; policy accept;
\t\ttcp dport { 22, 80 } accept
\t}
}
table ip empty {
}
";

    #[test]
    fn a_listing_is_read_to_its_last_element() {
        let listing = Listing::parse(TEXT);
        let own = &listing.tables["inet evenkeel"];
        assert_eq!(own["set clients"], ["type ipv4_addr", "flags dynamic,timeout"]);
        assert_eq!(own["map services4"].len(), 3);
        assert_eq!(own["map services4"][2], "10.43.0.2 . udp . 53 : goto svc-d");
        assert_eq!(own["chain forward"].len(), 2);
        assert!(own["chain none"].is_empty());
        assert_eq!(listing.tables["ip filter"]["chain INPUT"][1], "tcp dport { 22, 80 } accept");
        assert!(listing.tables["ip empty"].is_empty());
    }

    #[test]
    fn rules_are_counted_and_named() {
        let wanted = Listing::parse(TEXT).tables["inet evenkeel"].clone();
        let mut seen = wanted.clone();
        assert!(changes(&wanted, &seen).is_empty());
        // The kernel keeps elements in an order of its own.
        seen.get_mut("map services4").unwrap().swap(1, 2);
        assert!(changes(&wanted, &seen).is_empty());
        let forward = seen.get_mut("chain forward").unwrap();
        forward.push("tcp dport 9 drop".to_owned());
        forward.push("ct state new jump refuse".to_owned());
        seen.get_mut("map services4").unwrap().pop();
        seen.remove("chain none");
        seen.insert("chain mine".to_owned(), Vec::new());
        let change = |place: &str, rule: &str, added| Change { place: place.into(), rule: rule.into(), added };
        let found = changes(&wanted, &seen);
        let expected = [
            change("chain forward", "tcp dport 9 drop", true),
            change("chain forward", "ct state new jump refuse", true),
            change("chain none", "", false),
            change("map services4", "10.43.0.1 . tcp . 443 : goto svc-a/b/c", false),
            change("chain mine", "", true),
        ];
        assert_eq!(found, expected);
    }
}
