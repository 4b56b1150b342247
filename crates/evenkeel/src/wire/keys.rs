//! The keys of Secrets at rest as they lie on a server's disk: those that encrypt or did, and beside them one that only
//! decrypts until every server has it.

use anyhow::{Context, Result};
use store::Keyring;

use crate::layout::Layout;
use crate::pki::{self, Access};

/// The keys that encrypt at rest; made on the first start.
pub fn keyring(layout: &Layout) -> Result<Keyring> {
    if let Some(ring) = read(layout)? {
        return Ok(ring);
    }
    let ring = Keyring::generate().context("make encryption keys")?;
    write(layout, &ring)?;
    Ok(ring)
}

/// None where this machine has none.
pub fn read(layout: &Layout) -> Result<Option<Keyring>> {
    let file = |path: std::path::PathBuf| -> Result<Option<Keyring>> {
        let text = pki::read(&path)?;
        text.map(|text| Keyring::decode(&text).with_context(|| format!("read {}", path.display()))).transpose()
    };
    let Some(ring) = file(layout.encryption_keys())? else { return Ok(None) };
    Ok(Some(match file(layout.encryption_next())? {
        Some(next) => ring.opening(&next).context("server/cred/encryption.next contradicts encryption.keys")?,
        None => ring,
    }))
}

/// Makes the files what the ring says. Killed in between, a server finds every key in one of them.
pub fn write(layout: &Layout, ring: &Keyring) -> Result<()> {
    let (next, path) = (ring.waiting(), layout.encryption_next());
    if !next.ids().is_empty() {
        put(&path, &next)?;
    }
    put(&layout.encryption_keys(), &ring.in_use())?;
    if next.ids().is_empty() && path.exists() {
        std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}

fn put(path: &std::path::Path, ring: &Keyring) -> Result<()> {
    let text = ring.encode();
    if pki::read(path)?.as_deref() != Some(text.as_str()) {
        pki::write(path, text.as_bytes(), Access::Secret)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{keyring, read, write};
    use crate::layout::Layout;

    #[test]
    fn a_key_that_waits_is_read_and_does_not_encrypt() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        assert!(read(&layout).unwrap().is_none());
        let old = keyring(&layout).unwrap();
        let next = old.rotated().unwrap().sealing_only();
        for (ring, wanted) in [
            (old.opening(&next).unwrap(), (Some(1), vec![1, 2], true)),
            (next.opening(&old).unwrap(), (Some(2), vec![1, 2], false)),
            (next.clone(), (Some(2), vec![2], false)),
        ] {
            write(&layout, &ring).unwrap();
            let found = keyring(&layout).unwrap();
            assert_eq!((found.seals_with(), found.ids(), layout.encryption_next().exists()), wanted);
        }
    }

    #[test]
    fn a_server_that_was_killed_between_two_files_has_every_key() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let old = keyring(&layout).unwrap();
        let next = old.rotated().unwrap().sealing_only();
        write(&layout, &old.opening(&next).unwrap()).unwrap();
        let both = next.opening(&old).unwrap();
        std::fs::write(layout.encryption_keys(), both.encode()).unwrap();
        assert_eq!(keyring(&layout).unwrap().encode(), both.encode(), "the next key lies there twice");
        assert_eq!(keyring(&layout).unwrap().seals_with(), Some(2));
    }
}
