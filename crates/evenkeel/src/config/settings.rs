//! What the cluster file says of a machine, over the machine's own files.

use keeper::Settings;

use super::file::{ConfigError, Values, put};

/// Where a setting comes from, for messages.
const ORIGIN: &str = "the cluster file";
/// Settings that a machine needs before it knows its cluster, or that are what it is known by.
const OF_THE_MACHINE: [&str; 7] =
    ["config", "data-dir", "node-name", "server", "token", "token-file", "private-registry"];
/// Settings that change by a command of their own, which knows the way.
const OF_A_COMMAND: [&str; 5] =
    ["cluster-init", "datastore-endpoint", "datastore-cafile", "datastore-certfile", "datastore-keyfile"];

/// A key replaces what the files say, or adds to it as `key+`.
///
/// # Errors
/// For keys that are not the cluster file's.
pub fn overlay(files: &mut Values, settings: &Settings) -> Result<(), ConfigError> {
    for (key, words) in settings.iter() {
        let plain = key.trim_end_matches('+');
        let why = match plain {
            _ if OF_THE_MACHINE.contains(&plain) => "it is the machine's own: set it there, in its configuration file",
            _ if OF_A_COMMAND.contains(&plain) => "where the state lies is changed by `evenkeel datastore`",
            _ => {
                put(files, key, words.iter().map(ToString::to_string).collect(), ORIGIN.to_owned());
                continue;
            }
        };
        return Err(ConfigError::Content { path: ORIGIN.into(), why: format!("{plain} cannot be set there: {why}") });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::file::{Setting, Values};
    use super::overlay;
    use keeper::Settings;

    fn settings(list: &[(&str, &str)]) -> Settings {
        Settings::new(list.iter().map(|(key, word)| ((*key).into(), vec![(*word).into()])).collect()).unwrap()
    }

    #[test]
    fn the_cluster_file_replaces_and_adds() {
        let own = |words: &[&str]| {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            Setting { words, origin: "config.yaml:1".to_owned() }
        };
        let mut files: Values = [("tls-san".to_owned(), own(&["a"])), ("debug".to_owned(), own(&["false"]))].into();
        overlay(&mut files, &settings(&[("tls-san+", "b"), ("debug", "true")])).unwrap();
        assert_eq!((files["tls-san"].words.join(" "), files["debug"].words.join(" ")), ("a b".into(), "true".into()));
        assert_eq!(files["debug"].origin, "the cluster file");
    }

    #[test]
    fn what_is_not_its_own_is_refused_with_where_it_belongs() {
        let check = |key: &str, wanted: &str| {
            let told = overlay(&mut Values::new(), &settings(&[(key, "x")])).unwrap_err().to_string();
            assert!(told.contains(wanted), "{told}");
        };
        check("data-dir", "data-dir cannot be set there: it is the machine's own");
        check("token+", "token cannot be set there");
        check("datastore-endpoint", "is changed by `evenkeel datastore`");
    }
}
