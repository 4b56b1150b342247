//! Three sources of flags become one command line. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::file::{ConfigError, Values};
use super::k3s;

/// The flags of a command line, by their long names.
#[derive(Debug, Default)]
pub struct Flags {
    /// Those of the command, and whether each takes a value.
    pub own: BTreeMap<String, bool>,
    /// Those that only other commands have: one file serves all commands.
    pub others: BTreeSet<String>,
}

/// The command line to parse, and what to tell the operator about it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Merged {
    pub args: Vec<String>,
    pub warnings: Vec<String>,
}

/// For each flag the command line wins over the environment, and that over the files: a list is replaced, not joined.
///
/// # Errors
/// For a key of a file that no command has and that k3s does not know either: a setting that was misspelt would silently
/// not be in force.
pub fn merge(
    command: &[String],
    user: &[String],
    environment: &BTreeMap<String, String>,
    files: &Values,
    flags: &Flags,
) -> Result<Merged, ConfigError> {
    let mut warnings = BTreeSet::new();
    let (user, given) = clean(user, &mut warnings);
    let mut lower: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (key, setting) in files {
        let origin = &setting.origin;
        match flags.own.get_key_value(key) {
            Some((flag, _)) => drop(lower.insert(flag, setting.words.clone())),
            None if k3s::ignored(key).is_some() => {
                warnings.insert(format!("{origin}: {key} is a k3s setting without a meaning here; ignored"));
            }
            None if flags.others.contains(key) => {}
            None => {
                let command = command.last().cloned().unwrap_or_default();
                return Err(ConfigError::Unknown { origin: origin.clone(), key: key.clone(), command });
            }
        }
    }
    for (name, value) in environment {
        if let Some((flag, _)) = flag_of_variable(name).and_then(|flag| flags.own.get_key_value(&flag)) {
            lower.insert(flag, value.split(',').map(str::to_owned).collect());
        }
    }
    let mut args = command.to_vec();
    for (flag, values) in lower {
        if given.contains(flag) {
            continue;
        }
        let takes_value = flags.own[flag];
        for value in values {
            match (takes_value, value.as_str()) {
                (true, value) => args.push(format!("--{flag}={value}")),
                (false, "true" | "1" | "") => args.push(format!("--{flag}")),
                (false, _) => {}
            }
        }
    }
    args.extend(user);
    Ok(Merged { args, warnings: warnings.into_iter().collect() })
}

/// The flags that the command line or the environment sets.
pub fn given(user: &[String], environment: &BTreeMap<String, String>) -> BTreeSet<String> {
    let (_, mut given) = clean(user, &mut BTreeSet::new());
    given.extend(environment.keys().filter_map(|name| flag_of_variable(name)));
    given
}

/// Takes out flags of k3s that mean nothing here; also gives the names of the flags that are left.
fn clean(user: &[String], warnings: &mut BTreeSet<String>) -> (Vec<String>, BTreeSet<String>) {
    let (mut kept, mut given) = (Vec::new(), BTreeSet::new());
    let mut words = user.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            kept.push(word.clone());
            kept.extend(words.by_ref().cloned());
            break;
        }
        let Some(flag) = word.strip_prefix("--") else {
            kept.push(word.clone());
            continue;
        };
        let (name, inline) = flag.split_once('=').map_or((flag, false), |(name, _)| (name, true));
        match k3s::ignored(name) {
            Some(takes_value) => {
                warnings.insert(format!("--{name}: a k3s flag without a meaning here; ignored"));
                if takes_value && !inline {
                    words.next();
                }
            }
            None => {
                given.insert(name.to_owned());
                kept.push(word.clone());
            }
        }
    }
    (kept, given)
}

fn flag_of_variable(name: &str) -> Option<String> {
    if let Some(alias) = k3s::env_alias(name) {
        return Some(alias.to_owned());
    }
    let rest = name.strip_prefix("EVENKEEL_")?;
    let rest = if rest == "URL" { "server" } else { rest };
    Some(rest.to_ascii_lowercase().replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use super::{Flags, Merged, merge};
    use crate::config::file::ConfigError;
    use crate::config::file::Setting;
    use std::collections::BTreeMap;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn merged(user: &str, environment: &[(&str, &str)], files: &[(&str, &str)]) -> Result<Merged, ConfigError> {
        let own = [("data-dir", true), ("tls-san", true), ("token", true), ("debug", false), ("node-name", true)];
        let own = own.map(|(name, value)| (name.to_owned(), value)).into();
        let flags = Flags { own, others: ["recipient".to_owned()].into() };
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let setting = |list: &str| Setting { words: words(list), origin: "config.yaml:7".to_owned() };
        let files: BTreeMap<_, _> = files.iter().map(|(key, list)| ((*key).to_owned(), setting(list))).collect();
        merge(&words("evenkeel server"), &words(user), &environment, &files, &flags)
    }

    fn check(user: &str, environment: &[(&str, &str)], files: &[(&str, &str)], args: &str, warnings: usize) {
        let merged = merged(user, environment, files).unwrap();
        assert_eq!(merged.args.join(" "), format!("evenkeel server {args}").trim_end());
        assert_eq!(merged.warnings.len(), warnings, "{:?}", merged.warnings);
    }

    #[test]
    fn the_command_line_wins_over_the_environment_over_the_files() {
        check("", &[], &[("data-dir", "/f")], "--data-dir=/f", 0);
        check("", &[("EVENKEEL_DATA_DIR", "/e")], &[("data-dir", "/f")], "--data-dir=/e", 0);
        check("--data-dir /c", &[("K3S_DATA_DIR", "/e")], &[("data-dir", "/f")], "--data-dir /c", 0);
        check("--tls-san=c", &[], &[("tls-san", "a b")], "--tls-san=c", 0);
        check("", &[], &[("tls-san", "a b"), ("debug", "true")], "--debug --tls-san=a --tls-san=b", 0);
        check("", &[("K3S_NODE_NAME", "n"), ("PATH", "/bin")], &[("debug", "false")], "--node-name=n", 0);
    }

    #[test]
    fn flags_of_k3s_warn_once_and_never_fail() {
        check("--flannel-backend vxlan --flannel-backend=none --docker --debug", &[], &[], "--debug", 2);
        check("", &[], &[("flannel-backend", "vxlan")], "", 1);
        check("-- --docker", &[], &[], "-- --docker", 0);
    }

    #[test]
    fn a_key_that_nobody_knows_is_an_error_with_its_place() {
        check("", &[], &[("recipient", "another command's")], "", 0);
        let text = merged("", &[], &[("tls-sna", "a")]).unwrap_err().to_string();
        assert!(text.starts_with("config.yaml:7: there is no setting \"tls-sna\"; `evenkeel server --help`"), "{text}");
    }
}
