//! A small valid object of every kind: `tests/samples.yaml`, with the names of one walk filled in.

use anyhow::Context;
use serde_json::{Value, json};

const TEXT: &str = include_str!("../samples.yaml");

/// The objects of one walk.
pub struct Samples {
    tag: u8,
    bodies: Value,
}

impl Samples {
    /// The samples for a walk with this tag, a number below 250 that no other walk of the cluster uses.
    ///
    /// # Errors
    /// The file is not YAML.
    pub fn of(tag: u8, namespace: &str) -> anyhow::Result<Samples> {
        let text = TEXT.replace("$TAG", &tag.to_string()).replace("$NAMESPACE", namespace);
        let bodies = serde_saphyr::from_str(&text).context("read samples.yaml")?;
        Ok(Samples { tag, bodies })
    }

    /// The object of a kind.
    ///
    /// # Errors
    /// The kind has no sample.
    pub fn object(&self, group: &str, version: &str, kind: &str) -> anyhow::Result<Value> {
        let body = self.bodies.get(format!("{group}/{kind}")).or_else(|| self.bodies.get(kind));
        let mut object = body.with_context(|| format!("tests/samples.yaml has no {kind}"))?.clone();
        object["apiVersion"] = json!(if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") });
        object["kind"] = json!(kind);
        if object["metadata"]["name"].is_null() {
            object["metadata"]["name"] = json!(format!("walk-{}", self.tag));
        }
        Ok(object)
    }
}
