//! What a restore brings back, what comes next, and what does not come back.

use anyhow::Result;
use serde::Serialize;

use crate::layout::Layout;
use crate::wire::backup::bundle::Manifest;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// Which cluster it is.
    cluster: String,
    restored_to: String,
    objects: u64,
    /// The next write comes after this; none where nothing was restored yet.
    revision: Option<u64>,
    start_with: String,
    token: String,
    nodes: Vec<String>,
    not_restored: Vec<String>,
    missing: Vec<String>,
}

// === impl Told ===

impl Told {
    /// What would be done.
    pub fn of(manifest: &Manifest, layout: &Layout) -> Told {
        let flags = manifest.settings.as_ref().map(|flags| flags.words().join(" ")).unwrap_or_default();
        let start = format!("evenkeel server --data-dir {} {flags}", layout.data.display());
        let volumes = manifest.volumes.iter().map(|volume| volume.sentence());
        Told {
            cluster: manifest.cluster.chars().take(12).collect(),
            restored_to: manifest.created.clone(),
            objects: manifest.objects,
            revision: None,
            start_with: start.trim_end().to_owned(),
            token: layout.token().display().to_string(),
            nodes: manifest.nodes.clone(),
            not_restored: manifest.not_included.iter().cloned().chain(volumes).collect(),
            missing: manifest.missing.clone(),
        }
    }

    /// It was done.
    pub fn done(self, summary: store::Summary) -> Told {
        Told { objects: summary.records, revision: Some(summary.revision.0), ..self }
    }

    pub fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string_pretty(self)?);
        } else {
            self.lines().iter().for_each(|line| println!("{line}"));
        }
        Ok(())
    }

    fn lines(&self) -> Vec<String> {
        let Told { cluster, restored_to, objects, start_with, .. } = self;
        let mut lines = match self.revision {
            Some(revision) => vec![
                format!("Restored to {restored_to}; changes after that are gone, and every watcher reads anew."),
                format!("restored {objects} objects; the next write comes after revision {revision}"),
            ],
            None => vec![
                format!("Cluster {cluster}: would be restored to {restored_to}; changes after that would be gone."),
                format!(
                    "would restore {objects} objects; the keys open, and the folder is empty. Nothing was written."
                ),
            ],
        };
        lines.push(format!("start with: {start_with}"));
        if !self.nodes.is_empty() {
            let nodes = self.nodes.join(", ");
            lines.push(format!("nodes of then: {nodes}; agents rejoin by themselves"));
            let token = &self.token;
            lines.push(format!(
                "other servers join it by their one command, with the token in {token}; old disks: `evenkeel leave --local` first"
            ));
            lines.push("nodes that will never come back: evenkeel restore --prune, once the server runs".to_owned());
        }
        lines.extend(self.not_restored.iter().map(|what| format!("not restored: {what}")));
        lines.extend(self.missing.iter().map(|missing| format!("missing in the bundle: {missing}")));
        lines
    }
}
