//! Continue tokens: the revision of the first page and the key to go on after.

use api::{Key, Reason, Status};
use base::Revision;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// `None` in a token that goes on at the newest state, without consistency with the pages before.
    pub revision: Option<Revision>,
    pub after: Key,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    v: String,
    rv: i64,
    start: String,
}

impl Token {
    pub fn encode(&self) -> String {
        let rv = self.revision.map_or(-1, |revision| i64::try_from(revision.0).unwrap_or(i64::MAX));
        let start = format!("{}/{}\0", self.after.namespace, self.after.name);
        let wire = Wire { v: "meta.k8s.io/v1".into(), rv, start };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).expect("strings and a number serialise"))
    }

    pub fn decode(text: &str) -> Result<Token, Status> {
        let bad = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| bad("illegal base64 data"))?;
        let wire: Wire = serde_json::from_slice(&bytes).map_err(|_| bad("not a continue token"))?;
        if wire.v != "meta.k8s.io/v1" {
            return Err(bad("server does not recognize this encoded version"));
        }
        let revision = match wire.rv {
            -1 => None,
            rv => Some(Revision(
                u64::try_from(rv)
                    .ok()
                    .filter(|rv| *rv > 0)
                    .ok_or_else(|| bad("incorrect encoded start resourceVersion"))?,
            )),
        };
        let start = wire.start.strip_suffix('\0').unwrap_or(&wire.start);
        let (namespace, name) = start.split_once('/').ok_or_else(|| bad("encoded start key empty or invalid"))?;
        Ok(Token { revision, after: Key::new(namespace, name) })
    }
}

/// 410 for a list whose revision is compacted; carries a token to go on at the newest state.
pub(super) fn expired(token: &Token) -> Status {
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a new \
                   list without the continue parameter, or use the continue token in this response to retrieve the \
                   remainder of the results. Continuing with the provided token results in an inconsistent list - \
                   objects that were created, modified, or deleted between the time the first chunk was returned and \
                   now may show up in the list.";
    let _ = token;
    Status::new(Reason::Expired, message)
}

#[cfg(test)]
mod tests {
    use super::Token;
    use api::Key;
    use base::Revision;

    #[test]
    fn tokens_round_trip_and_garbage_is_refused() {
        let token = Token { revision: Some(Revision(7)), after: Key::new("a", "b:c") };
        assert_eq!(Token::decode(&token.encode()).unwrap(), token);
        let token = Token { revision: None, after: Key::cluster("b") };
        assert_eq!(Token::decode(&token.encode()).unwrap(), token);
        for bad in ["x", "", "e30", "eyJ2IjoieCJ9", "%%%"] {
            assert_eq!(Token::decode(bad).unwrap_err().code, 400, "{bad}");
        }
    }
}
