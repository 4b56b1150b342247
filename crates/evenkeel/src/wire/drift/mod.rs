//! What somebody changed by hand on this node: looked for all the time, kept in a ledger, told to the cluster, and put back
//! where that is the policy.
//!
//! Nothing here says how things should be: whoever writes them does, by a mark on the file ([`pki::read_mark`]), by
//! [`net::Kept`] and [`net::service::Rules`], by the files containerd was started with. The firewall is put back by its
//! writer alone. What belongs to others is told and never touched.
//!
//! [`pki::read_mark`]: crate::pki::read_mark

mod book;
mod files;
mod firewall;
mod published;
mod sessions;
mod settings;
mod unmanaged;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use base::{Chain, Clock};
use jiff::Timestamp;
use keeper::drift::{How, Kind, Line, Look, News, Policy, Session, State, Thing, who};
use net::service::{Looked, Looker};
use tokio::sync::watch;
use tracing::{debug, info, warn};
use view::{Client, Drain};

use self::files::Files;
use super::SystemClock;
use super::manifests::Edited;
use crate::layout::Layout;

pub use book::{Book, Shelf};
pub use published::{Added, Published, Told};
pub use unmanaged::{Inventory, Joined};

/// Two looks make a line: a change is told well within a minute.
const LOOK: Duration = Duration::from_secs(15);
/// A line may have come up between the look before the one that saw it first and now.
const LOOKS_OF_SESSIONS: usize = 3;
/// Looks between two of what others have added to the machine: five minutes.
const LOOKS_OF_OTHERS: u32 = 20;

/// What is watched, and as whom.
pub struct Parts {
    pub layout: Layout,
    pub node: String,
    pub policy: Policy,
    pub client: Client,
    /// Files of the container runtime, as they were written.
    pub files: BTreeMap<PathBuf, String>,
    pub kept: watch::Receiver<net::Kept>,
    pub rules: net::service::Rules,
    /// Objects of this server's deploy folder that were changed in the cluster; None on a machine that is no server.
    pub edited: Option<watch::Receiver<Vec<Edited>>>,
}

/// The one that looks.
pub struct Watcher {
    parts: Parts,
    shelf: Shelf,
    book: Book,
    files: Files,
    looker: Looker,
    joined: Option<Joined>,
    /// What came since the node joined, and looks until it is looked for again.
    added: BTreeMap<&'static str, Vec<String>>,
    others_in: u32,
    sessions: VecDeque<Vec<Session>>,
    last: Timestamp,
    published: Option<Published>,
}

// === impl Watcher ===

impl Watcher {
    pub fn new(parts: Parts) -> Watcher {
        let shelf = Shelf::new(&parts.layout);
        let book = shelf.book().unwrap_or_else(|error| {
            warn!(error = %Chain(error.as_ref()), "the ledger of changes by hand begins anew");
            None
        });
        let joined = shelf.joined().unwrap_or_default();
        let files = Files::new(&parts.layout, parts.policy == Policy::Repair);
        Watcher {
            shelf,
            book: book.unwrap_or_default(),
            files,
            looker: parts.rules.looker(),
            joined,
            added: BTreeMap::new(),
            others_in: 0,
            sessions: VecDeque::new(),
            last: SystemClock.now(),
            published: None,
            parts,
        }
    }

