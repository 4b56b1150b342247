//! Service-account tokens bound to a pod, asked for once and again at 80 % of their life.

use std::collections::BTreeMap;
use std::sync::Mutex;

use api::{Gvr, Key};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;
use serde_json::json;
use view::{Client, ClientError};

use crate::spec::names::PodName;

const EXPIRATION_SECONDS_DEFAULT: i64 = 3600;
/// However long a token lives, it is renewed after a day.
const LIFE_SECONDS_MAX: i64 = 24 * 3600;

#[derive(Default)]
pub struct Tokens {
    held: Mutex<BTreeMap<Which, Held>>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Which {
    uid: String,
    audience: String,
    expiration: i64,
}

#[derive(Clone)]
struct Held {
    token: String,
    renew_at: Timestamp,
}

impl Tokens {
    /// A token that is good for a while, and when to ask again.
    pub async fn get(
        &self,
        client: &Client,
        pod: &core::Pod,
        projection: &core::ServiceAccountTokenProjection,
        now: Timestamp,
    ) -> Result<(String, Timestamp), ClientError> {
        let name = PodName::of(pod);
        let expiration = projection.expiration_seconds.unwrap_or(EXPIRATION_SECONDS_DEFAULT);
        let audience = projection.audience.clone().unwrap_or_default();
        let which = Which { uid: name.uid.clone(), audience: audience.clone(), expiration };
        let held = self.held.lock().expect("no holder of this lock panics").get(&which).cloned();
        if let Some(held) = held.filter(|held| now < held.renew_at) {
            return Ok((held.token, held.renew_at));
        }
        let audiences: Vec<String> = Some(audience).filter(|audience| !audience.is_empty()).into_iter().collect();
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {
                "audiences": audiences, "expirationSeconds": expiration,
                "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": name.name, "uid": name.uid},
            },
        });
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
        let key = Key::new(&name.namespace, account.as_deref().filter(|name| !name.is_empty()).unwrap_or("default"));
        let reply = client.post(&Gvr::new("", "v1", "serviceaccounts"), &key, "token", &body).await?;
        let token = reply["status"]["token"].as_str().unwrap_or_default().to_owned();
        let expires = reply["status"]["expirationTimestamp"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
        let life =
            expires.map_or(expiration, |expires| expires.duration_since(now).as_secs()).clamp(1, LIFE_SECONDS_MAX);
        let renew_at = now + SignedDuration::from_secs(life * 4 / 5);
        let held = Held { token: token.clone(), renew_at };
        self.held.lock().expect("no holder of this lock panics").insert(which, held);
        Ok((token, renew_at))
    }

    pub fn forget(&self, uid: &str) {
        self.held.lock().expect("no holder of this lock panics").retain(|which, _| which.uid != uid);
    }
}
