//! Looks now and then whether what the files brought is still as they left it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use api::{Key, Tree};
use keeper::drift::Policy;
use serde_json::json;
use tracing::{info, warn};

use super::edited::{Edited, edit};
use super::folder::{Applied, Found, Record, Records};
use super::{Edits, Manifests};

/// Looks at the folder between two looks at what it brought: a quarter of a minute.
const LOOKS: u32 = 5;
/// Objects of one look; those of further files are not looked at.
const OBJECTS_MAX: usize = 1024;
/// A file is applied again this often within [`WINDOW`]: who changes it back each time has a reason.
const AGAIN_MAX: usize = 3;
const WINDOW: Duration = Duration::from_secs(3600);

/// What is known of changes in the cluster.
pub struct Looking {
    edits: Edits,
    next: u32,
    /// When files were applied again, by name.
    again: BTreeMap<String, VecDeque<Instant>>,
}

// === impl Looking ===

impl Looking {
    pub fn new(edits: Edits) -> Looking {
        Looking { edits, next: 0, again: BTreeMap::new() }
    }

    /// Whether a file may be applied once more; it counts as done.
    fn may_again(&mut self, file: &str) -> bool {
        let times = self.again.entry(file.to_owned()).or_default();
        times.retain(|time| time.elapsed() < WINDOW);
        let may = times.len() < AGAIN_MAX;
        if may {
            times.push_back(Instant::now());
        }
        may
    }
}

// === impl Manifests ===

impl Manifests {
    /// Tells what changed; where that is the policy, has the files of it applied again.
    pub(super) async fn look_for_edits(&mut self, files: &BTreeMap<String, Found>, records: &mut Records) {
        if self.looking.next != 0 {
            self.looking.next -= 1;
            return;
        }
        self.looking.next = LOOKS;
        let mut found = Vec::new();
        let mut left = OBJECTS_MAX;
        for (file, record) in records.iter_mut().filter(|(file, _)| matches!(files.get(*file), Some(Found::Content(_))))
        {
            // What is to be applied anyway is not anybody's change.
            if record.hash.is_empty() || left < record.objects.len() {
                continue;
            }
            left -= record.objects.len();
            let edited = self.of_file(file, record).await;
            let to_take_back = edited.iter().any(|one| !one.scaled);
            found.extend(edited);
            if to_take_back && self.looking.edits.policy == Policy::Repair && self.looking.may_again(file) {
                info!(file, "applied again: what it brought was changed in the cluster");
                record.hash.clear();
            }
        }
        self.publish(found);
    }

    async fn of_file(&self, file: &str, record: &Record) -> Vec<Edited> {
        let mut found = Vec::new();
        for object in &record.objects {
            let Some(had) = record.fields.get(&object.title()) else { continue };
            let name = format!("{file}: {}", object.title());
            match self.current(object).await {
                Ok(Some(now)) => found.extend(edit(name, had, &now)),
                Ok(None) => found.push(Edited { name, change: "was deleted".to_owned(), scaled: false }),
                Err(error) => warn!(file, %error, "{} cannot be looked at", object.title()),
            }
        }
        found
    }

    /// None where it is not there any more.
    async fn current(&self, object: &Applied) -> anyhow::Result<Option<Tree>> {
        let kind = json!({"apiVersion": object.api_version, "kind": object.kind});
        // A kind that is not served any more took its objects along.
        let Ok((gvr, _)) = self.kind_of(&kind) else { return Ok(None) };
        match self.client.get(&gvr, &Key::new(&object.namespace, &object.name)).await {
            Ok(tree) => Ok(Some(tree)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn publish(&self, found: Vec<Edited>) {
        let told = &self.looking.edits.told;
        for one in &found {
            if !told.borrow().contains(one) {
                info!("changed in the cluster: {}: {}", one.name, one.change);
                self.event(false, "ManifestEdited", format!("server/manifests/{}: {}", one.name, one.change));
            }
        }
        told.send_if_modified(|old| {
            let changed = *old != found;
            *old = found;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use keeper::drift::Policy;
    use tokio::sync::watch;

    use super::{AGAIN_MAX, Edits, Looking};

    #[test]
    fn a_file_is_not_applied_again_for_ever() {
        let mut looking = Looking::new(Edits { policy: Policy::Repair, told: watch::Sender::new(Vec::new()) });
        assert!((0..AGAIN_MAX).all(|_| looking.may_again("web.yaml")));
        assert!(!looking.may_again("web.yaml") && looking.may_again("other.yaml"));
    }
}
