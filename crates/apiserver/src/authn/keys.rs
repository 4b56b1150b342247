//! Service-account keys: one signs, all of them verify, and their public halves are published as a JWKS.

use std::sync::Arc;

use api::Tree;
use arc_swap::ArcSwap;
use jsonwebtoken::errors::Error as JwtError;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::json;

/// The list of keys. The first one signs; the others stay valid until their tokens have expired.
pub struct TokenKeys {
    current: ArcSwap<Keys>,
}

struct Keys {
    signer: EncodingKey,
    keys: Vec<Key>,
}

struct Key {
    id: String,
    algorithm: Algorithm,
    verifier: DecodingKey,
    public: Jwk,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("no service-account key")]
    Empty,
    #[error("service-account key {index} is neither an RSA nor a P-256 private key in PEM")]
    Unusable {
        index: usize,
        #[source]
        cause: JwtError,
    },
}

// === impl TokenKeys ===

impl TokenKeys {
    /// From private keys in PEM (PKCS#8), newest first.
    pub fn from_pems<P: AsRef<[u8]>>(pems: &[P]) -> Result<TokenKeys, KeyError> {
        Ok(TokenKeys { current: ArcSwap::from_pointee(Keys::from_pems(pems)?) })
    }

    /// Other keys from now on, for new tokens and for those that are shown.
    pub fn replace<P: AsRef<[u8]>>(&self, pems: &[P]) -> Result<(), KeyError> {
        self.current.store(Arc::new(Keys::from_pems(pems)?));
        Ok(())
    }

    /// Signs claims with the newest key.
    pub fn sign(&self, claims: &Tree) -> Result<String, JwtError> {
        let current = self.current.load();
        let newest = &current.keys[0];
        let mut header = Header::new(newest.algorithm);
        header.kid = Some(newest.id.clone());
        header.typ = None;
        jsonwebtoken::encode(&header, claims, &current.signer)
    }

    /// Claims of a token that one of the keys signed. Checks the signature only: time and audience are the caller's.
    pub fn verify(&self, token: &str) -> Option<Tree> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        let named = |key: &&Key| header.kid.as_ref().is_none_or(|id| *id == key.id) && key.algorithm == header.alg;
        self.current.load().keys.iter().filter(named).find_map(|key| {
            let mut rules = Validation::new(key.algorithm);
            rules.validate_exp = false;
            rules.validate_nbf = false;
            rules.validate_aud = false;
            rules.required_spec_claims.clear();
            jsonwebtoken::decode::<Tree>(token, &key.verifier, &rules).ok().map(|data| data.claims)
        })
    }

    /// The document of `/openid/v1/jwks`.
    pub fn jwks(&self) -> Tree {
        let current = self.current.load();
        let keys = current.keys.iter().map(|key| {
            let mut entry = json!(key.public);
            entry["use"] = json!("sig");
            entry["kid"] = json!(key.id);
            entry
        });
        json!({ "keys": keys.collect::<Vec<_>>() })
    }

    /// `id_token_signing_alg_values_supported`.
    pub fn algorithms(&self) -> Vec<String> {
        let current = self.current.load();
        let mut names: Vec<String> = current.keys.iter().map(|key| format!("{:?}", key.algorithm)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

// === impl Keys ===

impl Keys {
    fn from_pems<P: AsRef<[u8]>>(pems: &[P]) -> Result<Keys, KeyError> {
        let mut signer = None;
        let mut keys = Vec::new();
        for (index, pem) in pems.iter().enumerate() {
            let (private, key) = read(pem.as_ref()).map_err(|cause| KeyError::Unusable { index, cause })?;
            signer.get_or_insert(private);
            keys.push(key);
        }
        Ok(Keys { signer: signer.ok_or(KeyError::Empty)?, keys })
    }
}

fn read(pem: &[u8]) -> Result<(EncodingKey, Key), JwtError> {
    let (private, algorithm) = match EncodingKey::from_ec_pem(pem) {
        Ok(key) => (key, Algorithm::ES256),
        Err(_) => (EncodingKey::from_rsa_pem(pem)?, Algorithm::RS256),
    };
    let public = Jwk::from_encoding_key(&private, algorithm)?;
    let id = public.thumbprint(ThumbprintHash::SHA256)?;
    let verifier = DecodingKey::from_jwk(&public)?;
    Ok((private, Key { id, algorithm, verifier, public }))
}
