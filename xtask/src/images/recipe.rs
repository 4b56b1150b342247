//! What is in each image.

use std::fs;

use anyhow::Context;

/// One image: where its files come from and how it starts.
#[derive(Debug)]
pub struct Recipe {
    /// Reference as pods name it.
    pub name: &'static str,
    pub base: Base,
    /// Further files: path, mode, content.
    pub files: Vec<(String, u32, String)>,
    /// Further symbolic links: path, target.
    pub links: Vec<(String, String)>,
    /// Further folders: path, mode, owner.
    pub folders: Vec<(&'static str, u32, u64)>,
    pub entrypoint: Vec<&'static str>,
    pub command: Vec<&'static str>,
    /// User and group number.
    pub user: &'static str,
}

#[derive(Debug)]
pub enum Base {
    /// A C program, linked statically, as `/program`.
    Program { source: &'static str },
    /// Debian packages.
    Packages(Vec<&'static str>),
}

/// Holds a pod's namespaces open and reaps what its containers leave behind.
const PAUSE: &str = r"
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void reap(int signal) { (void)signal; while (waitpid(-1, 0, WNOHANG) > 0) {} }
static void stop(int signal) { (void)signal; _exit(0); }
int main(void) {
    signal(SIGINT, stop); signal(SIGTERM, stop); signal(SIGCHLD, reap);
    for (;;) pause();
}
";

/// busybox as most tools, but bash as `sh`: Debian's busybox shell drops variables whose names hold a dash.
const APPLETS: &str = "cat chmod chown cp cut date dd df dirname echo env expr false find free grep head hostname httpd id \
    ip kill ln ls mkdir mount mv nc netstat nslookup od ping printf ps pwd rm rmdir sed seq sleep sort stat sync tail tar \
    tee telnet test time timeout top touch tr true umount uname uniq vi wc wget which whoami xargs yes";

const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n\
    postgres:x:999:999:postgres:/var/lib/postgresql:/bin/sh\napp:x:1000:1000:app:/:/bin/sh\n";
const GROUPS: &str = "root:x:0:\nnogroup:x:65534:\npostgres:x:999:\napp:x:1000:\n";

impl Recipe {
    fn new(name: &'static str, base: Base) -> Recipe {
        let files = [("etc/passwd", USERS), ("etc/group", GROUPS), ("etc/nsswitch.conf", "hosts: files dns\n")];
        let files = files.map(|(path, text)| (path.to_owned(), 0o644, text.to_owned())).to_vec();
        let folders = vec![("tmp", 0o1777, 0), ("run", 0o755, 0), ("root", 0o700, 0)];
        let (links, entrypoint, command) = (Vec::new(), Vec::new(), Vec::new());
        Recipe { name, base, files, links, folders, entrypoint, command, user: "" }
    }

    /// The archive's name: the last part of the reference, tag apart.
    pub fn file_name(&self) -> String {
        let last = self.name.rsplit('/').next().unwrap_or(self.name);
        last.replace(':', "-")
    }
}

/// Every image, small ones first.
pub fn all() -> anyhow::Result<Vec<Recipe>> {
    Ok(vec![pause(), busybox(), app()?, postgres(), prometheus()])
}

fn pause() -> Recipe {
    Recipe { entrypoint: vec!["/program"], ..Recipe::new("evenkeel.local/pause:1", Base::Program { source: PAUSE }) }
}

fn busybox() -> Recipe {
    let packages = vec!["busybox-static", "bash-static"];
    let mut recipe = Recipe::new("evenkeel.local/busybox:1", Base::Packages(packages));
    let applets = APPLETS.split_whitespace().map(|name| (format!("bin/{name}"), "busybox".to_owned()));
    recipe.links = applets.chain([("bin/sh".to_owned(), "bash-static".to_owned())]).collect();
    recipe.command = vec!["sh"];
    recipe
}

/// The demo application: its Python files are in the image, so a change of them is a change of the recipe.
fn app() -> anyhow::Result<Recipe> {
    let packages = vec!["python3-minimal", "python3-psycopg2", "libpython3-stdlib", "busybox-static", "dash"];
    let mut recipe = Recipe::new("evenkeel.local/saas-app:1", Base::Packages(packages));
    for entry in fs::read_dir("examples/saas/app").context("read examples/saas/app")? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        recipe.files.push((format!("app/{name}"), 0o644, fs::read_to_string(&path)?));
    }
    recipe.files.sort();
    recipe.entrypoint = vec!["/usr/bin/python3", "-u"];
    recipe.user = "1000:1000";
    Ok(recipe)
}

fn postgres() -> Recipe {
    let packages = vec!["postgresql-15", "postgresql-client-15", "bash-static", "busybox-static", "coreutils", "dash"];
    let mut recipe = Recipe::new("evenkeel.local/postgres:15", Base::Packages(packages));
    recipe.folders.extend([("var/lib/postgresql", 0o700, 999), ("run/postgresql", 0o775, 999)]);
    recipe.links.push(("usr/local/bin/postgres".to_owned(), "/usr/lib/postgresql/15/bin/postgres".to_owned()));
    recipe.user = "999:999";
    recipe
}

fn prometheus() -> Recipe {
    let mut recipe = Recipe::new("evenkeel.local/prometheus:2", Base::Packages(vec!["prometheus", "busybox-static"]));
    recipe.folders.push(("prometheus", 0o755, 65534));
    recipe.entrypoint = vec!["/usr/bin/prometheus"];
    recipe.user = "65534:65534";
    recipe
}
