//! ConfigMaps and Secrets.

use api::Tree;
use base64::Engine as _;

use crate::causes::{At, Causes};
use crate::{doc, names};

/// All values of one object together.
const DATA_BYTES_MAX: usize = 1 << 20;

pub(super) fn object(kind: &str, tree: &Tree, old: Option<&Tree>, causes: &mut Causes) {
    let mut total = 0;
    for field in ["data", "binaryData"] {
        let at = At::of(field);
        for (key, value) in doc::entries(tree, field) {
            names::config_key(key).iter().for_each(|why| causes.invalid_text(&at.key(key), key, why));
            let text = value.as_str().unwrap_or_default();
            let encoded = kind == "Secret" || field == "binaryData";
            total += if encoded { decoded_size(text) } else { text.len() };
            if field == "binaryData" && doc::get(tree, "data").get(key).is_some() {
                causes.invalid_text(&at.key(key), key, "duplicate of key present in data");
            }
        }
    }
    if total > DATA_BYTES_MAX {
        let at = if kind == "Secret" { At::of("data") } else { At::root() };
        causes.too_long(&at, DATA_BYTES_MAX);
    }
    if kind == "Secret" {
        secret(tree, causes);
    }
    let Some(old) = old else { return };
    if kind == "Secret" && doc::text(old, "type") != doc::text(tree, "type") {
        causes.immutable(&At::of("type"), doc::get(tree, "type"));
    }
    if doc::is_true(old, "immutable") {
        if !doc::is_true(tree, "immutable") {
            causes.forbidden(&At::of("immutable"), "field is immutable when `immutable` is set");
        }
        for field in ["data", "binaryData"] {
            if doc::get(old, field) != doc::get(tree, field) {
                causes.forbidden(&At::of(field), "field is immutable when `immutable` is set");
            }
        }
    }
}

/// Types that promise keys have them.
fn secret(tree: &Tree, causes: &mut Causes) {
    let data = doc::get(tree, "data");
    let mut need = |key: &str| {
        if data.get(key).is_none() {
            causes.required(&At::of("data").key(key), "");
        }
    };
    match doc::text(tree, "type") {
        "kubernetes.io/dockercfg" => need(".dockercfg"),
        "kubernetes.io/dockerconfigjson" => need(".dockerconfigjson"),
        "kubernetes.io/ssh-auth" => need("ssh-privatekey"),
        "kubernetes.io/tls" => ["tls.crt", "tls.key"].into_iter().for_each(need),
        "kubernetes.io/basic-auth" if data.get("username").is_none() && data.get("password").is_none() => {
            need("username");
            need("password");
        }
        "kubernetes.io/service-account-token" => {
            let name = doc::get(tree, "metadata.annotations").get("kubernetes.io/service-account.name");
            if name.and_then(Tree::as_str).unwrap_or_default().is_empty() {
                causes.required(&At::of("metadata.annotations").key("kubernetes.io/service-account.name"), "");
            }
        }
        _ => {}
    }
}

fn decoded_size(text: &str) -> usize {
    base64::engine::general_purpose::STANDARD.decode(text).map_or(text.len(), |bytes| bytes.len())
}
