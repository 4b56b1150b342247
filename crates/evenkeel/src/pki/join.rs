//! Join tokens: `K10<sha256 of the CA>::<role>:<secret>`. They say whom to trust, what may join, and until when.
//!
//! A server keeps hashes only. A node, once it has joined, proves its name with a password of its own, so that a join
//! token cannot be used to take over a node that exists.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::files::{Access, read, write};
use super::{PkiError, hex, random, sha256_hex};

/// Tokens a server keeps; the expired go first.
const TOKENS_MAX: usize = 256;
const PREFIX: &str = "K10";

/// What may join with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Server,
    Agent,
}

/// A token as people copy it.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText {
    /// SHA-256 of the server authority's PEM, in hexadecimal.
    pub ca_hash: String,
    pub role: Role,
    pub secret: String,
}

/// A token as the server keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinToken {
    pub id: String,
    pub role: Role,
    pub secret_hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// The file of tokens. Read at each use: the command line changes it beside a running server.
#[derive(Clone, Debug)]
pub struct TokenStore {
    path: PathBuf,
}

/// The file of the nodes' own passwords, hashed.
#[derive(Clone, Debug)]
pub struct NodePasswords {
    path: PathBuf,
}

/// The hash that tokens carry.
pub fn hash_of_ca(pem: &str) -> String {
    sha256_hex(pem.as_bytes())
}

// === impl Role ===

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Server => "server",
            Role::Agent => "agent",
        }
    }
}

// === impl TokenText ===

impl TokenText {
    pub fn parse(text: &str) -> Result<TokenText, PkiError> {
        let bad = || PkiError::Token("a join token reads K10<hash>::<role>:<secret>".to_owned());
        let (ca_hash, rest) =
            text.trim().strip_prefix(PREFIX).and_then(|rest| rest.split_once("::")).ok_or_else(bad)?;
        let (role, secret) = rest.split_once(':').ok_or_else(bad)?;
        let role = [Role::Server, Role::Agent].into_iter().find(|known| known.as_str() == role).ok_or_else(bad)?;
        let whole = ca_hash.len() == 64 && ca_hash.bytes().all(|byte| byte.is_ascii_hexdigit()) && !secret.is_empty();
        if !whole {
            return Err(bad());
        }
        Ok(TokenText { ca_hash: ca_hash.to_ascii_lowercase(), role, secret: secret.to_owned() })
    }

    /// True where this is the authority that the token means.
    pub fn trusts(&self, ca_pem: &str) -> bool {
        hash_of_ca(ca_pem) == self.ca_hash
    }

    /// The whole text. Named so that no log line prints a token by accident.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}::{}:{}", self.ca_hash, self.role.as_str(), self.secret)
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenText({}::{})", &self.ca_hash[..8], self.role.as_str())
    }
}

// === impl TokenStore ===

impl TokenStore {
    pub fn new(path: PathBuf) -> TokenStore {
        TokenStore { path }
    }

    pub fn list(&self) -> Result<Vec<JoinToken>, PkiError> {
        let Some(text) = read(&self.path)? else { return Ok(Vec::new()) };
        let content = |error: serde_json::Error| PkiError::Content { path: self.path.clone(), why: error.to_string() };
        serde_json::from_str(&text).map_err(content)
    }

    /// Makes a token; `secret` is drawn where none is given.
    pub fn create(
        &self,
        role: Role,
        secret: Option<String>,
        life: Option<SignedDuration>,
        description: &str,
        ca_pem: &str,
        now: Timestamp,
    ) -> Result<(JoinToken, TokenText), PkiError> {
        let mut id = [0; 4];
        random(&mut id)?;
        let secret = match secret {
            Some(secret) => secret,
            None => draw()?,
        };
        let token = JoinToken {
            id: hex(&id),
            role,
            secret_hash: sha256_hex(secret.as_bytes()),
            expires: life.map(|life| now + life),
            description: description.to_owned(),
        };
        let mut tokens = self.list()?;
        tokens.retain(|known| known.is_valid(now) && known.secret_hash != token.secret_hash);
        if tokens.len() >= TOKENS_MAX {
            return Err(PkiError::Token(format!("there are {TOKENS_MAX} join tokens already; delete some")));
        }
        tokens.push(token.clone());
        self.save(&tokens)?;
        Ok((token, TokenText { ca_hash: hash_of_ca(ca_pem), role, secret }))
    }

