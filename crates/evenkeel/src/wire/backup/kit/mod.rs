//! Who can open bundles without being named: the recovery kit, for people, and the cluster itself, for proofs.
//!
//! The kit is a pair drawn at the first start. Its public half stays; its secret half is written once, to be carried away,
//! and sealed copies of it go to every server ([`copies`]). The proof key is a second pair whose secret stays among the
//! credentials: what it opens, the server holds anyway.

pub mod copies;

use anyhow::{Context, Result, ensure};
use base::Clock;

use crate::layout::Layout;
use crate::pki::{self, Access, Opener};
use crate::wire::SystemClock;

/// The public halves.
pub struct Standing {
    pub kit: String,
    pub proof: String,
}

/// The recipients that every bundle has; drawn where there are none.
pub fn standing(layout: &Layout) -> Result<Standing> {
    let proof = match pki::read(&layout.proof_key())? {
        Some(pair) => word(&pair, "evk-recipient-").context("server/cred/proof.key names no recipient")?,
        None => {
            let (public, secret) = pki::recipient()?;
            pki::write(&layout.proof_key(), format!("{public}\n{secret}\n").as_bytes(), Access::Secret)?;
            public
        }
    };
    let kit = match pki::read(&layout.kit_recipient())? {
        Some(kit) => kit.trim().to_owned(),
        None => draw(layout)?,
    };
    Ok(Standing { kit, proof })
}

/// What opens for every server of this cluster, and for nobody else.
pub fn proof_secret(layout: &Layout) -> Result<String> {
    pki::read(&layout.proof_key())?.context("this machine has no proof key: no server was started here")
}

/// A new kit. Bundles sealed before open with the one before.
pub fn draw(layout: &Layout) -> Result<String> {
    let (public, secret) = pki::recipient()?;
    // The secret first: a crash between the two leaves a kit that nothing is sealed to, and the next start draws another.
    pki::write(&layout.recovery_kit(), text(&public, &secret).as_bytes(), Access::Secret)?;
    pki::write(&layout.kit_recipient(), format!("{public}\n").as_bytes(), Access::Public)?;
    copy(layout)?;
    Ok(public)
}

/// Has a sealed copy of the kit that was drawn here lie beside the bundles, from where the other servers fetch it.
pub fn copy(layout: &Layout) -> Result<()> {
    match (in_the_clear(layout)?, pki::read(&layout.kit_recipient())?) {
        (Some(text), Some(public)) => copies::keep(layout, public.trim(), &text, SystemClock.now()),
        _ => Ok(()),
    }
}

/// Goes along with the newest kit, whichever server drew it: this server's bundles are sealed to that one from then on.
pub fn adopt(layout: &Layout) -> Result<bool> {
    let Some(newest) = copies::newest(layout)? else { return Ok(false) };
    let own = pki::read(&layout.kit_recipient())?;
    if own.is_some_and(|own| own.trim() == newest) {
        return Ok(false);
    }
    pki::write(&layout.kit_recipient(), format!("{newest}\n").as_bytes(), Access::Public)?;
    Ok(true)
}

/// The kit that bundles are sealed to now: as it was drawn here, or out of a sealed copy.
pub fn find(layout: &Layout) -> Result<Option<String>> {
    if let Some(text) = in_the_clear(layout)? {
        return Ok(Some(text));
    }
    let public = pki::read(&layout.kit_recipient())?.context("this machine has no kit: no server was started here")?;
    copies::open(layout, public.trim())
}

/// Where this server drew it, and nobody carried it away yet.
fn in_the_clear(layout: &Layout) -> Result<Option<String>> {
    let (text, public) = (pki::read(&layout.recovery_kit())?, pki::read(&layout.kit_recipient())?);
    Ok(text.filter(|text| public.is_some_and(|public| word(text, "evk-recipient-").as_deref() == Some(public.trim()))))
}

