//! What a person asks: another key, or to take one back. Asked again while one is on its way, it changes nothing.

use anyhow::Context;
use jiff::Timestamp;
use view::Client;

use super::record::Rekey;
use crate::layout::Layout;
use crate::pki::Opener;
use crate::wire::rotation::act::{WishError, begun, failed, written};
use crate::wire::rotation::claim::Work;
use crate::wire::rotation::record::Recorded;
use crate::wire::{backup, keys};

pub async fn rotate(by: &str, client: &Client, layout: &Layout, now: Timestamp) -> Result<(), WishError> {
    let recorded = Recorded::<Rekey>::read(client).await.map_err(failed)?;
    if recorded.as_ref().is_some_and(|recorded| recorded.rotation.is_open()) {
        return Ok(());
    }
    let last = recorded.as_ref().map(|recorded| &recorded.rotation);
    let rekey = draw(by, last, layout, now).map_err(failed)?;
    let name = rekey.work();
    begun(Work { name: &name, by }, client, now, Recorded::write(client, &rekey, recorded.as_ref())).await
}

/// Takes it back, as long as no server encrypts with the new key.
pub async fn cancel(client: &Client, now: Timestamp) -> Result<(), WishError> {
    let recorded = Recorded::<Rekey>::read(client).await.map_err(failed)?;
    let Some(open) = recorded.filter(|recorded| recorded.rotation.is_open()) else {
        return Err(WishError::Refused("no change of the key is open".to_owned()));
    };
    let Some(withdrawn) = open.rotation.clone().withdrawn(now) else {
        return Err(WishError::Refused("servers encrypt with the new key already: it goes on to its end".to_owned()));
    };
    written(Recorded::write(client, &withdrawn, Some(&open)).await)?;
    let (name, by) = (withdrawn.work(), withdrawn.by.as_str());
    Work { name: &name, by }.end(client).await.map_err(failed)
}

fn draw(by: &str, last: Option<&Rekey>, layout: &Layout, now: Timestamp) -> anyhow::Result<Rekey> {
    let have = keys::read(layout)?.context("this server has no encryption keys any more")?;
    let servers = backup::kit::standing(layout)?.proof;
    Rekey::draw(&have, last, &Opener::recipient(&servers)?, by, now)
}

#[cfg(test)]
mod tests {
    use super::{cancel, rotate};
    use crate::layout::Layout;
    use crate::pki::Phase;
    use crate::wire::rotation::encryption::record::Rekey;
    use crate::wire::rotation::record::Recorded;
    use crate::wire::{SystemClock, keeper::layers, keyring};
    use base::Clock;
    use view::fake::FakeApi;

    #[tokio::test]
    async fn it_is_begun_once_taken_back_early_and_not_late() {
        let (folder, client, now) = (tempfile::tempdir().unwrap(), FakeApi::new().client(), SystemClock.now());
        let layout = Layout::new(folder.path());
        keyring(&layout).unwrap();
        let refused = cancel(&client, now).await.unwrap_err().to_string();
        assert!(refused.contains("is open"), "{refused}");
        let read = async || Recorded::<Rekey>::read(&client).await.unwrap().unwrap();
        for _ in 0..2 {
            rotate("anna", &client, &layout, now).await.unwrap();
            assert_eq!(read().await.rotation.key, 2);
        }
        assert_eq!(layers::held(&client, now).await.unwrap().unwrap().work, "secrets-encrypt 2");
        cancel(&client, now).await.unwrap();
        assert_eq!(layers::held(&client, now).await.unwrap(), None);
        rotate("ben", &client, &layout, now).await.unwrap();
        let begun = read().await;
        assert_eq!(begun.rotation.key, 3);
        let issued = begun.rotation.clone().advanced(Phase::Issue, now);
        Recorded::write(&client, &issued, Some(&begun)).await.unwrap();
        let refused = cancel(&client, now).await.unwrap_err().to_string();
        assert!(refused.contains("goes on to its end"), "{refused}");
    }
}
