//! What is recorded of a change of the key, and which keys a server has in each phase of it.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::Keyring;

use crate::pki::{Opener, Phase, open_with, seal_to};
use crate::wire::rotation::record::Record;

/// A new key for Secrets at rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rekey {
    /// The new key's id.
    pub key: u32,
    /// `Distribute`: all can open with it. `Issue`: all seal with it. `Finish`: everything is sealed with it, the keys
    /// before go.
    pub phase: Phase,
    /// The key itself, sealed to the pair that servers share and that is in no state; empty once all have it.
    sealed: String,
    pub started: Timestamp,
    /// When this phase began.
    pub since: Timestamp,
    pub by: String,
    /// Values that were written anew.
    #[serde(default)]
    pub rewritten: usize,
    /// It is over because somebody took it back, before anything was encrypted with the key.
    #[serde(default)]
    pub withdrawn: bool,
}

impl Record for Rekey {
    const NAME: &'static str = "evenkeel-encryption";
    const KIND: &'static str = "encryption";
}

// === impl Rekey ===

impl Rekey {
    /// Draws a key that has the id of none before, those that were taken back included. `servers` opens for every server
    /// and for nobody else.
    pub fn draw(have: &Keyring, last: Option<&Rekey>, servers: &Opener, by: &str, now: Timestamp) -> Result<Rekey> {
        let given = last.map(|last| last.key).unwrap_or_default();
        let new = have.rotated_beyond(given).context("draw a key")?.sealing_only();
        let key = new.seals_with().context("a ring with a key seals")?;
        let sealed = STANDARD.encode(seal_to(std::slice::from_ref(servers), new.encode().as_bytes())?);
        let by = by.to_owned();
        let phase = Phase::Distribute;
        Ok(Rekey { key, phase, sealed, started: now, since: now, by, rewritten: 0, withdrawn: false })
    }

    pub fn is_open(&self) -> bool {
        self.phase != Phase::Done
    }

    /// What it is called as work on a layer.
    pub fn work(&self) -> String {
        format!("secrets-encrypt {}", self.key)
    }

    /// The same in its next phase. What is over keeps no key.
    #[must_use]
    pub fn advanced(mut self, phase: Phase, now: Timestamp) -> Rekey {
        (self.phase, self.since) = (phase, now);
        if phase == Phase::Done {
            self.sealed.clear();
        }
        self
    }

    /// Taken back, where that is possible still: nobody encrypts with the key.
    pub fn withdrawn(self, now: Timestamp) -> Option<Rekey> {
        let early = self.phase == Phase::Distribute;
        early.then(|| Rekey { withdrawn: true, ..self.advanced(Phase::Done, now) })
    }

    /// The keys of a server in this phase, out of those that it has. The same again changes nothing.
    pub fn ring(&self, have: &Keyring, secret: impl FnOnce() -> Result<Opener>) -> Result<Keyring> {
        if self.phase == Phase::Done {
            let has = have.seals_with() == Some(self.key);
            return Ok(match (self.withdrawn, has) {
                (true, _) => have.in_use(),
                (false, true) => have.sealing_only(),
                (false, false) => have.clone(),
            });
        }
        let new = self.open(&secret()?)?;
        Ok(match self.phase {
            Phase::Distribute => have.opening(&new)?,
            Phase::Issue => new.opening(have)?,
            Phase::Finish | Phase::Done => new,
        })
    }

    fn open(&self, secret: &Opener) -> Result<Keyring> {
        let sealed = STANDARD.decode(&self.sealed).context("the recorded key is damaged")?;
        let text = open_with(secret, &sealed).context("this server's proof key does not open the recorded key")?;
        let ring = Keyring::decode(std::str::from_utf8(&text).context("the recorded key is damaged")?)?;
        ensure!(ring.ids() == [self.key], "the recorded key is not number {}", self.key);
        Ok(ring)
    }

    /// What a server says that has gone along with this phase.
    pub fn told(&self) -> String {
        format!("{} {:?}", self.key, self.phase)
    }

    /// How far a server has come by what it says.
    pub fn reached(&self, told: &str) -> Option<Phase> {
        let phases = [Phase::Done, Phase::Finish, Phase::Issue, Phase::Distribute];
        phases.into_iter().find(|phase| Rekey { phase: *phase, ..self.clone() }.told() == told)
    }
}

#[cfg(test)]
mod tests {
    use super::Rekey;
    use crate::pki::{Opener, Phase, recipient};
    use jiff::Timestamp;
    use store::Keyring;

    const PHASES: [Phase; 4] = [Phase::Distribute, Phase::Issue, Phase::Finish, Phase::Done];

    fn draw(have: &Keyring, last: Option<&Rekey>, public: &str) -> Rekey {
        Rekey::draw(have, last, &Opener::recipient(public).unwrap(), "anna", Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn what_is_taken_back_leaves_nothing_and_its_id_is_not_used_again() {
        let (public, secret) = recipient().unwrap();
        let opener = || Ok(Opener::secret(&secret).unwrap());
        let (old, now) = (Keyring::generate().unwrap(), Timestamp::UNIX_EPOCH);
        let drawn = draw(&old, None, &public);
        let both = drawn.ring(&old, opener).unwrap();
        let back = drawn.clone().withdrawn(now).unwrap();
        assert_eq!(back.ring(&both, opener).unwrap().encode(), old.encode());
        assert!(drawn.advanced(Phase::Issue, now).withdrawn(now).is_none(), "others encrypt with it");
        // One was off meanwhile, and has the key that was taken back still.
        let next = draw(&old, Some(&back), &public);
        assert_eq!((next.key, next.ring(&both, opener).unwrap().ids()), (3, vec![1, 2, 3]));
        let last = next.advanced(Phase::Finish, now).ring(&both, opener).unwrap();
        assert_eq!(last.ids(), [3]);
    }

    #[test]
    fn every_server_opens_with_it_before_one_seals_with_it() {
        let (public, secret) = recipient().unwrap();
        let opener = || Ok(Opener::secret(&secret).unwrap());
        let old = Keyring::generate().unwrap();
        let drawn = draw(&old, None, &public);
        let mut ring = old;
        let wanted = [(Some(1), vec![1, 2]), (Some(2), vec![1, 2]), (Some(2), vec![2]), (Some(2), vec![2])];
        for (phase, wanted) in PHASES.into_iter().zip(wanted) {
            let rekey = drawn.clone().advanced(phase, Timestamp::UNIX_EPOCH);
            ring = rekey.ring(&ring, opener).unwrap();
            assert_eq!((ring.seals_with(), ring.ids()), wanted, "{phase:?}");
            assert_eq!(rekey.ring(&ring, opener).unwrap().encode(), ring.encode(), "twice is once");
            assert_eq!(rekey.reached(&rekey.told()), Some(phase));
        }
        assert_eq!(drawn.reached("1 Issue"), None, "of another key");
    }

    #[test]
    fn who_reads_the_record_alone_does_not_have_the_key() {
        let (public, _) = recipient().unwrap();
        let (_, other) = recipient().unwrap();
        let old = Keyring::generate().unwrap();
        let drawn = draw(&old, None, &public);
        let failed = drawn.ring(&old, || Ok(Opener::secret(&other).unwrap())).unwrap_err().to_string();
        assert!(failed.contains("does not open"), "{failed}");
        let over = drawn.advanced(Phase::Done, Timestamp::UNIX_EPOCH);
        let missed = over.ring(&old, || unreachable!("there is nothing to open")).unwrap();
        assert_eq!(missed.ids(), [1], "nobody takes a key away that nothing has replaced");
    }
}