    /// Looks until the drain.
    pub async fn run(mut self, drain: Drain) {
        loop {
            if let Err(error) = self.look().await {
                warn!(error = %Chain(error.as_ref()), "what was changed by hand is not noted");
            }
            if drain.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
                return;
            }
        }
    }

    async fn look(&mut self) -> Result<()> {
        let now = SystemClock.now();
        self.note_sessions(now);
        let rules = self.rules().await;
        self.note_joined(rules.as_ref(), now)?;
        let known = self.book.known.clone();
        let look = self.seen(rules.as_ref());
        let sessions: BTreeSet<Session> = self.sessions.iter().flatten().cloned().collect();
        let sessions: Vec<Session> = sessions.into_iter().collect();
        let mut news = self.book.ledger.observe(&look, now, &sessions);
        for line in &mut news.opened {
            if let Some(changed) = self.changed(&line.thing) {
                self.book.ledger.note_changed(&line.thing, changed);
                line.changed = Some(changed);
            }
        }
        tell(&news);
        let repaired = self.repair(now);
        if news != News::default() || repaired || known != self.book.known {
            self.shelf.write_book(&self.book)?;
        }
        self.publish().await;
        Ok(())
    }

    /// Everything there is to see now.
    fn seen(&mut self, rules: Option<&Looked>) -> Look {
        let mut look = Look::default();
        let kept = self.parts.kept.borrow().clone();
        let told =
            self.parts.files.iter().chain(&kept.files).map(|(path, text)| (path.clone(), text.clone())).collect();
        self.files.tell(told, kept.links);
        self.files.look(&mut self.book.known, &mut look);
        settings::look(&kept.settings, &mut look);
        let firewall = rules.zip(self.joined.as_ref());
        if !firewall.is_some_and(|(rules, joined)| firewall::look(rules, &joined.inventory.firewall, &mut look)) {
            look.unknown.insert(Kind::Firewall);
        }
        if let Some(edited) = &self.parts.edited {
            for one in edited.borrow().iter() {
                look.see(Thing::new(Kind::Manifest, one.name.clone()), State::Told(one.change.clone()));
            }
        }
        look
    }

    /// None where they cannot be seen just now.
    async fn rules(&mut self) -> Option<Looked> {
        match self.looker.look().await {
            Ok(looked) => looked,
            Err(error) => {
                warn!(error = %Chain(&error), "the rules of the firewall cannot be listed");
                None
            }
        }
    }

    fn note_sessions(&mut self, now: Timestamp) {
        self.sessions.push_back(sessions::known(self.last));
        self.last = now;
        while LOOKS_OF_SESSIONS < self.sessions.len() {
            self.sessions.pop_front();
        }
    }

    /// Remembers what was there when the node joined; later, what came since.
    fn note_joined(&mut self, rules: Option<&Looked>, now: Timestamp) -> Result<()> {
        if self.others_in != 0 {
            self.others_in -= 1;
            return Ok(());
        }
        let Some(rules) = rules else { return Ok(()) };
        self.others_in = LOOKS_OF_OTHERS;
        let mut inventory = Inventory::of_machine(Path::new("/"));
        inventory.firewall = firewall::entries(&rules.foreign);
        match &self.joined {
            Some(joined) => self.added = inventory.added(&joined.inventory),
            None => {
                let joined = Joined { at: now, inventory };
                self.shelf.write_joined(&joined)?;
                self.joined = Some(joined);
            }
        }
        Ok(())
    }

    fn changed(&self, thing: &Thing) -> Option<Timestamp> {
        let file = matches!(thing.kind, Kind::Certificate | Kind::File | Kind::Unit);
        file.then(|| files::changed(Path::new(&thing.name))).flatten()
    }

    /// Puts back what can be put back; true where something was.
    fn repair(&mut self, now: Timestamp) -> bool {
        if self.parts.policy != Policy::Repair {
            return false;
        }
        let mut any = false;
        for thing in self.book.ledger.to_repair() {
            match self.put_back(&thing) {
                Ok(true) => {
                    info!(kind = thing.kind.word(), what = thing.name, "put back what was changed by hand");
                    self.book.ledger.note_repair(&thing, now);
                    any = true;
                }
                Ok(false) => {}
                Err(error) => warn!(what = thing.name, %error, "what was changed by hand could not be put back"),
            }
        }
        any
    }

    /// False where it is not for us to put back, or nobody knows how it was.
    fn put_back(&self, thing: &Thing) -> std::io::Result<bool> {
        match thing.kind {
            Kind::Certificate | Kind::File | Kind::Unit => self.files.repair(thing, &self.book.known),
            Kind::Sysctl => settings::repair(&self.parts.kept.borrow().settings, thing),
            Kind::Firewall => {
                let ours = self.looker.table().is_some_and(|table| thing.name.starts_with(&format!("{table} ")));
                if ours {
                    self.parts.rules.put_again();
                }
                Ok(ours)
            }
            // The folder's own task does, under the same policy.
            Kind::Manifest => Ok(false),
        }
    }

    /// Tells the cluster, where that is news; one that does not answer is told with a later look.
    async fn publish(&mut self) {
        let wanted = Published::new(&self.book.ledger, self.parts.policy, &self.added);
        if self.published.as_ref() == Some(&wanted) {
            return;
        }
        match wanted.put(&self.parts.client, &self.parts.node).await {
            Ok(()) => self.published = Some(wanted),
            Err(error) => debug!(error = %Chain(error.as_ref()), "the cluster was not told what drifted"),
        }
    }
}

fn tell(news: &News) {
    for line in &news.opened {
        warn!(kind = line.thing.kind.word(), "changed by hand: {}", sentence(line));
    }
    for line in &news.closed {
        let how = match line.closed.map(|closing| closing.how) {
            Some(How::Repaired) => "was put back",
            _ => "is as it should be again",
        };
        info!(kind = line.thing.kind.word(), "{} {how}", line.thing.name);
    }
}

/// One line as people read it.
pub fn sentence(line: &Line) -> String {
    match line.thing.kind {
        Kind::Manifest => format!("{} {}", line.thing.name, line.change),
        _ => format!("{} {}; {}", line.thing.name, line.change, who(&line.sessions)),
    }
}
