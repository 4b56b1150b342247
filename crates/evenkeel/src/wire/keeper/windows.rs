//! The windows that people declared, in the ConfigMap `kube-system/evenkeel-windows`: each value is one, as
//! `Tue,Thu 21:00-23:30 Europe/Berlin`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use api::Key;
use jiff::tz::TimeZone;
use keeper::Windows;
use view::Client;

use super::records::{NAMESPACE, config_maps};

const NAME: &str = "evenkeel-windows";

/// None declared is always open; what cannot be read is an error, and nothing is begun on a guess.
pub async fn declared(client: &Client) -> Result<Windows> {
    let map = match client.get(&config_maps(), &Key::new(NAMESPACE, NAME)).await {
        Ok(map) => map,
        Err(error) if error.is_not_found() => return Ok(Windows::default()),
        Err(error) => return Err(error).context("read the windows"),
    };
    let data: BTreeMap<String, String> = serde_json::from_value(map["data"].clone()).unwrap_or_default();
    let zone = |name: &str| TimeZone::get(name).ok();
    Windows::parse(data.values().map(String::as_str), zone).with_context(|| format!("the ConfigMap {NAMESPACE}/{NAME}"))
}
