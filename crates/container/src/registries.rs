//! `registries.yaml`: mirrors and credentials in the format k3s users have, made into containerd's `certs.d` folder.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::containerd::{Settings, quote};

/// Registries one file may name.
pub const REGISTRIES_MAX: usize = 256;
/// The mirror entry that stands for every registry without one of its own.
const ANY: &str = "*";
const HOSTS_FILE: &str = "hosts.toml";

/// The file as people write it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Registries {
    mirrors: BTreeMap<String, Option<Mirror>>,
    configs: BTreeMap<String, Option<Access>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Mirror {
    endpoint: Option<Vec<String>>,
    rewrite: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Access {
    auth: Option<Auth>,
    tls: Option<Tls>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Auth {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    #[serde(alias = "identitytoken")]
    identity_token: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Tls {
    ca_file: Option<String>,
    cert_file: Option<String>,
    key_file: Option<String>,
    insecure_skip_verify: bool,
}

/// How to log in to a registry host. Shown without its secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credential {
    pub host: String,
    pub username: String,
    pub password: String,
    pub auth: String,
    pub identity_token: String,
}

/// The `certs.d` files a configuration means, by folder name, and what could not be carried over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    pub files: BTreeMap<String, String>,
    pub warnings: Vec<String>,
}

/// What became of a file of registries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The files that were written.
    pub files: Vec<(PathBuf, String)>,
    /// For people.
    pub warnings: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    #[error("read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not a registries file")]
    Parse {
        path: PathBuf,
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    #[error("{path} names more than {REGISTRIES_MAX} registries")]
    Many { path: PathBuf },
    #[error("{path}: {host:?} is no host name")]
    Host { path: PathBuf, host: String },
    #[error("write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

// === impl Registries ===

impl Registries {
    /// Reads the file; an absent one names nothing.
    pub fn read(path: &Path) -> Result<Registries, RegistriesError> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Registries::default()),
            text => text.map_err(|source| RegistriesError::Read { path: path.to_path_buf(), source })?,
        };
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Registries::default());
        }
        let parse = |source| RegistriesError::Parse { path: path.to_path_buf(), source: Box::new(source) };
        let registries: Registries = serde_saphyr::from_str(&text).map_err(parse)?;
        if REGISTRIES_MAX < registries.mirrors.len() + registries.configs.len() {
            return Err(RegistriesError::Many { path: path.to_path_buf() });
        }
        // A name becomes a folder.
        let odd = |host: &&String| host.is_empty() || host.contains('/') || host.starts_with('.');
        match registries.mirrors.keys().chain(registries.configs.keys()).find(odd) {
            Some(host) => Err(RegistriesError::Host { path: path.to_path_buf(), host: host.clone() }),
            None => Ok(registries),
        }
    }

    pub fn credentials(&self) -> Vec<Credential> {
        let auth = |(host, access): (&String, &Option<Access>)| {
            let auth = access.as_ref()?.auth.as_ref()?;
            Some(Credential {
                host: host.clone(),
                username: auth.username.clone().unwrap_or_default(),
                password: auth.password.clone().unwrap_or_default(),
                auth: auth.auth.clone().unwrap_or_default(),
                identity_token: auth.identity_token.clone().unwrap_or_default(),
            })
        };
        self.configs.iter().filter_map(auth).collect()
    }

    /// The files of `certs.d`.
    pub fn hosts(&self) -> Hosts {
        let mut hosts = Hosts::default();
        for (name, mirror) in &self.mirrors {
            let text = self.mirror(name, &mirror.clone().unwrap_or_default(), &mut hosts.warnings);
            let folder = if name == ANY { "_default" } else { name };
            hosts.files.insert(folder.to_owned(), text);
        }
        for (name, access) in &self.configs {
            let tls = access.as_ref().and_then(|access| access.tls.as_ref());
            if let Some(tls) = tls.filter(|_| !self.mirrors.contains_key(name)) {
                let text = format!("[host.{}]\n{}", quote(&format!("https://{name}")), tls_lines(tls));
                hosts.files.insert(name.clone(), text);
            }
        }
        hosts
    }

    fn mirror(&self, name: &str, mirror: &Mirror, warnings: &mut Vec<String>) -> String {
        let mut text = String::new();
        let prefix = mirror.rewrite.as_ref().and_then(|rules| prefix_of(name, rules, warnings));
        for endpoint in mirror.endpoint.iter().flatten() {
            let url = if endpoint.contains("://") { endpoint.clone() } else { format!("https://{endpoint}") };
            let url = url.trim_end_matches('/');
            let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let path = [path, prefix.as_deref().unwrap_or("")]
                .iter()
                .fold(String::new(), |path, part| if part.is_empty() { path } else { format!("{path}/{part}") });
            // A path in the address is where `/v2` is; a prefix of names comes after it.
            let base = if path.is_empty() {
                String::new()
            } else if path.starts_with("/v2") {
                path
            } else {
                format!("/v2{path}")
            };
            text += &format!("[host.{}]\n", quote(&format!("{scheme}://{host}{base}")));
            text += "capabilities = [\"pull\", \"resolve\"]\n";
            if !base.is_empty() {
                text += "override_path = true\n";
            }
            if let Some(tls) = self.configs.get(host).and_then(|a| a.as_ref()).and_then(|a| a.tls.as_ref()) {
                text += &tls_lines(tls);
            }
        }
        text
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({})", self.host)
    }
}

