//! A bundle out of a snapshot and this machine's keys.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use base::Clock;
use jiff::Timestamp;

use super::super::agreed::ClusterFlags;
use super::bundle::{self, FORMAT, Manifest};
use super::contents::{self, INCLUDED, NOT_INCLUDED, SURVEYED};
use super::kit;
use crate::layout::Layout;
use crate::pki::{self, Lineage, Opener};
use crate::wire::{SystemClock, keys};

/// Who can open the keys, and how the manifest names each.
#[derive(Clone, Default)]
pub struct Openers {
    openers: Vec<Opener>,
    names: Vec<String>,
}

/// A bundle that is ready to be stored.
pub struct Made {
    pub manifest: Manifest,
    pub at: Timestamp,
    pub bytes: Vec<u8>,
}

// === impl Openers ===

impl Openers {
    pub fn recipients(list: &[String]) -> Result<Openers> {
        let mut openers = Openers::default();
        for text in list {
            openers.add(Opener::recipient(text)?, text.clone());
        }
        Ok(openers)
    }

    pub fn add(&mut self, opener: Opener, name: String) {
        if !self.openers.contains(&opener) {
            self.openers.push(opener);
            self.names.push(name);
        }
    }

    pub fn list(&self) -> Vec<Opener> {
        self.openers.clone()
    }

    /// With those that every bundle of this machine has.
    pub fn with_standing(mut self, layout: &Layout) -> Result<Openers> {
        let standing = kit::standing(layout)?;
        self.add(Opener::recipient(&standing.kit)?, format!("the recovery kit, {}", standing.kit));
        self.add(Opener::recipient(&standing.proof)?, "this cluster itself, for proofs".to_owned());
        Ok(self)
    }
}

/// Seals a snapshot and the key files of this machine into one bundle.
pub fn make(layout: &Layout, openers: &Openers, snapshot: &[u8]) -> Result<Made> {
    let survey = store::survey(snapshot, &SURVEYED).context("read the snapshot back")?;
    let ca = pki::read(&layout.server_tls().join("server-ca.crt"))?.context("this machine has no authority")?;
    let files = contents::key_files(layout)?;
    // A bundle without a key at all says itself what it lacks; one with other keys would not.
    if let Some(ring) = keys::read(layout)? {
        let lacks = survey.keys.iter().find(|id| !ring.ids().contains(*id));
        ensure!(lacks.is_none(), "the key of Secrets at rest changed while the snapshot was taken; try again");
    }
    let at = SystemClock.now();
    let counts: BTreeMap<String, u64> = survey.counts.iter().map(|(kind, count)| (kind.to_string(), *count)).collect();
    let manifest = Manifest {
        format: FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        created: at.to_string(),
        cluster: Lineage::of(&layout.server_tls())?.cluster(&ca),
        revision: survey.revision.0,
        objects: counts.values().sum(),
        counts,
        snapshot_format: store::SNAPSHOT_FORMAT,
        kubernetes: crate::KUBERNETES_VERSION.to_owned(),
        settings: ClusterFlags::noted(layout)?,
        nodes: contents::nodes(&survey),
        members: BTreeMap::new(),
        opens_with: openers.names.clone(),
        included: INCLUDED.map(str::to_owned).to_vec(),
        keys: files.iter().map(|file| file.display().to_string()).collect(),
        not_included: NOT_INCLUDED.map(str::to_owned).to_vec(),
        volumes: contents::volumes(&survey),
        missing: contents::missing(&files),
    };
    let (manifest, bytes) = bundle::seal(manifest, &openers.openers, &layout.data, &files, snapshot)?;
    Ok(Made { manifest, at, bytes })
}
