//! One object's life in one media type. Every step is a cell: an answer, and the state that must be behind it.

mod partial;

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use e2e::{Answer, Call, Connection, Endpoint, eventually};
use serde_json::{Value, json};

use super::Resource;
use super::media::{self, JSON, Media};

/// How long controllers may go on writing to what was just made, and finalizers may hold what was deleted.
const RACE_BOUND: Duration = Duration::from_secs(20);
const WATCH_SECONDS: u32 = 60;
/// Tags of the second object of a walk begin here.
const SECOND: u8 = 10;

/// Walks through every verb the resource has. Returns how many cells held.
pub fn life(
    endpoint: &Endpoint,
    connection: &mut Connection,
    resource: &Resource,
    media: Media,
) -> anyhow::Result<usize> {
    let collection = resource.collection();
    let mut walk = Walk { endpoint, connection, resource, media, collection, name: String::new(), cells: 0 };
    match (resource.has("create"), resource.has("get")) {
        (true, true) if resource.is_custom() && media == Media::Protobuf => walk.without_protobuf()?,
        (true, true) => walk.whole()?,
        (true, false) => walk.answered()?,
        (false, _) => walk.looked_at()?,
    }
    Ok(walk.cells)
}

struct Walk<'a> {
    endpoint: &'a Endpoint,
    connection: &'a mut Connection,
    resource: &'a Resource,
    media: Media,
    collection: String,
    name: String,
    cells: usize,
}

