//! What the cluster knows of its machines and of the tokens they join with: Secrets of `kube-system`, written through the
//! pipeline. Every server reads the same ones, and a backup holds them.

use api::{Gvr, Key, Object, Tree};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use view::{Client, ClientError, ListOptions, Watched};

use super::judge::{Machine, Offered};
use crate::pki::{PkiError, Role, draw, random, sha256_hex};

/// Tokens that a cluster keeps; those whose end has come go by themselves.
const TOKENS_MAX: usize = 256;
/// A name becomes part of a Secret's, which has 253 characters at most.
pub const NODE_NAME_BYTES_MAX: usize = 253 - MACHINE_PREFIX.len();

pub const NAMESPACE: &str = "kube-system";
const MACHINE_PREFIX: &str = "machine.";
const TOKEN_PREFIX: &str = "join-token-";
pub const LABEL: &str = "evenkeel.io/record";
const MACHINE: &str = "machine";
const TOKEN: &str = "join-token";
/// The entry of the Secret that holds the record.
const DATA: &str = "record";

/// A join token as the cluster keeps it.
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
    /// The only name that may join with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// A machine with the version of its record that was read.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub machine: Machine,
    version: String,
}

/// The records, under the identity of a client.
#[derive(Clone, Debug)]
pub struct Records {
    client: Client,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the cluster's records of machines and join tokens")]
    Api(#[from] ClientError),
    #[error("Secret kube-system/{name} is no record of ours any more: {why}")]
    Content { name: String, why: String },
    #[error("there are {TOKENS_MAX} join tokens already; delete some")]
    TooMany,
    #[error(transparent)]
    Pki(#[from] PkiError),
}

// === impl Records ===

impl Records {
    pub fn new(client: Client) -> Records {
        Records { client }
    }

    pub async fn machines(&self) -> Result<Vec<Recorded>, RecordError> {
        let found = self.list(MACHINE).await?;
        found
            .iter()
            .map(|object| Ok(Recorded { machine: decode(object)?, version: object.revision.to_string() }))
            .collect()
    }

    /// Writes what is known of a machine, unless somebody else did meanwhile, which is a conflict.
    pub async fn record(&self, machine: &Machine, before: Option<&Recorded>) -> Result<(), RecordError> {
        let name = format!("{MACHINE_PREFIX}{}", machine.node);
        let mut secret = secret(&name, MACHINE, machine);
        match before {
            None => self.client.create(&secrets(), NAMESPACE, &secret).await?,
            Some(before) => {
                secret["metadata"]["resourceVersion"] = json!(before.version);
                self.client.update(&secrets(), &Key::new(NAMESPACE, &name), None, &secret).await?
            }
        };
        Ok(())
    }

    /// Every token; those whose end has come are removed.
    pub async fn tokens(&self, now: Timestamp) -> Result<Vec<JoinToken>, RecordError> {
        let mut tokens = Vec::new();
        for object in self.list(TOKEN).await? {
            let token: JoinToken = decode(&object)?;
            if token.is_valid(now) {
                tokens.push(token);
            } else {
                self.delete(&token.id).await?;
            }
        }
        Ok(tokens)
    }

    /// What may join with a secret under this name.
    pub async fn offered(&self, secret: Option<&str>, node: &str, now: Timestamp) -> Result<Offered, RecordError> {
        let Some(secret) = secret else { return Ok(Offered::Nothing) };
        let hash = sha256_hex(secret.as_bytes());
        let found = self.tokens(now).await?.into_iter().find(|token| same(&token.secret_hash, &hash));
        let found = found.filter(|token| token.node.as_deref().is_none_or(|only| only == node));
        Ok(found.map_or(Offered::Unknown, |token| Offered::Valid(token.role)))
    }

    /// Makes a token; answers its secret, which is drawn where none is given.
    pub async fn create(
        &self,
        role: Role,
        secret: Option<String>,
        expires: Option<Timestamp>,
        description: &str,
        now: Timestamp,
    ) -> Result<String, RecordError> {
        let description = description.to_owned();
        self.keep(JoinToken { expires, description, ..JoinToken::blank(role)? }, secret, now).await
    }

    /// Makes a token that only a machine of this name can join with, once the name is free.
    pub async fn create_for(
        &self,
        node: &str,
        role: Role,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<String, RecordError> {
        let (expires, description) = (Some(expires), format!("replaces {node}"));
        let token = JoinToken { expires, description, node: Some(node.to_owned()), ..JoinToken::blank(role)? };
        self.keep(token, None, now).await
    }

    async fn keep(&self, token: JoinToken, secret: Option<String>, now: Timestamp) -> Result<String, RecordError> {
        if self.tokens(now).await?.len() >= TOKENS_MAX {
            return Err(RecordError::TooMany);
        }
        let secret = secret.map_or_else(draw, Ok)?;
        let token = JoinToken { secret_hash: sha256_hex(secret.as_bytes()), ..token };
        let name = format!("{TOKEN_PREFIX}{}", token.id);
        self.client.create(&secrets(), NAMESPACE, &self::secret(&name, TOKEN, &token)).await?;
        Ok(secret)
    }

    /// True where there was one of this id.
    pub async fn delete(&self, id: &str) -> Result<bool, RecordError> {
        let key = Key::new(NAMESPACE, &format!("{TOKEN_PREFIX}{id}"));
        match self.client.delete(&secrets(), &key, &json!({})).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn list(&self, record: &str) -> Result<Vec<std::sync::Arc<Object>>, RecordError> {
        let selector = format!("{LABEL}={record}");
        let options =
            ListOptions { namespace: Some(NAMESPACE), label_selector: Some(&selector), ..ListOptions::default() };
        Ok(self.client.list(&secrets(), &options).await?.items)
    }
}

impl RecordError {
    /// True where somebody else wrote the record first: judge again by what it says now.
    pub fn is_race(&self) -> bool {
        matches!(self, RecordError::Api(error) if error.is_conflict() || error.is_already_exists())
    }
}

impl JoinToken {
    fn blank(role: Role) -> Result<JoinToken, PkiError> {
        let mut id = [0; 4];
        random(&mut id)?;
        let (id, secret_hash) = (crate::pki::hex(&id), String::new());
        Ok(JoinToken { id, role, secret_hash, expires: None, description: String::new(), node: None })
    }

    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// The records of machines, for a view.
pub fn machines_watched() -> Watched {
    Watched::all(secrets(), &[]).in_namespace(NAMESPACE).with_labels(&format!("{LABEL}={MACHINE}"))
}

pub fn machine_of(object: &Object) -> Result<Machine, RecordError> {
    decode(object)
}

pub fn secrets() -> Gvr {
    Gvr::new("", "v1", "secrets")
}

/// A record as a Secret.
pub fn secret(name: &str, record: &str, content: &impl Serialize) -> Tree {
    let content = serde_json::to_string(content).expect("records are plain data");
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": format!("evenkeel.io/{record}"),
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {LABEL: record}},
        "data": {DATA: STANDARD.encode(content)},
    })
}

/// What does not decode is told and not passed over: it may hold who was removed.
pub fn decode<T: DeserializeOwned>(object: &Object) -> Result<T, RecordError> {
    let content = |why: String| RecordError::Content { name: object.key.name.to_string(), why };
    let tree: Tree = serde_json::from_slice(&object.bytes).map_err(|error| content(error.to_string()))?;
    let data = tree["data"][DATA].as_str().and_then(|text| STANDARD.decode(text).ok());
    let data = data.ok_or_else(|| content(format!("no {DATA:?} in its data")))?;
    serde_json::from_slice(&data).map_err(|error| content(error.to_string()))
}

/// Hashes are compared in constant time, though they leak nothing that could be used.
fn same(one: &str, other: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::Records;
    use crate::pki::Role;
    use crate::wire::join::judge::{Asked, Machine, Offered};
    use jiff::{SignedDuration, Timestamp};
    use view::fake::FakeApi;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    #[tokio::test]
    async fn a_token_opens_until_its_end_and_only_its_hash_is_kept() {
        let api = FakeApi::new();
        let records = Records::new(api.client());
        let hour = NOW + SignedDuration::from_hours(1);
        let secret = records.create(Role::Agent, None, Some(hour), "laptop", NOW).await.unwrap();
        assert_eq!(records.offered(Some(&secret), "a", NOW).await.unwrap(), Offered::Valid(Role::Agent));
        assert_eq!(records.offered(Some("guess"), "a", NOW).await.unwrap(), Offered::Unknown);
        assert_eq!(records.offered(None, "a", NOW).await.unwrap(), Offered::Nothing);
        let kept = format!("{:?}", records.tokens(NOW).await.unwrap());
        assert!(kept.contains("laptop") && !kept.contains(&secret));
        assert_eq!(records.offered(Some(&secret), "a", hour).await.unwrap(), Offered::Unknown, "its end has come");
        assert!(records.tokens(NOW).await.unwrap().is_empty(), "and it was removed");
    }

    #[tokio::test]
    async fn a_token_for_one_name_opens_no_other() {
        let records = Records::new(FakeApi::new().client());
        let secret = records.create_for("a", Role::Server, NOW + SignedDuration::from_hours(1), NOW).await.unwrap();
        assert_eq!(records.offered(Some(&secret), "a", NOW).await.unwrap(), Offered::Valid(Role::Server));
        assert_eq!(records.offered(Some(&secret), "b", NOW).await.unwrap(), Offered::Unknown);
    }

    #[tokio::test]
    async fn of_two_machines_that_take_one_name_one_is_recorded() {
        let api = FakeApi::new();
        let records = Records::new(api.client());
        let id = |text: &str| serde_json::from_value(text.into()).unwrap();
        let machine =
            |text: &str| Machine::new(None, &Asked { node: "a", machine: &id(text), role: Role::Agent }, &[], NOW);
        records.record(&machine("1"), None).await.unwrap();
        assert!(records.record(&machine("2"), None).await.unwrap_err().is_race());
        let known = records.machines().await.unwrap();
        assert_eq!(known[0].machine, machine("1"));
        let gone = machine("1").without(NOW);
        records.record(&gone, Some(&known[0])).await.unwrap();
        assert_eq!(records.machines().await.unwrap()[0].machine, gone);
    }
}
