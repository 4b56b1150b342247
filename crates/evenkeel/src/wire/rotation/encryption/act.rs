//! What a person asks: another key. Asked again while one is on its way, it changes nothing.

use anyhow::Context;
use jiff::Timestamp;
use view::Client;

use super::record::Rekey;
use crate::layout::Layout;
use crate::pki::Opener;
use crate::wire::rotation::act::{WishError, begun, failed};
use crate::wire::rotation::claim::Work;
use crate::wire::rotation::record::Recorded;
use crate::wire::{backup, keys};

pub async fn rotate(by: &str, client: &Client, layout: &Layout, now: Timestamp) -> Result<(), WishError> {
    let recorded = Recorded::<Rekey>::read(client).await.map_err(failed)?;
    if recorded.as_ref().is_some_and(|recorded| recorded.rotation.is_open()) {
        return Ok(());
    }
    let rekey = draw(by, layout, now).map_err(failed)?;
    let name = rekey.work();
    begun(Work { name: &name, by }, client, now, Recorded::write(client, &rekey, recorded.as_ref())).await
}

fn draw(by: &str, layout: &Layout, now: Timestamp) -> anyhow::Result<Rekey> {
    let have = keys::read(layout)?.context("this server has no encryption keys any more")?;
    let servers = backup::kit::standing(layout)?.proof;
    Rekey::draw(&have, &Opener::recipient(&servers)?, by, now)
}
