//! Join tokens: `K10<sha256 of the CA>::<role>:<secret>`. They say whom to trust and what may join. The cluster keeps
//! their hashes, with their ends, among its objects.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::bundle::blocks;
use super::{PkiError, hash_of_ca, hex, random};

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

    /// The authority that the token means, where it is among these. The others came without anybody's word for them.
    pub fn authority<'a>(&self, ca_pem: &'a str) -> Option<&'a str> {
        blocks(ca_pem).find(|block| hash_of_ca(block) == self.ca_hash)
    }

    /// True where the authority is there that the token means.
    pub fn trusts(&self, ca_pem: &str) -> bool {
        self.authority(ca_pem).is_some()
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

/// A secret of 160 bits.
pub fn draw() -> Result<String, PkiError> {
    let mut bytes = [0; 20];
    random(&mut bytes)?;
    Ok(hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::{Role, TokenText, hash_of_ca};

    #[test]
    fn a_token_names_its_authority_and_its_role() {
        let text = TokenText { ca_hash: hash_of_ca("CA"), role: Role::Agent, secret: "s3cret".to_owned() };
        let read = TokenText::parse(&format!(" {}\n", text.reveal())).unwrap();
        assert!(read == text && read.trusts("CA") && !read.trusts("another"));
        assert!(!format!("{text:?}").contains("s3cret"));
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
}
