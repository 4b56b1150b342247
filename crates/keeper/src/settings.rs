//! What the cluster file says of how a node runs: words by key, as in a program's own configuration file.

use std::collections::BTreeMap;

use base::SmolStr;
use serde::{Deserialize, Serialize};

/// Keys that one node has.
const KEYS_MAX: usize = 128;
/// All of one node's together: every step of a plan that changes them carries them.
const BYTES_MAX: usize = 16 << 10;

/// Settings of one node, in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(BTreeMap<SmolStr, Vec<SmolStr>>);

/// Why these are not a node's settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("{count} settings are more than the {KEYS_MAX} of one node")]
    TooMany { count: usize },
    #[error("{bytes} bytes of settings are more than the {BYTES_MAX} of one node")]
    TooLong { bytes: usize },
}

// === impl Settings ===

impl Settings {
    /// # Errors
    /// When there are too many, or they are too long.
    pub fn new(words: BTreeMap<SmolStr, Vec<SmolStr>>) -> Result<Settings, SettingsError> {
        let settings = Settings(words);
        settings.check()?;
        Ok(settings)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&SmolStr, &Vec<SmolStr>)> {
        self.0.iter()
    }

    /// These, and those of `own` in place of the ones of the same key.
    pub fn with(&self, own: &Settings) -> Settings {
        let mut words = self.0.clone();
        words.extend(own.0.iter().map(|(key, value)| (key.clone(), value.clone())));
        Settings(words)
    }

    /// In what `to` differs, for people.
    pub fn changes(&self, to: &Settings) -> Vec<String> {
        let told = |words: Option<&Vec<SmolStr>>| match words.map(Vec::as_slice) {
            None => "not set".to_owned(),
            Some([]) => "nothing".to_owned(),
            Some(words) => words.join(","),
        };
        let gone = self.0.keys().filter(|key| !to.0.contains_key(*key));
        let mut keys: Vec<&SmolStr> = to.0.keys().chain(gone).collect();
        keys.sort();
        let differs = keys.into_iter().filter(|key| self.0.get(*key) != to.0.get(*key));
        differs.map(|key| format!("{key}: {} -> {}", told(self.0.get(key)), told(to.0.get(key)))).collect()
    }

    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        if KEYS_MAX < self.0.len() {
            return Err(SettingsError::TooMany { count: self.0.len() });
        }
        let words = |words: &Vec<SmolStr>| words.iter().map(|word| word.len()).sum::<usize>();
        let bytes = self.0.iter().map(|(key, value)| key.len() + words(value)).sum();
        if BYTES_MAX < bytes { Err(SettingsError::TooLong { bytes }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Settings, SettingsError};

    fn settings(list: &[(&str, &[&str])]) -> Settings {
        let words = |(key, words): &(&str, &[&str])| ((*key).into(), words.iter().map(|word| (*word).into()).collect());
        Settings::new(list.iter().map(words).collect()).unwrap()
    }

    #[test]
    fn a_nodes_own_take_the_place_of_everybodys_and_changes_are_told() {
        let all = settings(&[("drift-policy", &["report"]), ("tls-san", &["a", "b"])]);
        let one = all.with(&settings(&[("tls-san", &["c"]), ("debug", &[])]));
        assert_eq!(one, settings(&[("debug", &[]), ("drift-policy", &["report"]), ("tls-san", &["c"])]));
        assert_eq!(all.changes(&one), ["debug: not set -> nothing", "tls-san: a,b -> c"]);
        assert_eq!(one.changes(&all), ["debug: nothing -> not set", "tls-san: c -> a,b"]);
        assert_eq!(all.changes(&all), [""; 0]);
    }

    #[test]
    fn there_is_an_end_to_them() {
        let many = (0..200).map(|number| (format!("k{number}").into(), Vec::new())).collect();
        assert_eq!(Settings::new(many), Err(SettingsError::TooMany { count: 200 }));
        let long = [("k".into(), vec!["x".repeat(20_000).into()])].into();
        assert_eq!(Settings::new(long), Err(SettingsError::TooLong { bytes: 20_001 }));
    }
}
