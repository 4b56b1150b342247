//! `Event` objects about pods and the node: written in the background, the same news counted instead of repeated.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Gvr, Key, PatchType};
use base::{Clock, Rng};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use view::{Client, PatchRequest};

use crate::pod::status::seconds;
use crate::spec::names::PodName;

/// News waiting to be written; more is dropped, since events are best effort.
const QUEUE_MAX: usize = 1024;
/// Distinct news remembered for counting.
const REMEMBERED_MAX: usize = 4096;
const REMEMBERED_FOR: SignedDuration = SignedDuration::from_mins(10);

#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<News>,
}

/// What an event is about and says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct News {
    kind: &'static str,
    namespace: String,
    name: String,
    uid: String,
    field_path: String,
    warning: bool,
    reason: String,
    message: String,
}

struct Seen {
    key: Key,
    count: u64,
    last: Timestamp,
}

impl Recorder {
    /// Starts the writer; it ends when the last recorder is dropped.
    pub fn start(client: Client, clock: Arc<dyn Clock>, rng: Arc<dyn Rng>, node: &str) -> Recorder {
        let (queue, inbox) = mpsc::channel(QUEUE_MAX);
        let writer = Writer { client, clock, rng, node: node.to_owned(), seen: BTreeMap::new() };
        tokio::spawn(writer.run(inbox));
        Recorder { queue }
    }

    pub fn pod(&self, pod: &PodName, field_path: String, warning: bool, reason: &str, message: &str) {
        let news = News {
            kind: "Pod",
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            field_path,
            warning,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        let _ = self.queue.try_send(news);
    }

    pub fn node(&self, name: &str, warning: bool, reason: &str, message: &str) {
        let news = News {
            kind: "Node",
            namespace: String::new(),
            name: name.to_owned(),
            uid: name.to_owned(),
            field_path: String::new(),
            warning,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        let _ = self.queue.try_send(news);
    }
}

struct Writer {
    client: Client,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    node: String,
    seen: BTreeMap<News, Seen>,
}

impl Writer {
    async fn run(mut self, mut inbox: mpsc::Receiver<News>) {
        while let Some(news) = inbox.recv().await {
            let now = self.clock.now();
            self.seen.retain(|_, seen| now.duration_since(seen.last) < REMEMBERED_FOR);
            if REMEMBERED_MAX <= self.seen.len() {
                self.seen.clear();
            }
            if let Err(error) = self.write(news, now).await {
                tracing::debug!(%error, "event was not written");
            }
        }
    }

    async fn write(&mut self, news: News, now: Timestamp) -> Result<(), view::ClientError> {
        let gvr = Gvr::new("", "v1", "events");
        if let Some(seen) = self.seen.get_mut(&news) {
            seen.count += 1;
            seen.last = now;
            let body = json!({"count": seen.count, "lastTimestamp": seconds(now)});
            let (key, patch) = (&seen.key, PatchType::Merge);
            let request = PatchRequest { gvr: &gvr, key, subresource: None, patch, body: &body };
            match self.client.patch(&request).await {
                Err(error) if error.is_not_found() => {}
                outcome => return outcome.map(|_| ()),
            }
        }
        let namespace = if news.namespace.is_empty() { "default" } else { &news.namespace };
        let name = format!("{}.{:016x}", news.name, self.rng.next_u64());
        self.client.create(&gvr, namespace, &self.event(&news, namespace, &name, now)).await?;
        let key = Key::new(namespace, &name);
        self.seen.insert(news, Seen { key, count: 1, last: now });
        Ok(())
    }

    fn event(&self, news: &News, namespace: &str, name: &str, now: Timestamp) -> Value {
        let mut object = json!({"kind": news.kind, "apiVersion": "v1", "name": news.name, "uid": news.uid});
        if !news.namespace.is_empty() {
            object["namespace"] = json!(news.namespace);
        }
        if !news.field_path.is_empty() {
            object["fieldPath"] = json!(news.field_path);
        }
        json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": namespace},
            "involvedObject": object, "reason": news.reason, "message": news.message,
            "type": if news.warning { "Warning" } else { "Normal" },
            "source": {"component": "kubelet", "host": self.node},
            "reportingComponent": "kubelet", "reportingInstance": self.node,
            "firstTimestamp": seconds(now), "lastTimestamp": seconds(now), "count": 1,
        })
    }
}
