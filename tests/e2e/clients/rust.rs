//! The `kube` crate's client: its discovery, its dynamic objects, its watch, its subresources, a pod's streams.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use e2e::{Cluster, Samples};
use futures::{StreamExt, TryStreamExt};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
    WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::{ApiCapabilities, Discovery, Scope};
use kube::{Client, Config, ResourceExt};
use serde_json::{Value, json};

use super::{stage, streams};

const NAMESPACE: &str = "client-rust";
/// Numbers of this walk's objects.
const FIRST: u8 = 31;
const SECOND: u8 = 32;
const MANAGER: &str = "walk";
/// How long controllers may go on writing to what was just made, and finalizers may hold what was deleted.
const RACE_BOUND: Duration = Duration::from_secs(20);
const ASK_AGAIN: Duration = Duration::from_millis(100);

pub fn walk(cluster: &Cluster) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    stage(cluster, NAMESPACE, || runtime.block_on(every_kind(cluster)))
}

async fn every_kind(cluster: &Cluster) -> anyhow::Result<()> {
    let file = Kubeconfig::read_from(cluster.kubeconfig())?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    // A refusal is an answer to judge here, not a reason to ask again.
    config.default_retry = false;
    let client = Client::try_from(config)?;
    let found = Discovery::new(client.clone()).run().await.context("discovery, group by group")?;
    let aggregated = Discovery::new(client.clone()).run_aggregated().await.context("aggregated discovery")?;
    let kinds = kinds(&found);
    ensure!(names(&kinds) == names(&self::kinds(&aggregated)), "the two forms of discovery differ");
    let (mut cells, mut failures) = (0, Vec::new());
    for (resource, capabilities) in &kinds {
        let api = match capabilities.scope {
            Scope::Namespaced => Api::namespaced_with(client.clone(), NAMESPACE, resource),
            Scope::Cluster => Api::all_with(client.clone(), resource),
        };
        let mut walk = Walk { client: &client, api, resource, capabilities, name: String::new(), cells: 0 };
        match walk.whole().await {
            Ok(()) => cells += walk.cells,
            Err(error) => failures.push(format!("{}/{}: {error:#}", resource.api_version, resource.plural)),
        }
    }
    println!("{cells} cells held over {} resources", kinds.len());
    ensure!(failures.is_empty(), "{} of the walks failed:\n{}", failures.len(), failures.join("\n"));
    streams::walk(&client, NAMESPACE).await.context("a pod's streams")
}

fn kinds(discovery: &Discovery) -> Vec<(ApiResource, ApiCapabilities)> {
    let groups = discovery.groups_alphabetical().into_iter();
    groups.flat_map(|group| group.versions().flat_map(|version| group.versioned_resources(version))).collect()
}

fn names(kinds: &[(ApiResource, ApiCapabilities)]) -> Vec<String> {
    let mut names: Vec<String> = kinds
        .iter()
        .map(|(resource, capabilities)| {
            let mut verbs = capabilities.operations.clone();
            verbs.sort();
            format!("{}/{} {verbs:?}", resource.api_version, resource.plural)
        })
        .collect();
    names.sort();
    names
}

struct Walk<'a> {
    client: &'a Client,
    api: Api<DynamicObject>,
    resource: &'a ApiResource,
    capabilities: &'a ApiCapabilities,
    name: String,
    cells: usize,
}

