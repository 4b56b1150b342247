//! The files of configMap, secret, downwardAPI and projected volumes. Pure but for what the caller fetched.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;

use super::VolumeError;
use super::atomic::{File, Payload};
use crate::spec::env::{self, Facts, Source, Sources};

pub const DEFAULT_MODE: i32 = 0o644;

/// Objects that a volume's files come from.
pub fn references(volume: &core::Volume) -> Vec<Source> {
    let mut found = Vec::new();
    found.extend(volume.config_map.as_ref().map(|map| Source::ConfigMap(map.name.clone())));
    found.extend(volume.secret.as_ref().and_then(|secret| secret.secret_name.clone()).map(Source::Secret));
    for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        found.extend(source.config_map.as_ref().map(|map| Source::ConfigMap(map.name.clone())));
        found.extend(source.secret.as_ref().map(|secret| Source::Secret(secret.name.clone())));
    }
    found
}

/// The tokens a volume projects, in order.
pub fn token_projections(volume: &core::Volume) -> Vec<&core::ServiceAccountTokenProjection> {
    let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    sources.filter_map(|source| source.service_account_token.as_ref()).collect()
}

/// What files are made of.
pub struct Inputs<'a> {
    pub pod: &'a core::Pod,
    pub sources: &'a Sources,
    /// By path of the token file.
    pub tokens: &'a BTreeMap<String, String>,
    pub facts: &'a Facts,
}

/// The files of one volume; None for a volume that is not made of files.
pub fn build(volume: &core::Volume, inputs: &Inputs<'_>) -> Result<Option<Payload>, VolumeError> {
    let mut files = Payload::new();
    let mut add = Adder { volume: &volume.name, inputs, files: &mut files };
    if let Some(map) = &volume.config_map {
        let mode = map.default_mode.unwrap_or(DEFAULT_MODE);
        add.source(&Source::ConfigMap(map.name.clone()), map.items.as_deref(), map.optional, mode)?;
    } else if let Some(secret) = &volume.secret {
        let mode = secret.default_mode.unwrap_or(DEFAULT_MODE);
        let name = secret.secret_name.clone().unwrap_or_default();
        add.source(&Source::Secret(name), secret.items.as_deref(), secret.optional, mode)?;
    } else if let Some(downward) = &volume.downward_api {
        let mode = downward.default_mode.unwrap_or(DEFAULT_MODE);
        add.downward(downward.items.as_deref(), mode)?;
    } else if let Some(projected) = &volume.projected {
        let mode = projected.default_mode.unwrap_or(DEFAULT_MODE);
        for source in projected.sources.iter().flatten() {
            add.projection(source, mode)?;
        }
    } else {
        return Ok(None);
    }
    Ok(Some(files))
}

struct Adder<'a, 'b> {
    volume: &'a str,
    inputs: &'a Inputs<'a>,
    files: &'b mut Payload,
}

impl Adder<'_, '_> {
    fn projection(&mut self, source: &core::VolumeProjection, mode: i32) -> Result<(), VolumeError> {
        if let Some(map) = &source.config_map {
            self.source(&Source::ConfigMap(map.name.clone()), map.items.as_deref(), map.optional, mode)?;
        }
        if let Some(secret) = &source.secret {
            self.source(&Source::Secret(secret.name.clone()), secret.items.as_deref(), secret.optional, mode)?;
        }
        if let Some(downward) = &source.downward_api {
            self.downward(downward.items.as_deref(), mode)?;
        }
        if let Some(token) = &source.service_account_token {
            let text = self.inputs.tokens.get(&token.path).cloned().unwrap_or_default();
            self.put(&token.path, text.into_bytes(), mode);
        }
        Ok(())
    }

    fn source(
        &mut self,
        source: &Source,
        items: Option<&[core::KeyToPath]>,
        optional: Option<bool>,
        default_mode: i32,
    ) -> Result<(), VolumeError> {
        let optional = optional == Some(true);
        let namespace = self.inputs.pod.metadata.namespace.as_deref().unwrap_or_default();
        let Some(data) = self.inputs.sources.get(source).and_then(Option::as_ref) else {
            if optional {
                return Ok(());
            }
            return Err(VolumeError::set_up(self.volume, source.not_found(namespace).message));
        };
        let items = items.unwrap_or_default();
        if items.is_empty() {
            for (key, bytes) in data {
                self.put(key, bytes.clone(), default_mode);
            }
            return Ok(());
        }
        for item in items {
            match data.get(&item.key) {
                Some(bytes) => self.put(&item.path, bytes.clone(), item.mode.unwrap_or(default_mode)),
                None if optional => {}
                None => {
                    let message = format!("references non-existent {} key: {}", source.word(), item.key);
                    return Err(VolumeError::set_up(self.volume, message));
                }
            }
        }
        Ok(())
    }

    fn downward(
        &mut self,
        items: Option<&[core::DownwardAPIVolumeFile]>,
        default_mode: i32,
    ) -> Result<(), VolumeError> {
        for item in items.unwrap_or_default() {
            let value = if let Some(field) = &item.field_ref {
                env::field_value(self.inputs.pod, &field.field_path, self.inputs.facts)
            } else if let Some(field) = &item.resource_field_ref {
                env::resource_value(self.inputs.pod, None, field, self.inputs.facts)
            } else {
                Ok(String::new())
            };
            let value = value.map_err(|error| VolumeError::set_up(self.volume, error.message))?;
            self.put(&item.path, value.into_bytes(), item.mode.unwrap_or(default_mode));
        }
        Ok(())
    }

    fn put(&mut self, path: &str, bytes: Vec<u8>, mode: i32) {
        let mode = u32::try_from(mode).unwrap_or(0o644) & 0o777;
        self.files.insert(path.to_owned(), File { bytes, mode });
    }
}

impl Source {
    fn word(&self) -> &'static str {
        match self {
            Source::ConfigMap(_) => "config",
            Source::Secret(_) => "secret",
        }
    }
}