impl Walk<'_> {
    fn whole(&mut self) -> anyhow::Result<()> {
        let object = self.resource.sample(self.media.tag())?;
        self.name = name_of(&object)?;
        let before = self.revision()?;
        let watches = self.watches(before)?;
        self.create(&object, before).context("create")?;
        self.get().context("get")?;
        self.list().context("list")?;
        self.update().context("update")?;
        self.patch().context("patch")?;
        self.subresources().context("subresources")?;
        if self.resource.has("deletecollection") {
            self.delete_collection().context("deletecollection")?;
        }
        self.delete().context("delete")?;
        watches.into_iter().try_for_each(|watch| self.watched(watch, before)).context("watch")
    }

    fn held(&mut self) {
        self.cells += 1;
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection, self.name)
    }

    /// A request in JSON whose answer must have one of these codes.
    fn json(&mut self, method: &str, path: &str, content: &str, body: &Value, codes: &[u16]) -> anyhow::Result<Value> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = self.connection.perform(&Call { method, path, content, accept: JSON, body: &body })?;
        expect(&answer, method, path, codes)?;
        serde_json::from_slice(&answer.body).with_context(|| format!("{method} {path}"))
    }

    /// A request in this walk's media type, both ways.
    fn native(&mut self, method: &str, path: &str, body: &[u8], codes: &[u16]) -> anyhow::Result<Answer> {
        let name = self.media.name();
        let answer = self.connection.perform(&Call { method, path, content: name, accept: name, body })?;
        expect(&answer, method, path, codes)?;
        ensure!(answer.content.starts_with(name), "asked for {name}, got {}", answer.content);
        self.media.decode(&answer.body).with_context(|| format!("{method} {path}"))?;
        Ok(answer)
    }

    /// The object as it is now.
    fn now(&mut self) -> anyhow::Result<Value> {
        let path = self.path();
        self.json("GET", &path, JSON, &Value::Null, &[200])
    }

    fn absent(&mut self) -> anyhow::Result<()> {
        let path = self.path();
        self.json("GET", &path, JSON, &Value::Null, &[404]).map(drop)
    }

    fn revision(&mut self) -> anyhow::Result<u64> {
        let path = format!("{}?limit=1", self.collection);
        let list = self.json("GET", &path, JSON, &Value::Null, &[200])?;
        revision_of(&list)
    }

    /// The body in this media type; protobuf comes from the server's own dry run of the same request.
    fn encoded(&mut self, method: &str, path: &str, object: &Value) -> anyhow::Result<Vec<u8>> {
        match self.media {
            Media::Json => Ok(object.to_string().into_bytes()),
            Media::Yaml => Ok(serde_saphyr::to_string(object)?.into_bytes()),
            Media::Protobuf => {
                let (path, body) = (format!("{path}?dryRun=All"), object.to_string());
                let accept = self.media.name();
                let call = Call { method, path: &path, content: JSON, accept, body: body.as_bytes() };
                let answer = self.connection.perform(&call)?;
                expect(&answer, method, &path, &[200, 201])?;
                self.media.decode(&answer.body)?;
                Ok(answer.body)
            }
        }
    }

    /// Dry run: nothing is left. Creation: it is there, as sent, at a newer revision. Again: refused.
    fn create(&mut self, object: &Value, before: u64) -> anyhow::Result<()> {
        let collection = self.collection.clone();
        let body = self.encoded("POST", &collection, object)?;
        self.native("POST", &format!("{collection}?dryRun=All"), &body, &[201])?;
        self.absent().context("a dry run left the object")?;
        self.held();
        let answer = self.native("POST", &collection, &body, &[201])?;
        let made = self.now()?;
        ensure!(made["metadata"]["uid"].is_string() && made["kind"] == self.resource.kind.as_str(), "{made}");
        ensure!(revision_of(&made)? > before, "the revision did not grow");
        ensure!(media::within(object, &made), "{object} became {made}");
        ensure!(media::holds(&answer.body, made["metadata"]["uid"].as_str().unwrap_or("?")), "the answer is another");
        self.held();
        self.native("POST", &collection, &body, &[409]).context("a second creation")?;
        ensure!(self.now()?["metadata"]["uid"] == made["metadata"]["uid"], "a second creation replaced the first");
        self.held();
        Ok(())
    }

    /// The object in this media type, whole and in every shape.
    fn get(&mut self) -> anyhow::Result<()> {
        let path = self.path();
        let (answer, now) = self.unmoved(|walk| walk.native("GET", &path, b"", &[200]))?;
        match self.media.decode(&answer.body)? {
            Some(tree) => ensure!(tree == now, "{tree} is not {now}"),
            None => ensure!(media::holds(&answer.body, now["metadata"]["uid"].as_str().unwrap_or("?")), "another"),
        }
        self.held();
        for shape in self.media.shapes() {
            self.shaped(&path, shape).with_context(|| format!("as {shape}"))?;
        }
        Ok(())
    }

    /// The collection in this media type holds just this object among those of its name.
    fn list(&mut self) -> anyhow::Result<()> {
        let path = format!("{}?fieldSelector=metadata.name%3D{}", self.collection, self.name);
        let (answer, now) = self.unmoved(|walk| walk.native("GET", &path, b"", &[200]))?;
        match self.media.decode(&answer.body)? {
            Some(list) => {
                let items = list["items"].as_array().context("no items")?;
                ensure!(list["kind"] == format!("{}List", self.resource.kind), "a {}", list["kind"]);
                ensure!(items.len() == 1 && items[0]["metadata"] == now["metadata"], "{list}");
                ensure!(revision_of(&list)? >= revision_of(&now)?, "the list is older than its item");
            }
            None => ensure!(media::holds(&answer.body, now["metadata"]["uid"].as_str().unwrap_or("?")), "another"),
        }
        self.held();
        for shape in self.media.shapes() {
            let shape = if *shape == "Table" { shape } else { "PartialObjectMetadataList" };
            self.shaped(&path, shape).with_context(|| format!("as {shape}"))?;
        }
        Ok(())
    }

    /// Asks together with the object's state, again while a controller wrote in between.
    fn unmoved(&mut self, mut ask: impl FnMut(&mut Self) -> anyhow::Result<Answer>) -> anyhow::Result<(Answer, Value)> {
        eventually("a moment without other writers", RACE_BOUND, || {
            let before = self.now()?;
            let answer = ask(self)?;
            ensure!(revision_of(&self.now()?)? == revision_of(&before)?, "{} is being written", self.name);
            Ok((answer, before))
        })
    }

    fn shaped(&mut self, path: &str, shape: &str) -> anyhow::Result<()> {
        let accept = self.media.of_shape(shape);
        let answer =
            self.connection.perform(&Call { method: "GET", path, content: JSON, accept: &accept, body: b"" })?;
        expect(&answer, "GET", path, &[200])?;
        ensure!(answer.content.starts_with(self.media.name()), "got {}", answer.content);
        ensure!(media::holds(&answer.body, &self.name), "{} is not in it", self.name);
        if let Some(tree) = self.media.decode(&answer.body)? {
            self.check_shape(shape, &tree).with_context(|| tree.to_string())?;
        } else {
            ensure!(media::holds(&answer.body, shape), "no {shape}");
        }
        self.held();
        Ok(())
    }

    fn check_shape(&self, shape: &str, tree: &Value) -> anyhow::Result<()> {
        ensure!(tree["kind"] == shape && tree["apiVersion"] == "meta.k8s.io/v1", "no {shape}");
        match shape {
            "Table" => {
                let columns = tree["columnDefinitions"].as_array().context("a table has columns")?;
                let rows = tree["rows"].as_array().context("a table has rows")?;
                ensure!(columns.iter().any(|column| column["name"] == "Name"), "no column Name");
                ensure!(rows.len() == 1 && rows[0]["object"]["metadata"]["name"] == *self.name, "no row");
                ensure!(rows[0]["cells"].as_array().map(Vec::len) == Some(columns.len()), "cells and columns differ");
            }
            "PartialObjectMetadata" => ensure!(tree["metadata"]["name"] == *self.name && tree["spec"].is_null()),
            _ => {
                let items = tree["items"].as_array().context("a list has items")?;
                ensure!(items.len() == 1 && items[0]["metadata"]["name"] == *self.name && items[0]["spec"].is_null());
            }
        }
        Ok(())
    }

    /// A dry run changes nothing, an update of an old version is refused, what was read is written back as no change.
    fn update(&mut self) -> anyhow::Result<()> {
        let path = self.path();
        // Controllers write the status of a new object: an update may come second, as everybody's.
        let (mut stale, dry) = eventually("a dry run of the newest version", RACE_BOUND, || {
            let mut tree = self.now()?;
            tree["metadata"]["labels"]["walk"] = json!("updated");
            let body = self.encoded("PUT", &path, &tree)?;
            self.native("PUT", &format!("{path}?dryRun=All"), &body, &[200])?;
            Ok((tree, body))
        })?;
        ensure!(self.now()?["metadata"]["labels"]["walk"].is_null(), "a dry run left its label");
        ensure!(media::holds(&dry, "updated"), "the dry run's answer has no label");
        self.held();
        let before = eventually("an update of the newest version", RACE_BOUND, || {
            stale = self.now()?;
            stale["metadata"]["labels"]["walk"] = json!("updated");
            let body = self.encoded("PUT", &path, &stale)?;
            let answer = self.native("PUT", &path, &body, &[200])?;
            ensure!(media::holds(&answer.body, "updated"), "the update is not in the answer");
            revision_of(&stale)
        })?;
        let updated = self.now()?;
        ensure!(updated["metadata"]["labels"]["walk"] == "updated", "the update is not there");
        ensure!(revision_of(&updated)? > before, "the revision did not grow");
        self.held();
        stale["metadata"]["labels"]["walk"] = json!("again");
        self.json("PUT", &path, JSON, &stale, &[409]).context("an update of an old version")?;
        ensure!(self.now()?["metadata"]["labels"]["walk"] == "updated", "a refused update is there");
        self.held();
        eventually("writing back what was read", RACE_BOUND, || self.write_back(&path))?;
        self.held();
        Ok(())
    }

    /// What was read in this media type is written back in it and is no change.
    fn write_back(&mut self, path: &str) -> anyhow::Result<()> {
        let before = revision_of(&self.now()?)?;
        let read = self.native("GET", path, b"", &[200])?;
        self.native("PUT", path, &read.body, &[200])?;
        let after = revision_of(&self.now()?)?;
        ensure!(after == before, "writing back {before} made {after}");
        Ok(())
    }

    /// Each kind of patch: a dry run leaves nothing, the patch is there at a newer revision, in the answer too.
    fn patch(&mut self) -> anyhow::Result<()> {
        let Resource { group, version, kind, .. } = self.resource;
        let api_version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
        let annotation = |word: &str| json!({"metadata": {"annotations": {word: "1"}}});
        let applied = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": self.name,
            "annotations": {"apply": "1"}}});
        let patches = [
            ("merge", "application/merge-patch+json", annotation("merge")),
            (
                "json",
                "application/json-patch+json",
                json!([{"op": "add", "path": "/metadata/annotations/json", "value": "1"}]),
            ),
            ("strategic", "application/strategic-merge-patch+json", annotation("strategic")),
            ("apply", "application/apply-patch+yaml", applied),
        ];
        for (word, content, patch) in patches {
            let custom = word == "strategic" && self.resource.is_custom();
            let patched =
                if custom { self.patch_refused(content, &patch) } else { self.patch_one(word, content, &patch) };
            patched.with_context(|| format!("{word} patch"))?;
            self.held();
        }
        Ok(())
    }

    fn patch_one(&mut self, word: &str, content: &str, patch: &Value) -> anyhow::Result<()> {
        let at = format!("{}?fieldManager=walk", self.path());
        let (accept, body) = (self.media.name(), patch.to_string());
        let call = |walk: &mut Self, path: &str| {
            let call = Call { method: "PATCH", path, content, accept, body: body.as_bytes() };
            let answer = walk.connection.perform(&call)?;
            expect(&answer, "PATCH", path, &[200])?;
            ensure!(answer.content.starts_with(accept), "asked for {accept}, got {}", answer.content);
            ensure!(media::holds(&answer.body, word), "the patch is not in the answer");
            Ok(())
        };
        call(self, &format!("{at}&dryRun=All"))?;
        let before = self.now()?;
        ensure!(before["metadata"]["annotations"][word].is_null(), "a dry run left its annotation");
        call(self, &at)?;
        let after = self.now()?;
        ensure!(after["metadata"]["annotations"][word] == "1", "the patch is not there: {after}");
        ensure!(revision_of(&after)? > revision_of(&before)?, "the revision did not grow");
        Ok(())
    }

    fn patch_refused(&mut self, content: &str, patch: &Value) -> anyhow::Result<()> {
        let path = self.path();
        let before = self.now()?;
        self.json("PATCH", &path, content, patch, &[415])?;
        ensure!(self.now()? == before, "a refused patch changed the object");
        Ok(())
    }

    /// Parts of the object that are read and written like it: what was read is written back as no change.
    fn subresources(&mut self) -> anyhow::Result<()> {
        let resource = self.resource;
        let plain = |kind: &str| kind == resource.kind || kind == "Scale";
        for sub in resource.subresources.iter().filter(|sub| plain(&sub.kind) && sub.verbs.contains("update")) {
            let path = format!("{}/{}", self.path(), sub.name);
            if sub.verbs.contains("get") {
                let tree = self.json("GET", &path, JSON, &Value::Null, &[200])?;
                ensure!(tree["kind"] == *sub.kind && tree["metadata"]["name"] == *self.name, "{path} is {tree}");
                eventually("writing back the part", RACE_BOUND, || self.write_back(&path)).context(path.clone())?;
                self.held();
            }
            if sub.kind == "Scale" {
                self.scale(&path).context(path.clone())?;
                self.held();
            }
        }
        Ok(())
    }

    /// A dry run of a scaling answers the new number and leaves the old one.
    fn scale(&mut self, path: &str) -> anyhow::Result<()> {
        let before = self.now()?;
        let patch = json!({"spec": {"replicas": 3}});
        let dry = self.json("PATCH", &format!("{path}?dryRun=All"), "application/merge-patch+json", &patch, &[200])?;
        ensure!(dry["kind"] == "Scale" && dry["spec"]["replicas"] == 3, "{dry}");
        ensure!(self.now()?["spec"] == before["spec"], "a dry run scaled");
        Ok(())
    }

    /// A dry run deletes nothing; the selected object goes, the other stays.
    fn delete_collection(&mut self) -> anyhow::Result<()> {
        let mut second = self.resource.sample(self.media.tag() + SECOND)?;
        let (first, collection) = (self.name.clone(), self.collection.clone());
        self.name = name_of(&second)?;
        second["metadata"]["labels"] = json!({"walk": "second"});
        self.json("POST", &collection, JSON, &second, &[201])?;
        let selected = format!("{collection}?labelSelector=walk%3Dsecond");
        self.native("DELETE", &format!("{selected}&dryRun=All"), b"", &[200])?;
        ensure!(self.now()?["metadata"]["deletionTimestamp"].is_null(), "a dry run deleted the object");
        self.held();
        self.native("DELETE", &selected, self.media.delete_now(), &[200])?;
        eventually("the selected object goes", RACE_BOUND, || self.absent())?;
        self.name = first;
        ensure!(self.now()?["metadata"]["deletionTimestamp"].is_null(), "an object of other labels went too");
        self.held();
        Ok(())
    }

    /// A dry run and a wrong precondition delete nothing.
    fn delete(&mut self) -> anyhow::Result<()> {
        let path = self.path();
        self.native("DELETE", &format!("{path}?dryRun=All"), b"", &[200, 202])?;
        ensure!(self.now()?["metadata"]["deletionTimestamp"].is_null(), "a dry run deleted the object");
        self.held();
        let wrong = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "other"}});
        self.json("DELETE", &path, JSON, &wrong, &[409])?;
        ensure!(self.now()?["metadata"]["deletionTimestamp"].is_null(), "a precondition that fails deleted the object");
        self.held();
        self.native("DELETE", &path, self.media.delete_now(), &[200, 202])?;
        // Where a finalizer holds it, its controller lets it go.
        eventually("the object goes", RACE_BOUND, || self.absent())?;
        self.held();
        Ok(())
    }

    /// Watches from before the creation, of the one name: whole and in every shape. YAML has no stream.
    fn watches(&mut self, before: u64) -> anyhow::Result<Vec<Connection>> {
        let path = format!(
            "{}?watch=1&timeoutSeconds={WATCH_SECONDS}&resourceVersion={before}&fieldSelector=metadata.name%3D{}",
            self.collection, self.name
        );
        let shapes = self.media.shapes().iter().map(|shape| self.media.of_shape(shape));
        let accepts: Vec<String> = std::iter::once(self.media.name().to_owned()).chain(shapes).collect();
        let mut watches = Vec::new();
        for accept in &accepts {
            if self.media == Media::Yaml {
                let call = Call { method: "GET", path: &path, content: JSON, accept, body: b"" };
                expect(&self.connection.perform(&call)?, "GET", &path, &[406])?;
                self.held();
                continue;
            }
            let mut connection = self.endpoint.connect()?;
            connection.watch_as(&path, accept)?;
            watches.push(connection);
        }
        Ok(watches)
    }

    /// The watch saw the creation first, changes after it, and the deletion last.
    fn watched(&mut self, mut watch: Connection, before: u64) -> anyhow::Result<()> {
        let (mut bytes, mut seen, mut at) = (Vec::new(), Vec::new(), before);
        while seen.last().is_none_or(|kind| kind != "DELETED") {
            let Some(chunk) = watch.chunk()? else { bail!("the watch of {} ended after {seen:?}", self.name) };
            bytes.extend(chunk);
            for (kind, object) in media::events(self.media, &mut bytes)? {
                ensure!(media::holds(&object, &self.name), "{kind} of something else");
                if let Ok(tree) = serde_json::from_slice::<Value>(&object) {
                    let carried = if tree["kind"] == "Table" { &tree["rows"][0]["object"] } else { &tree };
                    let revision = revision_of(carried)?;
                    ensure!(revision > at, "{kind} of {revision} after {at}");
                    at = revision;
                }
                seen.push(kind);
            }
        }
        let changes = seen.iter().filter(|kind| *kind == "MODIFIED").count();
        ensure!(seen[0] == "ADDED" && changes >= 4 && changes == seen.len() - 2, "the watch saw {seen:?}");
        self.held();
        Ok(())
    }
}

fn expect(answer: &Answer, method: &str, path: &str, codes: &[u16]) -> anyhow::Result<()> {
    let said: String = String::from_utf8_lossy(&answer.body).chars().take(600).collect();
    ensure!(codes.contains(&answer.code), "{method} {path} answered {}: {said}", answer.code);
    Ok(())
}

fn revision_of(object: &Value) -> anyhow::Result<u64> {
    object["metadata"]["resourceVersion"].as_str().context("no resourceVersion")?.parse().context("resourceVersion")
}

fn name_of(object: &Value) -> anyhow::Result<String> {
    object["metadata"]["name"].as_str().map(str::to_owned).context("no name")
}
