//! A release's manifest: who made a program says so with a signature, and people pin the key they trust.
//!
//! ```json
//! {"version": "0.2.0", "program": "<sha256>", "signature": "<base64 of Ed25519>"}
//! ```
//! Signed is the text `evenkeel-release\n<version>\n<sha256>\n`. The key file holds the public key in base64.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keeper::Digest;
use serde::Deserialize;

#[derive(Deserialize)]
struct Manifest {
    version: String,
    program: Digest,
    signature: String,
}

/// Checks that the program is the one that the manifest names, and that the key's owner says so.
pub fn check(program: &Path, manifest: &Path, key: &Path) -> Result<()> {
    let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    let named: Manifest =
        serde_json::from_str(&read(manifest)?).with_context(|| format!("read {}", manifest.display()))?;
    let key = STANDARD.decode(read(key)?.trim()).with_context(|| format!("read the key in {}", key.display()))?;
    let signature = STANDARD.decode(&named.signature).context("read the signature")?;
    let signed = signed(&named.version, &named.program);
    let verified = UnparsedPublicKey::new(&ED25519, key).verify(signed.as_bytes(), &signature);
    ensure!(verified.is_ok(), "{} is not signed by the owner of this key", manifest.display());
    let file = fs::File::open(program).with_context(|| format!("open {}", program.display()))?;
    let found = Digest::of_reader(file).with_context(|| format!("read {}", program.display()))?;
    ensure!(found == named.program, "{} is not the program that {} names", program.display(), manifest.display());
    Ok(())
}

fn signed(version: &str, program: &Digest) -> String {
    format!("evenkeel-release\n{version}\n{program}\n")
}

#[cfg(test)]
mod tests {
    use super::{check, signed};
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use keeper::Digest;
    use serde_json::json;

    #[test]
    fn only_the_named_program_under_the_pinned_key_is_good() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
        let (owner, other) = (Ed25519KeyPair::generate().unwrap(), Ed25519KeyPair::generate().unwrap());
        let digest = Digest::of_bytes(b"program");
        let signature = STANDARD.encode(owner.sign(signed("0.2.0", &digest).as_bytes()));
        write("program", "program");
        write("other", "another");
        write("manifest", &json!({"version": "0.2.0", "program": digest, "signature": signature}).to_string());
        write("newer", &json!({"version": "0.3.0", "program": digest, "signature": signature}).to_string());
        write("key", &STANDARD.encode(owner.public_key().as_ref()));
        write("foreign", &STANDARD.encode(other.public_key().as_ref()));
        let said = |program: &str, manifest: &str, key: &str| {
            check(&path(program), &path(manifest), &path(key)).map_err(|error| error.to_string())
        };
        assert_eq!(said("program", "manifest", "key"), Ok(()));
        assert!(said("other", "manifest", "key").unwrap_err().contains("is not the program"));
        assert!(said("program", "newer", "key").unwrap_err().contains("is not signed"));
        assert!(said("program", "manifest", "foreign").unwrap_err().contains("is not signed"));
    }
}
