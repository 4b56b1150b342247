//! People at their laptops: each asks any server, and asks again where nothing is heard.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use base::Rng;
use bytes::Bytes;
use evenkeel::coordination::PATH;
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use keeper::{Attention, Digest};
use serde_json::{Value, json};
use view::Transport;

use crate::world::below;

const ANSWER_BYTES_MAX: usize = 4 << 20;

pub struct Person {
    pub name: &'static str,
    /// One for each server.
    pub servers: Vec<Arc<dyn Transport>>,
    pub rng: Arc<dyn Rng>,
}

/// What is wished for.
#[derive(Clone, Debug)]
pub enum Wish {
    /// Every node runs this program.
    Upgrade(Bytes),
    Back,
}

// === impl Person ===

impl Person {
    /// Something runs on the rack that must be what it was after every change.
    pub async fn deploy(&self) -> Result<()> {
        let labels = json!({"app": "web"});
        let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "web"}]}});
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": 3, "selector": {"matchLabels": labels}, "template": template},
        });
        let path = "/apis/apps/v1/namespaces/default/deployments";
        match call(self.any(), Method::POST, path, text(&object)).await {
            // From an attempt that heard no answer.
            Err(error) if !error.to_string().starts_with("409") => Err(error),
            _ => Ok(()),
        }
    }

    /// As `replace` does, when the machine is lost: nothing of the node is left. Its next machine registers itself.
    pub async fn remove(&self, node: &str) -> Result<()> {
        call(self.any(), Method::DELETE, &format!("/api/v1/nodes/{node}"), Bytes::new()).await.map(drop)
    }

    fn any(&self) -> &dyn Transport {
        let at = usize::try_from(below(&*self.rng, self.servers.len() as u64)).expect("a small number");
        &*self.servers[at]
    }

    /// Looks at the plan and arms it, on one server. False where nothing is to be done.
    pub async fn arm(&self, wish: &Wish, bake_seconds: u64) -> Result<bool> {
        let server = self.any();
        let mut proposal = json!({"bakeSeconds": bake_seconds, "by": self.name});
        match wish {
            Wish::Upgrade(program) => {
                let digest = Digest::of_bytes(program);
                let size = program.len();
                let piece = format!("{PATH}release?program={digest}&offset=0&size={size}");
                call(server, Method::PUT, &piece, program.clone()).await.context("bring the program")?;
                proposal["goal"] = json!("upgrade");
                proposal["program"] = json!(digest);
            }
            Wish::Back => proposal["goal"] = json!("back"),
        }
        let shown = call(server, Method::POST, &verb("plan"), text(&proposal)).await.context("look at the plan")?;
        proposal["shown"] = shown["name"].clone();
        let armed = call(server, Method::POST, &verb("arm"), text(&proposal)).await.context("arm it")?;
        Ok(armed["plan"]["steps"].as_array().is_some_and(|steps| !steps.is_empty()))
    }

    pub async fn ask(&self, wish: &Attention) -> Result<()> {
        let wish = json!({"wish": wish, "by": self.name});
        call(self.any(), Method::POST, &verb("ask"), text(&wish)).await.map(drop)
    }

    /// What waits to be heard by a run.
    pub async fn status(&self) -> Result<Value> {
        call(self.any(), Method::GET, &verb("status"), Bytes::new()).await
    }
}

fn text(value: &Value) -> Bytes {
    value.to_string().into()
}

fn verb(name: &str) -> String {
    format!("{PATH}{name}")
}

async fn call(server: &dyn Transport, method: Method, path: &str, body: Bytes) -> Result<Value> {
    let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/json").body(body)?;
    let response = server.call(request).await?;
    let code = response.status().as_u16();
    let body = view::read_body(response.into_body(), ANSWER_BYTES_MAX).await?;
    if code / 100 != 2 {
        bail!("{code}: {}", String::from_utf8_lossy(&body));
    }
    Ok(serde_json::from_slice(&body)?)
}
