//! ConfigMaps and Secrets that pods refer to: fetched fresh when something starts, watched one by one while a pod uses
//! them. A node may not list them; it may watch those that its own pods name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use api::{Gvr, Key};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use view::{Client, ClientError, View, Watched};

use crate::spec::env::Source;

pub struct Objects {
    client: Client,
    drain: CancellationToken,
    watched: Mutex<BTreeMap<(Gvr, Key), Entry>>,
}

struct Entry {
    stop: CancellationToken,
    users: Arc<Mutex<BTreeMap<String, Arc<Notify>>>>,
}

impl Objects {
    pub fn new(client: Client, drain: CancellationToken) -> Objects {
        Objects { client, drain, watched: Mutex::default() }
    }

    /// The data of a ConfigMap or Secret as it is now; None where it does not exist.
    pub async fn fetch(
        &self,
        namespace: &str,
        source: &Source,
    ) -> Result<Option<BTreeMap<String, Vec<u8>>>, ClientError> {
        let (gvr, key) = place(namespace, source);
        let tree = match self.client.get(&gvr, &key).await {
            Ok(tree) => tree,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut data = BTreeMap::new();
        let encoded = match source {
            Source::ConfigMap(_) => "binaryData",
            Source::Secret(_) => "data",
        };
        for (name, value) in tree[encoded].as_object().into_iter().flatten() {
            let text = value.as_str().unwrap_or_default();
            data.insert(name.clone(), STANDARD.decode(text).unwrap_or_default());
        }
        if let Source::ConfigMap(_) = source {
            for (name, value) in tree["data"].as_object().into_iter().flatten() {
                data.insert(name.clone(), value.as_str().unwrap_or_default().as_bytes().to_vec());
            }
        }
        Ok(Some(data))
    }

    /// Wakes `poke` whenever one of `sources` changes, until `forget`.
    pub fn follow(&self, uid: &str, namespace: &str, sources: &[Source], poke: &Arc<Notify>) {
        let mut watched = self.watched.lock().expect("no holder of this lock panics");
        for source in sources {
            let place = place(namespace, source);
            let entry = watched.entry(place.clone()).or_insert_with(|| self.watch(&place));
            entry.users.lock().expect("no holder of this lock panics").insert(uid.to_owned(), poke.clone());
        }
    }

    /// The pod is gone: what only it used is not watched any more.
    pub fn forget(&self, uid: &str) {
        let mut watched = self.watched.lock().expect("no holder of this lock panics");
        watched.retain(|_, entry| {
            let mut users = entry.users.lock().expect("no holder of this lock panics");
            users.remove(uid);
            if users.is_empty() {
                entry.stop.cancel();
            }
            !users.is_empty()
        });
    }

    fn watch(&self, (gvr, key): &(Gvr, Key)) -> Entry {
        let stop = self.drain.child_token();
        let users: Arc<Mutex<BTreeMap<String, Arc<Notify>>>> = Arc::default();
        let fields = format!("metadata.name={}", key.name);
        let one = Watched::all(gvr.clone(), &[]).in_namespace(&key.namespace).with_fields(&fields);
        let view = View::start(&self.client, vec![one], &stop);
        let (told, ended) = (users.clone(), stop.clone());
        tokio::spawn(async move {
            let mut changes = view.changes();
            while let Some(Some(_)) = ended.run_until_cancelled(changes.next()).await {
                for poke in told.lock().expect("no holder of this lock panics").values() {
                    poke.notify_one();
                }
            }
        });
        Entry { stop, users }
    }
}

fn place(namespace: &str, source: &Source) -> (Gvr, Key) {
    match source {
        Source::ConfigMap(name) => (Gvr::new("", "v1", "configmaps"), Key::new(namespace, name)),
        Source::Secret(name) => (Gvr::new("", "v1", "secrets"), Key::new(namespace, name)),
    }
}
