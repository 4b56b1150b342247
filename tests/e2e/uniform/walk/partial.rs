//! Kinds without a whole life: answered and never kept, only looked at, or without a form in the media type.

use anyhow::ensure;
use e2e::{Call, Samples};
use serde_json::{Value, json};

use super::super::NAMESPACE;
use super::super::media::{self, JSON};
use super::{Walk, expect, name_of};

impl Walk<'_> {
    /// A kind that is answered and never kept: its answer says more than the question.
    pub(super) fn answered(&mut self) -> anyhow::Result<()> {
        if self.resource.kind == "Binding" {
            return self.bound();
        }
        let mut review = self.resource.sample(self.media.tag())?;
        if let Some(metadata) = review["metadata"].as_object_mut() {
            metadata.remove("name");
        }
        let collection = self.collection.clone();
        let answer = self.json("POST", &collection, JSON, &review, &[201])?;
        ensure!(answer["kind"] == *self.resource.kind && answer["status"].is_object(), "{answer}");
        let body = self.encoded("POST", &collection, &review)?;
        let native = self.native("POST", &collection, &body, &[201])?;
        if let Some(tree) = self.media.decode(&native.body)? {
            ensure!(tree["status"] == answer["status"], "{tree} is not {answer}");
        }
        self.held();
        Ok(())
    }

    /// A pod that is bound is on the node it was bound to.
    fn bound(&mut self) -> anyhow::Result<()> {
        let mut pod = Samples::of(self.media.tag(), NAMESPACE)?.object("", "v1", "Pod")?;
        let pods = self.collection.replace("/bindings", "/pods");
        let name = format!("bound-{}", self.media.tag());
        pod["metadata"]["name"] = json!(name);
        self.json("POST", &pods, JSON, &pod, &[201])?;
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": "none"}});
        let (path, accept, body) = (self.collection.clone(), self.media.name(), binding.to_string());
        let call = Call { method: "POST", path: &path, content: JSON, accept, body: body.as_bytes() };
        expect(&self.connection.perform(&call)?, "POST", &path, &[201])?;
        let path = format!("{pods}/{name}");
        let bound = self.json("GET", &path, JSON, &Value::Null, &[200])?;
        ensure!(bound["spec"]["nodeName"] == "none", "{bound}");
        self.json("DELETE", &format!("{path}?gracePeriodSeconds=0"), JSON, &Value::Null, &[200])?;
        self.held();
        Ok(())
    }

    /// A kind that can only be looked at.
    pub(super) fn looked_at(&mut self) -> anyhow::Result<()> {
        let collection = self.collection.clone();
        let answer = self.native("GET", &collection, b"", &[200])?;
        if let Some(list) = self.media.decode(&answer.body)? {
            ensure!(list["kind"] == format!("{}List", self.resource.kind) && list["items"].is_array(), "{list}");
        }
        self.held();
        Ok(())
    }

    /// A custom resource has no protobuf form, only its metadata has: refused both ways, and nothing is made of it.
    pub(super) fn without_protobuf(&mut self) -> anyhow::Result<()> {
        let object = self.resource.sample(self.media.tag())?;
        self.name = name_of(&object)?;
        let (collection, path, media) = (self.collection.clone(), self.path(), self.media.name());
        let call = Call { method: "POST", path: &collection, content: media, accept: JSON, body: media::MAGIC };
        expect(&self.connection.perform(&call)?, "POST", &collection, &[400, 415])?;
        self.absent()?;
        self.held();
        self.json("POST", &collection, JSON, &object, &[201])?;
        for path in [&path, &collection] {
            let call = Call { method: "GET", path, content: JSON, accept: media, body: b"" };
            expect(&self.connection.perform(&call)?, "GET", path, &[406])?;
            self.held();
        }
        self.shaped(&path, "PartialObjectMetadata")?;
        self.shaped(&collection, "PartialObjectMetadataList")?;
        self.json("DELETE", &path, JSON, &Value::Null, &[200])?;
        self.absent()
    }
}