impl Walk<'_> {
    fn can(&self, verb: &str) -> bool {
        self.capabilities.supports_operation(verb)
    }

    fn is_custom(&self) -> bool {
        self.resource.kind == "Gadget"
    }

    fn sample(&self, tag: u8) -> anyhow::Result<DynamicObject> {
        let ApiResource { group, version, kind, .. } = self.resource;
        serde_json::from_value(Samples::of(tag, NAMESPACE)?.object(group, version, kind)?).context("read the sample")
    }

    async fn whole(&mut self) -> anyhow::Result<()> {
        match (self.can("create"), self.can("get")) {
            (true, true) => {}
            (true, false) if self.resource.kind == "Binding" => return Ok(()),
            (true, false) => return self.review().await,
            (false, _) => {
                self.api.list(&ListParams::default()).await?;
                self.cells += 1;
                return Ok(());
            }
        }
        let object = self.sample(FIRST)?;
        self.name = object.name_any();
        let before = self.api.list(&ListParams::default().limit(1)).await?.metadata.resource_version;
        let before = before.context("the list has no revision")?;
        self.create(&object).await.context("create")?;
        self.read().await.context("read")?;
        self.replace().await.context("replace")?;
        self.patch().await.context("patch")?;
        self.subresources().await.context("subresources")?;
        if self.can("deletecollection") {
            self.delete_collection().await.context("deletecollection")?;
        }
        self.delete().await.context("delete")?;
        self.watched(&before).await.context("watch")
    }

    /// A kind that is answered and never kept.
    async fn review(&mut self) -> anyhow::Result<()> {
        let mut question = self.sample(FIRST)?;
        question.metadata.name = None;
        let answer = self.api.create(&PostParams::default(), &question).await?;
        ensure!(answer.data["status"].is_object(), "{answer:?}");
        self.cells += 1;
        Ok(())
    }

    async fn create(&mut self, object: &DynamicObject) -> anyhow::Result<()> {
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        self.api.create(&dry, object).await?;
        ensure!(self.api.get_opt(&self.name).await?.is_none(), "a dry run left the object");
        let made = self.api.create(&PostParams::default(), object).await?;
        ensure!(made.uid().is_some() && made.resource_version().is_some(), "{made:?}");
        match self.api.create(&PostParams::default(), object).await {
            Err(kube::Error::Api(status)) => ensure!(status.is_already_exists(), "{status:?}"),
            other => bail!("a second creation: {other:?}"),
        }
        self.cells += 3;
        Ok(())
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        let object = self.api.get(&self.name).await?;
        ensure!(object.types.as_ref().is_some_and(|types| types.kind == self.resource.kind), "{object:?}");
        let partial = self.api.get_metadata(&self.name).await?;
        ensure!(partial.metadata.uid == object.metadata.uid, "{partial:?}");
        let named = ListParams::default().fields(&format!("metadata.name={}", self.name));
        let list = self.api.list(&named).await?;
        ensure!(list.items.len() == 1 && list.items[0].metadata.uid == object.metadata.uid, "{list:?}");
        let partial = self.api.list_metadata(&named).await?;
        ensure!(partial.items.len() == 1 && partial.items[0].metadata.uid == object.metadata.uid, "{partial:?}");
        self.cells += 4;
        Ok(())
    }

    /// Reads, changes and writes until no controller wrote in between; returns what was sent.
    async fn replaced(&self, value: &str) -> anyhow::Result<DynamicObject> {
        let deadline = std::time::Instant::now() + RACE_BOUND;
        loop {
            let mut object = self.api.get(&self.name).await?;
            object.labels_mut().insert("walk".into(), value.into());
            match self.api.replace(&self.name, &PostParams::default(), &object).await {
                Ok(_) => return Ok(object),
                Err(kube::Error::Api(status)) if status.is_conflict() && std::time::Instant::now() < deadline => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn replace(&mut self) -> anyhow::Result<()> {
        let stale = self.replaced("replaced").await?;
        let found = self.api.get(&self.name).await?;
        ensure!(found.labels().get("walk").is_some_and(|value| value == "replaced"), "{found:?}");
        ensure!(found.resource_version() != stale.resource_version(), "the revision did not grow");
        match self.api.replace(&self.name, &PostParams::default(), &stale).await {
            Err(kube::Error::Api(status)) => ensure!(status.is_conflict(), "{status:?}"),
            other => bail!("an old version was taken: {other:?}"),
        }
        self.cells += 2;
        Ok(())
    }

    async fn patch(&mut self) -> anyhow::Result<()> {
        let annotation = |word: &str| json!({"metadata": {"annotations": {word: "1"}}});
        let ApiResource { api_version, kind, .. } = self.resource;
        let mut applied = annotation("apply");
        applied["apiVersion"] = json!(api_version);
        applied["kind"] = json!(kind);
        let plain = PatchParams::default();
        let manager = PatchParams::apply(MANAGER);
        self.patch_one("merge", &plain, &Patch::Merge(annotation("merge"))).await?;
        if self.is_custom() {
            match self.api.patch(&self.name, &plain, &Patch::Strategic(annotation("strategic"))).await {
                Err(kube::Error::Api(status)) => ensure!(status.code == 415, "{status:?}"),
                other => bail!("a strategic patch of a custom resource: {other:?}"),
            }
        } else {
            self.patch_one("strategic", &plain, &Patch::Strategic(annotation("strategic"))).await?;
        }
        self.patch_one("apply", &manager, &Patch::Apply(applied)).await?;
        self.json_patch().await?;
        self.cells += 4;
        Ok(())
    }

    async fn patch_one(&self, word: &str, params: &PatchParams, patch: &Patch<Value>) -> anyhow::Result<()> {
        let before = self.api.patch(&self.name, &params.clone().dry_run(), patch).await.context(word.to_owned())?;
        ensure!(before.annotations().contains_key(word), "the dry run's answer has no {word}");
        ensure!(!self.api.get(&self.name).await?.annotations().contains_key(word), "a dry run left {word}");
        self.api.patch(&self.name, params, patch).await.context(word.to_owned())?;
        let found = self.api.get(&self.name).await?;
        ensure!(found.annotations().contains_key(word), "{word} is not in {found:?}");
        Ok(())
    }

    /// As a request of its own: the crate's type for it needs a second version of a library.
    async fn json_patch(&self) -> anyhow::Result<()> {
        let body = json!([{"op": "add", "path": "/metadata/annotations/json", "value": "1"}]).to_string();
        let request = http::Request::patch(format!("{}/{}", self.api.resource_url(), self.name))
            .header("content-type", "application/json-patch+json")
            .body(body.into_bytes())?;
        self.client.request::<DynamicObject>(request).await?;
        ensure!(self.api.get(&self.name).await?.annotations().contains_key("json"), "the JSON patch is not there");
        Ok(())
    }

    async fn subresources(&mut self) -> anyhow::Result<()> {
        for (sub, capabilities) in &self.capabilities.subresources {
            let name = sub.plural.rsplit('/').next().unwrap_or_default();
            match name {
                "status" if capabilities.supports_operation("get") => {
                    let status = self.api.get_status(&self.name).await?;
                    ensure!(status.name_any() == self.name, "{status:?}");
                    let nothing = Patch::Merge(json!({"status": {}}));
                    self.api.patch_status(&self.name, &PatchParams::default(), &nothing).await?;
                    self.cells += 2;
                }
                "scale" => {
                    let scale = self.api.get_scale(&self.name).await?;
                    let three = Patch::Merge(json!({"spec": {"replicas": 3}}));
                    let dry = self.api.patch_scale(&self.name, &PatchParams::default().dry_run(), &three).await?;
                    ensure!(dry.spec.and_then(|spec| spec.replicas) == Some(3), "the dry run did not scale");
                    let still = self.api.get_scale(&self.name).await?;
                    ensure!(still.spec == scale.spec, "a dry run scaled to {:?}", still.spec);
                    self.api.replace_scale(&self.name, &PostParams::default(), &still).await?;
                    self.cells += 3;
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn delete_collection(&mut self) -> anyhow::Result<()> {
        let mut second = self.sample(SECOND)?;
        second.labels_mut().insert("walk".into(), "second".into());
        let name = second.name_any();
        self.api.create(&PostParams::default(), &second).await?;
        let selected = ListParams::default().labels("walk=second");
        let now = DeleteParams::default().grace_period(0);
        self.api.delete_collection(&now.clone().dry_run(), &selected).await?;
        let kept = self.api.get(&name).await?;
        ensure!(kept.metadata.deletion_timestamp.is_none(), "a dry run deleted {name}");
        self.api.delete_collection(&now, &selected).await?;
        self.gone(&name).await?;
        let first = self.api.get(&self.name).await?;
        ensure!(first.metadata.deletion_timestamp.is_none(), "an object of other labels went too");
        self.cells += 2;
        Ok(())
    }

    async fn delete(&mut self) -> anyhow::Result<()> {
        let now = DeleteParams::default().grace_period(0);
        self.api.delete(&self.name, &now.clone().dry_run()).await?;
        let other = Preconditions { uid: Some("other".into()), resource_version: None };
        match self.api.delete(&self.name, &now.clone().preconditions(other)).await {
            Err(kube::Error::Api(status)) => ensure!(status.is_conflict(), "{status:?}"),
            other => bail!("a wrong precondition held: {other:?}"),
        }
        let kept = self.api.get(&self.name).await?;
        ensure!(kept.metadata.deletion_timestamp.is_none(), "a dry run or a wrong precondition deleted it");
        self.api.delete(&self.name, &now).await?;
        self.gone(&self.name.clone()).await?;
        self.cells += 3;
        Ok(())
    }

    /// Where a finalizer holds it, its controller lets it go.
    async fn gone(&self, name: &str) -> anyhow::Result<()> {
        let gone = async {
            while self.api.get_opt(name).await?.is_some() {
                tokio::time::sleep(ASK_AGAIN).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(RACE_BOUND, gone).await.with_context(|| format!("{name} stays"))?
    }

    /// The whole life, told by a watch from before the creation.
    async fn watched(&mut self, before: &str) -> anyhow::Result<()> {
        let params = WatchParams::default().fields(&format!("metadata.name={}", self.name)).timeout(30);
        let mut events = self.api.watch(&params, before).await?.boxed();
        let mut seen = Vec::new();
        while let Some(event) = events.try_next().await? {
            match event {
                WatchEvent::Added(_) => seen.push('+'),
                WatchEvent::Modified(_) => seen.push('~'),
                WatchEvent::Deleted(_) => {
                    let changes = seen.iter().filter(|event| **event == '~').count();
                    ensure!(seen[0] == '+' && changes >= 4 && changes == seen.len() - 1, "the watch saw {seen:?}");
                    self.cells += 1;
                    return Ok(());
                }
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(status) => bail!("the watch said {status:?}"),
            }
        }
        bail!("the watch ended after {seen:?}")
    }
}