impl Credential {
    pub(crate) fn keys(&self) -> [(&'static str, &str); 4] {
        [
            ("username", &self.username),
            ("password", &self.password),
            ("auth", &self.auth),
            ("identitytoken", &self.identity_token),
        ]
    }
}

/// Reads `file` into `settings` and writes its hosts folder anew.
pub fn apply(file: &Path, settings: &mut Settings) -> Result<Applied, RegistriesError> {
    let registries = Registries::read(file)?;
    let hosts = registries.hosts();
    settings.credentials = registries.credentials();
    let root = &settings.registry_hosts;
    let fail = |path: &Path| {
        let path = path.to_path_buf();
        move |source| RegistriesError::Write { path, source }
    };
    fs::create_dir_all(root).map_err(fail(root))?;
    for entry in fs::read_dir(root).map_err(fail(root))? {
        let folder = entry.map_err(fail(root))?;
        if !hosts.files.contains_key(&*folder.file_name().to_string_lossy()) {
            fs::remove_dir_all(folder.path()).map_err(fail(&folder.path()))?;
        }
    }
    let mut files = Vec::new();
    for (name, text) in hosts.files {
        let folder = root.join(name);
        fs::create_dir_all(&folder).map_err(fail(&folder))?;
        let path = folder.join(HOSTS_FILE);
        fs::write(&path, &text).map_err(fail(&path))?;
        files.push((path, text));
    }
    Ok(Applied { files, warnings: hosts.warnings })
}

/// containerd can put a prefix before names, not more: of rewrites only "everything below a prefix" carries over.
fn prefix_of(name: &str, rules: &BTreeMap<String, String>, warnings: &mut Vec<String>) -> Option<String> {
    let mut prefix = None;
    for (pattern, replacement) in rules {
        let all = matches!(pattern.as_str(), "^(.*)" | "^(.*)$" | "(.*)" | "(.*)$" | "^(.+)$" | "(.+)");
        let before = replacement.strip_suffix("/$1").or_else(|| replacement.strip_suffix("/${1}"));
        match before.filter(|_| all && prefix.is_none()) {
            Some(before) => prefix = Some(before.trim_matches('/').to_owned()),
            None => warnings.push(format!(
                "registries.yaml: rewrite {pattern:?} of {name} is not supported (only \"^(.*)$\" to \"PREFIX/$1\")"
            )),
        }
    }
    prefix
}

fn tls_lines(tls: &Tls) -> String {
    let mut text = String::new();
    if let Some(file) = &tls.ca_file {
        text += &format!("ca = {}\n", quote(file));
    }
    match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(key)) => text += &format!("client = [[{}, {}]]\n", quote(cert), quote(key)),
        (Some(both), None) => text += &format!("client = {}\n", quote(both)),
        (None, _) => {}
    }
    if tls.insecure_skip_verify {
        text += "skip_verify = true\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
mirrors:
  example.org:
    endpoint: [\"https://mirror.local:5000\", \"http://10.0.0.1:5000/path\"]
    rewrite: {\"^(.*)$\": \"team/$1\", \"^x/(.*)\": \"y/$1\"}
  '*':
    endpoint: [mirror.local]
configs:
  mirror.local:5000:
    auth: {username: u, password: p}
    tls: {ca_file: /ca.pem, cert_file: /c.pem, key_file: /k.pem, insecure_skip_verify: true}
  plain.local:
    tls: {insecure_skip_verify: true}
";

    fn parse(text: &str) -> Result<Registries, RegistriesError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registries.yaml");
        fs::write(&path, text).unwrap();
        Registries::read(&path)
    }

    #[test]
    fn mirrors_become_hosts_files() {
        let registries = parse(FILE).unwrap();
        let hosts = registries.hosts();
        assert_eq!(
            hosts.files["example.org"],
            "[host.\"https://mirror.local:5000/v2/team\"]\ncapabilities = [\"pull\", \"resolve\"]\noverride_path = true\n\
             ca = \"/ca.pem\"\nclient = [[\"/c.pem\", \"/k.pem\"]]\nskip_verify = true\n\
             [host.\"http://10.0.0.1:5000/v2/path/team\"]\ncapabilities = [\"pull\", \"resolve\"]\noverride_path = true\n"
        );
        assert_eq!(
            hosts.files["_default"],
            "[host.\"https://mirror.local\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
        );
        assert_eq!(hosts.files["plain.local"], "[host.\"https://plain.local\"]\nskip_verify = true\n");
        assert_eq!(hosts.warnings.len(), 1);
        assert_eq!(registries.credentials()[0].username, "u");
        assert!(!format!("{:?}", registries.credentials()).contains("\"p\""));
    }

    #[test]
    fn bad_files_are_refused_and_empty_ones_are_not() {
        assert!(parse("mirrors: [1, 2]").is_err());
        assert!(matches!(parse("mirrors: {../up: {endpoint: [a]}}"), Err(RegistriesError::Host { .. })));
        assert!(parse("# nothing\n").unwrap().hosts().files.is_empty());
        assert!(parse("mirrors:\n  a.local:\n").unwrap().hosts().files["a.local"].is_empty());
    }

    #[test]
    fn folders_of_registries_no_longer_named_go_away() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("registries.yaml");
        let mut settings = Settings::new(folder.path(), "p");
        fs::write(&file, FILE).unwrap();
        apply(&file, &mut settings).unwrap();
        assert!(settings.registry_hosts.join("example.org/hosts.toml").is_file());
        fs::write(&file, "mirrors: {b.local: {endpoint: [c]}}").unwrap();
        apply(&file, &mut settings).unwrap();
        let left: Vec<_> = fs::read_dir(&settings.registry_hosts).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["b.local"]);
    }
}