/// Whether a text holds the secret of this cluster's kit.
pub fn check(layout: &Layout, kept: &str) -> Result<()> {
    let public = pki::read(&layout.kit_recipient())?.context("this machine has no kit: no server was started here")?;
    let probe = pki::seal_to(&[Opener::recipient(&public)?], b"kit")?;
    let opens = pki::open_with(&Opener::secret(kept)?, &probe).is_ok();
    ensure!(opens, "this is the kit of another cluster, or one that was replaced");
    Ok(())
}

fn text(public: &str, secret: &str) -> String {
    format!(
        "Evenkeel recovery kit\n\n\
         recipient: {public}\nsecret:    {secret}\n\n\
         With this secret and any backup bundle the whole cluster comes back on empty machines:\n\n    \
         evenkeel restore BUNDLE --secret-file THIS_FILE\n\n\
         Print it or put it into a safe that does not need the cluster, check the copy with\n\
         `evenkeel backup kit --check COPY`, and then delete this file from the machine.\n\
         Whoever has it can read every Secret of every bundle. Was it seen? `evenkeel backup kit --rotate`.\n"
    )
}

fn word(text: &str, start: &str) -> Option<String> {
    text.split_whitespace().find(|word| word.starts_with(start)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{adopt, check, draw, find, standing};
    use crate::layout::Layout;
    use crate::pki::{Opener, open_with, seal_to};

    #[test]
    fn both_pairs_are_drawn_once_and_fit() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let first = standing(&layout).unwrap();
        let kit = std::fs::read_to_string(layout.recovery_kit()).unwrap();
        let again = standing(&layout).unwrap();
        assert_eq!((&first.kit, &first.proof), (&again.kit, &again.proof));
        check(&layout, &kit).unwrap();
        let openers = [&first.kit, &first.proof].map(|text| Opener::recipient(text).unwrap());
        let sealed = seal_to(&openers, b"keys").unwrap();
        let proof = std::fs::read_to_string(layout.proof_key()).unwrap();
        assert_eq!(open_with(&Opener::secret(&proof).unwrap(), &sealed).unwrap(), b"keys");
        assert_eq!(open_with(&Opener::secret(&kit).unwrap(), &sealed).unwrap(), b"keys");
        draw(&layout).unwrap();
        assert!(check(&layout, &kit).is_err(), "a replaced kit passes");
    }

    /// The first server is gone, and the kit was not carried away.
    #[test]
    fn every_server_gives_the_kit_and_goes_along_with_a_newer_one() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (first, second) = (Layout::new(one.path()), Layout::new(other.path()));
        standing(&first).unwrap();
        let kit = find(&first).unwrap().unwrap();
        std::fs::create_dir_all(second.server().join("cred")).unwrap();
        for path in ["server/cred/kit.recipient", "server/cred/proof.key"] {
            std::fs::copy(one.path().join(path), other.path().join(path)).unwrap();
        }
        assert_eq!(find(&second).unwrap(), None, "no copy came yet");
        let fetch = || {
            std::fs::create_dir_all(second.backups()).unwrap();
            for entry in std::fs::read_dir(first.backups()).unwrap() {
                let path = entry.unwrap().path();
                std::fs::copy(&path, second.backups().join(path.file_name().unwrap())).unwrap();
            }
            adopt(&second).unwrap()
        };
        assert!(!fetch(), "it is the same kit");
        assert_eq!(find(&second).unwrap(), Some(kit.clone()));
        std::fs::remove_file(first.recovery_kit()).unwrap();
        assert_eq!(find(&first).unwrap(), Some(kit), "carried away, and still there for who asks a server");
        draw(&first).unwrap();
        assert!(fetch() && find(&second).unwrap() == find(&first).unwrap());
        // What somebody else put there is nobody's kit.
        let forged = tempfile::tempdir().unwrap();
        standing(&Layout::new(forged.path())).unwrap();
        for entry in std::fs::read_dir(Layout::new(forged.path()).backups()).unwrap() {
            std::fs::copy(entry.unwrap().path(), second.backups().join("evenkeel-kit-99990101t000000z.sealed"))
                .unwrap();
        }
        assert!(!adopt(&second).unwrap());
    }
}
