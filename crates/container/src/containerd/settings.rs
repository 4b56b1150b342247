//! The text of containerd's settings file, for both of its formats. Pure but for [`Settings::new`], which looks at what
//! this machine can do.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::Version;
use crate::registries::Credential;
use crate::sys;

/// Plugins that probe devices, listen at fixed places, or report elsewhere.
const DISABLED: [&str; 7] = [
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.nri.v1.nri",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.internal.v1.tracing",
];

/// What the settings file says.
#[derive(Clone, Debug)]
pub struct Settings {
    pub root: PathBuf,
    pub state: PathBuf,
    /// For what containerd would otherwise keep in `/opt`.
    pub opt: PathBuf,
    pub sandbox_image: String,
    pub snapshotter: String,
    /// runc; None leaves the search to containerd.
    pub runc: Option<PathBuf>,
    /// Containers' cgroups are made by systemd.
    pub systemd_cgroup: bool,
    /// This machine may not lower `oom_score_adj`.
    pub restrict_oom_score: bool,
    pub disable_apparmor: bool,
    pub cni_programs: PathBuf,
    pub cni_networks: PathBuf,
    /// The folder of `HOST/hosts.toml` files.
    pub registry_hosts: PathBuf,
    pub credentials: Vec<Credential>,
}

// === impl Settings ===

