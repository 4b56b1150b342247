//! Kernel settings: what the network set, and what is set.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use keeper::drift::{Kind, Look, State, Thing};

const ROOT: &str = "/proc/sys";

/// Adds every setting to the look. One that is not there any more went with its link, which is another matter.
pub fn look(settings: &BTreeMap<String, String>, look: &mut Look) {
    for (path, wanted) in settings {
        let Ok(value) = fs::read_to_string(Path::new(ROOT).join(path)) else { continue };
        look.want(thing(path), State::Value(wanted.clone()));
        look.see(thing(path), State::Value(value.trim().to_owned()));
    }
}

/// Sets it again; false where nobody said how it should be.
pub fn repair(settings: &BTreeMap<String, String>, of: &Thing) -> io::Result<bool> {
    let Some((path, value)) = settings.iter().find(|(path, _)| thing(path) == *of) else { return Ok(false) };
    fs::write(Path::new(ROOT).join(path), value).map(|()| true)
}

/// By the name people know it under.
fn thing(path: &str) -> Thing {
    Thing::new(Kind::Sysctl, path.replace('/', "."))
}
