//! Who is at which layer: one claim for the whole cluster, in the Lease-like ConfigMap `kube-system/evenkeel-layer`, taken
//! and renewed by compare-and-set.

use anyhow::{Context, Result, bail};
use api::{Key, Tree};
use jiff::Timestamp;
use keeper::{Claim, Held};
use serde_json::json;
use view::Client;

use super::records::{NAMESPACE, config_maps};

const NAME: &str = "evenkeel-layer";
const FIELD: &str = "record";
/// Somebody else writes it between reading and writing; not for ever.
const TRIES_MAX: u32 = 5;

/// Who holds it now, if anybody does.
pub async fn held(client: &Client, now: Timestamp) -> Result<Option<Claim>> {
    Ok(read(client).await?.and_then(|map| claim_of(&map)).filter(|claim| now < claim.until))
}

/// Takes or renews it; the inner error names who holds it.
pub async fn claim(client: &Client, wanted: &Claim, now: Timestamp) -> Result<Result<(), Held>> {
    for _ in 0..TRIES_MAX {
        let map = read(client).await?;
        let current = map.as_ref().and_then(claim_of);
        let next = match wanted.clone().take(current.as_ref(), now) {
            Ok(next) => next,
            Err(held) => return Ok(Err(held)),
        };
        let text = serde_json::to_string(&next).context("a claim is plain data")?;
        let written = match map {
            Some(mut map) => {
                map["data"] = json!({FIELD: text});
                client.update(&config_maps(), &key(), None, &map).await
            }
            None => {
                let map = json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME, "namespace": NAMESPACE},
                    "data": {FIELD: text},
                });
                client.create(&config_maps(), NAMESPACE, &map).await
            }
        };
        match written {
            Ok(_) => return Ok(Ok(())),
            Err(error) if error.is_conflict() || error.is_already_exists() || error.is_not_found() => {}
            Err(error) => return Err(error).context("claim the layer"),
        }
    }
    bail!("the claim on the layer changes all the time")
}

/// Gives it up where this work holds it.
pub async fn release(client: &Client, work: &str) -> Result<()> {
    let Some(map) = read(client).await? else { return Ok(()) };
    if claim_of(&map).is_none_or(|claim| claim.work != work) {
        return Ok(());
    }
    let precondition = json!({"preconditions": {"resourceVersion": map["metadata"]["resourceVersion"]}});
    match client.delete(&config_maps(), &key(), &precondition).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error).context("give the layer up"),
        _ => Ok(()),
    }
}

fn key() -> Key {
    Key::new(NAMESPACE, NAME)
}

async fn read(client: &Client) -> Result<Option<Tree>> {
    match client.get(&config_maps(), &key()).await {
        Ok(map) => Ok(Some(map)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error).context("look who is at which layer"),
    }
}

/// What cannot be read is nobody's.
fn claim_of(map: &Tree) -> Option<Claim> {
    serde_json::from_str(map["data"][FIELD].as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::{claim, held, release};
    use crate::wire::SystemClock;
    use base::Clock;
    use keeper::{Claim, Layer};
    use view::fake::FakeApi;

    #[tokio::test]
    async fn of_two_that_claim_one_is_told_who_was_first() {
        let client = FakeApi::new().client();
        let now = SystemClock.now();
        let run = Claim::new(Layer::ControlPlane, "run-7", "anna", now);
        let replace = Claim::new(Layer::Hardware, "replace b", "ben", now);
        assert_eq!(held(&client, now).await.unwrap(), None);
        claim(&client, &run, now).await.unwrap().unwrap();
        claim(&client, &run, now).await.unwrap().unwrap();
        let told = claim(&client, &replace, now).await.unwrap().unwrap_err();
        assert!(told.to_string().starts_with("anna works on the control plane (run-7)"), "{told}");
        release(&client, "replace b").await.unwrap();
        assert_eq!(held(&client, now).await.unwrap().unwrap().work, "run-7", "another's is not given up");
        release(&client, "run-7").await.unwrap();
        claim(&client, &replace, now).await.unwrap().unwrap();
    }
}
