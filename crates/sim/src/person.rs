//! Somebody who uses the cluster, and keeps a book of what was promised: what was acknowledged must be there in the end.
//!
//! Whoever hears no answer asks again until there is one, as people and deployment tools do; so the book is exact.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::{Gvr, Key, PatchType};
use base::Rng;
use serde_json::{Value, json};
use view::{Client, ClientError, PatchRequest};

use crate::kubelet::ENDS;
use crate::world::below;

pub const NAMESPACE: &str = "default";
const AGAIN: Duration = Duration::from_millis(700);
/// Things of one kind that are there at a time.
const THINGS_MAX: u64 = 6;
const REPLICAS_MAX: u64 = 5;

/// What one thing shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    Deployment { replicas: u64, image: String },
    StatefulSet { replicas: u64 },
    Job { completions: u64 },
    Note { text: String },
    Gone,
}

/// What was asked for and acknowledged, by name.
#[derive(Default)]
pub struct Book(pub BTreeMap<String, Thing>);

pub struct Person {
    pub client: Client,
    pub rng: Arc<dyn Rng>,
    pub book: Book,
    count: u64,
}

// === impl Person ===

impl Person {
    pub fn new(client: Client, rng: Arc<dyn Rng>) -> Person {
        Person { client, rng, book: Book::default(), count: 0 }
    }

    /// One wish, carried through.
    pub async fn act(&mut self) {
        let name = format!("thing-{}", below(&*self.rng, THINGS_MAX * 3));
        let replicas = below(&*self.rng, REPLICAS_MAX + 1);
        self.count += 1;
        let image = format!("image:{}", self.count);
        let next = match self.book.0.get(&name) {
            Some(Thing::Deployment { image: old, .. }) => match below(&*self.rng, 4) {
                0 => Thing::Gone,
                1 => Thing::Deployment { replicas, image },
                _ => Thing::Deployment { replicas, image: old.clone() },
            },
            Some(Thing::StatefulSet { .. }) if below(&*self.rng, 3) == 0 => Thing::Gone,
            Some(Thing::StatefulSet { .. }) => Thing::StatefulSet { replicas },
            Some(Thing::Note { .. }) => Thing::Note { text: image },
            Some(Thing::Job { .. }) => Thing::Gone,
            // What is gone keeps its name: a thing that comes back under it may meet what is left of the first.
            Some(Thing::Gone) | None => match below(&*self.rng, 5) {
                0 => Thing::StatefulSet { replicas },
                1 => Thing::Job { completions: 1 + replicas },
                2 => Thing::Note { text: image },
                _ => Thing::Deployment { replicas, image },
            },
        };
        self.carry_through(&name, next).await;
    }

    async fn carry_through(&mut self, name: &str, next: Thing) {
        let old = self.book.0.get(name).cloned().unwrap_or(Thing::Gone);
        while let Err(error) = self.attempt(name, &old, &next).await {
            tracing::debug!(%error, name, "asked again");
            tokio::time::sleep(AGAIN).await;
        }
        self.book.0.insert(name.to_owned(), next);
    }

    async fn attempt(&self, name: &str, old: &Thing, next: &Thing) -> Result<(), ClientError> {
        let key = Key::new(NAMESPACE, name);
        if *next == Thing::Gone {
            let options = json!({"propagationPolicy": "Background"});
            return match self.client.delete(&resource(old), &key, &options).await {
                Err(error) if !error.is_not_found() => Err(error),
                _ => Ok(()),
            };
        }
        let object = object(name, next);
        if *old == Thing::Gone {
            return match self.client.create(&resource(next), NAMESPACE, &object).await {
                // Perhaps from our own attempt that heard no answer: only ours are called so.
                Err(error) if !error.is_already_exists() => Err(error),
                _ => Ok(()),
            };
        }
        let field = if object["data"].is_null() { "spec" } else { "data" };
        let body = json!({field: object[field]});
        let gvr = resource(next);
        let request = PatchRequest { gvr: &gvr, key: &key, subresource: None, patch: PatchType::Merge, body: &body };
        self.client.patch(&request).await.map(drop)
    }
}

/// The resource that a thing is.
pub fn resource(thing: &Thing) -> Gvr {
    match thing {
        Thing::Deployment { .. } => Gvr::new("apps", "v1", "deployments"),
        Thing::StatefulSet { .. } => Gvr::new("apps", "v1", "statefulsets"),
        Thing::Job { .. } => Gvr::new("batch", "v1", "jobs"),
        Thing::Note { .. } => Gvr::new("", "v1", "configmaps"),
        Thing::Gone => unreachable!("what is gone is no resource"),
    }
}

fn object(name: &str, thing: &Thing) -> Value {
    let meta = json!({"name": name, "namespace": NAMESPACE, "labels": {"thing": name}});
    let template = |image: &str, ends: bool, policy: &str| {
        let annotations = if ends { json!({ENDS: "15"}) } else { json!({}) };
        json!({
            "metadata": {"labels": {"app": name}, "annotations": annotations},
            "spec": {"containers": [{"name": "c", "image": image}], "restartPolicy": policy},
        })
    };
    let selector = json!({"matchLabels": {"app": name}});
    match thing {
        Thing::Deployment { replicas, image } => json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
            "spec": {"replicas": replicas, "selector": selector, "template": template(image, false, "Always")},
        }),
        Thing::StatefulSet { replicas } => json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta,
            "spec": {
                "replicas": replicas, "selector": selector, "serviceName": name,
                "template": template("image:0", false, "Always"),
            },
        }),
        Thing::Job { completions } => json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": meta,
            "spec": {
                "completions": completions, "parallelism": 2, "backoffLimit": 20,
                "template": template("image:0", true, "Never"),
            },
        }),
        Thing::Note { text } => json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"text": text},
        }),
        Thing::Gone => unreachable!("what is gone is no object"),
    }
}
