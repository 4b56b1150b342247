//! `config.yaml` and the files of `config.yaml.d`, as lists of flag values.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Keys with their values, in the order of the files: a later file replaces a key, or adds to it with `key+`.
pub type Values = BTreeMap<String, Setting>;

/// What the files say of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    pub words: Vec<String>,
    /// `file:line` of the key, for messages.
    pub origin: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path}: {why}")]
    Content { path: PathBuf, why: String },
    #[error("{origin}: there is no setting {key:?}; `evenkeel {command} --help` lists them")]
    Unknown { origin: String, key: String, command: String },
}

/// Reads a file and its folder of additions (`config.yaml` and `config.yaml.d/*.yaml`). Missing ones are empty.
pub fn read_files(path: &Path) -> Result<Values, ConfigError> {
    let mut values = Values::new();
    let mut files = vec![path.to_owned()];
    let folder = PathBuf::from(format!("{}.d", path.display()));
    let mut more: Vec<PathBuf> = match fs::read_dir(&folder) {
        Ok(entries) => entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(ConfigError::Read { path: folder, source }),
    };
    more.retain(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"));
    more.sort();
    files.extend(more);
    for file in files {
        match fs::read_to_string(&file) {
            Ok(text) => add(&mut values, &file, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ConfigError::Read { path: file, source }),
        }
    }
    Ok(values)
}

fn add(values: &mut Values, path: &Path, text: &str) -> Result<(), ConfigError> {
    let content = |why: String| ConfigError::Content { path: path.to_owned(), why };
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(());
    }
    let tree: Value = serde_saphyr::from_str(text).map_err(|error| content(error.to_string()))?;
    let Some(entries) = tree.as_object() else {
        return Err(content("a configuration is a list of `flag: value`".to_owned()));
    };
    for (key, value) in entries {
        let origin = format!("{}:{}", path.display(), line_of(text, key));
        let wrong = || ConfigError::Content {
            path: origin.clone().into(),
            why: format!("{key}: a value, or a list of values"),
        };
        let words = words(value).ok_or_else(wrong)?;
        put(values, key, words, origin);
    }
    Ok(())
}

/// A key replaces what was said before, or adds to it as `key+`.
pub(super) fn put(values: &mut Values, key: &str, words: Vec<String>, origin: String) {
    match key.strip_suffix('+') {
        Some(key) => {
            let setting = values.entry(key.to_owned()).or_default();
            setting.words.extend(words);
            setting.origin = origin;
        }
        None => drop(values.insert(key.to_owned(), Setting { words, origin })),
    }
}

/// The line, counted from 1, that a key of the outermost mapping is on.
fn line_of(text: &str, key: &str) -> usize {
    let starts = |line: &str| {
        let rest = line.trim_start_matches(['"', '\'', '{', ' ']).strip_prefix(key);
        rest.is_some_and(|rest| rest.trim_start_matches(['"', '\'', ' ']).starts_with(':'))
    };
    text.lines().position(starts).map_or(1, |index| index + 1)
}

/// A value of a file as words; None for what is neither a value nor a list of them.
pub fn words(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::Bool(yes) => Some(vec![yes.to_string()]),
        Value::Number(number) => Some(vec![number.to_string()]),
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(list) => list.iter().map(|one| words(one).and_then(|mut words| words.pop())).collect(),
        Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::read_files;

    #[test]
    fn later_files_replace_or_add() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        let more = folder.path().join("config.yaml.d");
        std::fs::create_dir(&more).unwrap();
        std::fs::write(&path, "tls-san: [a]\nnode-label: [x=1]\nhttps-listen-port: 7443\ndebug: true\n").unwrap();
        std::fs::write(more.join("10.yaml"), "tls-san+: b\nnode-label: [y=2]\n").unwrap();
        std::fs::write(more.join("note.txt"), "not: read").unwrap();
        let values = read_files(&path).unwrap();
        assert_eq!(values["tls-san"].words, ["a", "b"]);
        assert_eq!(values["node-label"].words, ["y=2"]);
        assert_eq!(values["https-listen-port"].words, ["7443"]);
        assert_eq!(values["debug"].words, ["true"]);
        assert_eq!(values["debug"].origin, format!("{}:4", path.display()));
        assert_eq!(values["tls-san"].origin, format!("{}:1", more.join("10.yaml").display()));
        assert!(read_files(&folder.path().join("none.yaml")).unwrap().is_empty());
    }

    #[test]
    fn the_file_with_the_mistake_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        let check = |content: &str, wanted: &str| {
            std::fs::write(&path, content).unwrap();
            let text = read_files(&path).unwrap_err().to_string();
            assert!(text.contains(wanted), "{text}");
        };
        check("# mine\ntoken:\n  nested: true\n", "config.yaml:2: token: a value");
        check("- a\n", "config.yaml: a configuration is a list of");
        check("debug: true\n  bad\n- x: [\n", "line 3");
    }
}