    /// True where there was one of this id.
    pub fn delete(&self, id: &str) -> Result<bool, PkiError> {
        let mut tokens = self.list()?;
        let before = tokens.len();
        tokens.retain(|token| token.id != id);
        self.save(&tokens)?;
        Ok(tokens.len() < before)
    }

    /// What may join with this secret now. A server's token also lets agents join.
    pub fn role_of(&self, secret: &str, now: Timestamp) -> Result<Option<JoinToken>, PkiError> {
        let hash = sha256_hex(secret.as_bytes());
        let found = self.list()?.into_iter().find(|token| token.is_valid(now) && same(&token.secret_hash, &hash));
        Ok(found)
    }

    fn save(&self, tokens: &[JoinToken]) -> Result<(), PkiError> {
        let text = serde_json::to_string_pretty(tokens).expect("tokens are plain data");
        write(&self.path, text.as_bytes(), Access::Secret)
    }
}

impl JoinToken {
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

// === impl NodePasswords ===

impl NodePasswords {
    pub fn new(path: PathBuf) -> NodePasswords {
        NodePasswords { path }
    }

    /// True where the node has this password, which it has from its first join on.
    pub fn knows(&self, node: &str, password: &str) -> Result<Option<bool>, PkiError> {
        let hash = sha256_hex(password.as_bytes());
        Ok(self.load()?.get(node).map(|known| same(known, &hash)))
    }

    pub fn set(&self, node: &str, password: &str) -> Result<(), PkiError> {
        let mut all = self.load()?;
        all.insert(node.to_owned(), sha256_hex(password.as_bytes()));
        let text = serde_json::to_string_pretty(&all).expect("hashes are plain data");
        write(&self.path, text.as_bytes(), Access::Secret)
    }

    fn load(&self) -> Result<BTreeMap<String, String>, PkiError> {
        let Some(text) = read(&self.path)? else { return Ok(BTreeMap::new()) };
        let content = |error: serde_json::Error| PkiError::Content { path: self.path.clone(), why: error.to_string() };
        serde_json::from_str(&text).map_err(content)
    }
}

/// A secret of 160 bits.
pub fn draw() -> Result<String, PkiError> {
    let mut bytes = [0; 20];
    random(&mut bytes)?;
    Ok(hex(&bytes))
}

/// Hashes are compared in constant time, though they leak nothing that could be used.
fn same(one: &str, other: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::{NodePasswords, Role, TokenStore, TokenText};
    use jiff::{SignedDuration, Timestamp};

    #[test]
    fn a_token_names_its_authority_its_role_and_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let store = TokenStore::new(folder.path().join("tokens.json"));
        let now = Timestamp::UNIX_EPOCH;
        let hour = SignedDuration::from_hours(1);
        let (token, text) = store.create(Role::Agent, None, Some(hour), "laptop", "CA", now).unwrap();
        let text = TokenText::parse(&text.reveal()).unwrap();
        assert!(text.trusts("CA") && !text.trusts("another"));
        assert_eq!(store.role_of(&text.secret, now).unwrap().unwrap().role, Role::Agent);
        assert!(store.role_of("guess", now).unwrap().is_none());
        assert!(store.role_of(&text.secret, now + hour).unwrap().is_none(), "it expires");
        let file = std::fs::read_to_string(folder.path().join("tokens.json")).unwrap();
        assert!(!file.contains(&text.secret), "only a hash is kept");
        assert!(!format!("{text:?}").contains(&text.secret));
        assert!(store.delete(&token.id).unwrap());
        assert!(store.role_of(&text.secret, now).unwrap().is_none());
    }

    #[test]
    fn malformed_tokens_are_refused() {
        let hash = "a".repeat(64);
        for bad in
            ["", "K10", "secret", &format!("K10{hash}::owner:x"), &format!("K10{hash}::agent:"), "K10ab::agent:x"]
        {
            assert!(TokenText::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_node_keeps_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let passwords = NodePasswords::new(folder.path().join("nodes.json"));
        assert_eq!(passwords.knows("a", "p").unwrap(), None);
        passwords.set("a", "p").unwrap();
        assert_eq!(passwords.knows("a", "p").unwrap(), Some(true));
        assert_eq!(passwords.knows("a", "q").unwrap(), Some(false));
    }
}