impl Settings {
    pub fn new(folder: &Path, sandbox_image: &str) -> Settings {
        Settings {
            root: folder.join("root"),
            state: folder.join("state"),
            opt: folder.join("opt"),
            sandbox_image: sandbox_image.to_owned(),
            snapshotter: snapshotter(folder).to_owned(),
            runc: None,
            systemd_cgroup: false,
            restrict_oom_score: !sys::has_sys_resource(),
            disable_apparmor: !apparmor(),
            cni_programs: folder.join("cni/bin"),
            cni_networks: folder.join("cni/net.d"),
            registry_hosts: folder.join("certs.d"),
            credentials: Vec::new(),
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.state.join("containerd.sock")
    }

    /// The file for this version of containerd.
    pub fn render(&self, version: Version) -> String {
        let mut text = String::from("# Written by evenkeel at every start; changes are lost.\n");
        let format = if version.major >= 2 { 3 } else { 2 };
        line(&mut text, "version", &format.to_string());
        line(&mut text, "root", &path(&self.root));
        line(&mut text, "state", &path(&self.state));
        line(&mut text, "disabled_plugins", &list(DISABLED.iter().map(|id| quote(id))));
        if !self.restrict_oom_score {
            line(&mut text, "oom_score", "-999");
        }
        table(&mut text, "grpc", &[("address", path(&self.socket()))]);
        table(&mut text, "ttrpc", &[("address", path(&self.state.join("containerd.sock.ttrpc")))]);
        table(&mut text, r#"plugins."io.containerd.internal.v1.opt""#, &[("path", path(&self.opt))]);
        match format {
            2 => self.cri_in_one(&mut text),
            _ => self.cri_in_two(&mut text, version),
        }
        text
    }

    /// Up to 1.7 one plugin holds all of CRI.
    fn cri_in_one(&self, text: &mut String) {
        let cri = r#"plugins."io.containerd.grpc.v1.cri""#;
        let mut keys = vec![("sandbox_image", quote(&self.sandbox_image))];
        keys.extend(self.runtime_keys());
        table(text, cri, &keys);
        let network = [("bin_dir", path(&self.cni_programs)), ("conf_dir", path(&self.cni_networks))];
        table(text, &format!("{cri}.cni"), &network);
        let containerd = [("snapshotter", quote(&self.snapshotter)), ("default_runtime_name", quote("runc"))];
        table(text, &format!("{cri}.containerd"), &containerd);
        self.runc_tables(text, cri);
        self.registry_tables(text, cri);
    }

    /// From 2.0 on images and runtime are separate plugins.
    fn cri_in_two(&self, text: &mut String, version: Version) {
        let images = r#"plugins."io.containerd.cri.v1.images""#;
        let runtime = r#"plugins."io.containerd.cri.v1.runtime""#;
        table(text, images, &[("snapshotter", quote(&self.snapshotter))]);
        table(text, &format!("{images}.pinned_images"), &[("sandbox", quote(&self.sandbox_image))]);
        self.registry_tables(text, images);
        table(text, runtime, &self.runtime_keys());
        let programs = path(&self.cni_programs);
        // 2.1 made the folder a list and calls the single one deprecated.
        let programs = if version.minor == 0 { ("bin_dir", programs) } else { ("bin_dirs", list([programs])) };
        table(text, &format!("{runtime}.cni"), &[programs, ("conf_dir", path(&self.cni_networks))]);
        table(text, &format!("{runtime}.containerd"), &[("default_runtime_name", quote("runc"))]);
        self.runc_tables(text, runtime);
    }

    fn runtime_keys(&self) -> Vec<(&'static str, String)> {
        vec![
            ("restrict_oom_score_adj", self.restrict_oom_score.to_string()),
            ("disable_apparmor", self.disable_apparmor.to_string()),
            ("netns_mounts_under_state_dir", "true".to_owned()),
            ("enable_unprivileged_ports", "true".to_owned()),
            ("enable_unprivileged_icmp", "true".to_owned()),
        ]
    }

    fn runc_tables(&self, text: &mut String, plugin: &str) {
        let runc = format!("{plugin}.containerd.runtimes.runc");
        table(text, &runc, &[("runtime_type", quote("io.containerd.runc.v2"))]);
        let mut options = vec![("SystemdCgroup", self.systemd_cgroup.to_string())];
        options.extend(self.runc.as_ref().map(|program| ("BinaryName", path(program))));
        table(text, &format!("{runc}.options"), &options);
    }

    fn registry_tables(&self, text: &mut String, plugin: &str) {
        table(text, &format!("{plugin}.registry"), &[("config_path", path(&self.registry_hosts))]);
        for credential in &self.credentials {
            let name = format!("{plugin}.registry.configs.{}.auth", quote(&credential.host));
            let filled = credential.keys().into_iter().filter(|(_, value)| !value.is_empty());
            let keys: Vec<_> = filled.map(|(key, value)| (key, quote(value))).collect();
            table(text, &name, &keys);
        }
    }
}

fn table(text: &mut String, name: &str, keys: &[(&str, String)]) {
    let _ = writeln!(text, "[{name}]");
    for (key, value) in keys {
        line(text, key, value);
    }
}

fn line(text: &mut String, key: &str, value: &str) {
    let _ = writeln!(text, "{key} = {value}");
}

fn list(values: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", values.into_iter().collect::<Vec<_>>().join(", "))
}

fn path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

/// A TOML basic string. Its escapes are a superset of JSON's, but for DEL, which must be escaped.
pub(crate) fn quote(text: &str) -> String {
    let json = serde_json::to_string(text).expect("a string is JSON");
    json.replace('\u{7f}', "\\u007f")
}

/// An overlay cannot lie on another one (a data folder inside a container): plain copies can.
fn snapshotter(folder: &Path) -> &'static str {
    let nearest = folder.ancestors().find(|ancestor| ancestor.is_dir());
    if nearest.is_some_and(sys::is_overlay) { "native" } else { "overlayfs" }
}

fn apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let mut settings = Settings::new(Path::new("/data"), "local/pause:1");
        settings.restrict_oom_score = true;
        settings.disable_apparmor = true;
        settings.runc = Some("/usr/sbin/runc".into());
        let secret = Credential {
            host: "mirror:5000".into(),
            username: "u".into(),
            password: "p\"w".into(),
            ..Credential::default()
        };
        settings.credentials.push(secret);
        settings
    }

    #[test]
    fn one_plugin_before_2() {
        let text = settings().render(Version { major: 1, minor: 6 });
        assert!(text.contains("version = 2\n"));
        assert!(text.contains("[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"local/pause:1\"\nrestrict_oom_score_adj = true\ndisable_apparmor = true\nnetns_mounts_under_state_dir = true\n"));
        assert!(text.contains("bin_dir = \"/data/cni/bin\"\nconf_dir = \"/data/cni/net.d\"\n"));
        assert!(text.contains("SystemdCgroup = false\nBinaryName = \"/usr/sbin/runc\"\n"));
        assert!(text.contains("registry.configs.\"mirror:5000\".auth]\nusername = \"u\"\npassword = \"p\\\"w\"\n"));
        assert!(!text.contains("oom_score = "));
    }

    #[test]
    fn two_plugins_since_2() {
        let text = settings().render(Version { major: 2, minor: 1 });
        assert!(text.contains("version = 3\n"));
        assert!(text.contains("pinned_images]\nsandbox = \"local/pause:1\"\n"));
        assert!(text.contains("bin_dirs = [\"/data/cni/bin\"]\n"));
        assert!(!text.contains("grpc.v1.cri"));
        let older = settings().render(Version { major: 2, minor: 0 });
        assert!(older.contains("bin_dir = \"/data/cni/bin\"\n"));
    }
}
