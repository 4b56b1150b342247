//! The processes of this machine: Evenkeel itself, its container runtime, its names.

use container::v1::{Container, ContainerState};
use keeper::wrong::What;

use super::super::ANSWER_TIMEOUT;
use crate::layout::Layout;
use crate::wire::{containerd_config, names, pid};

pub async fn facts(layout: &Layout) -> Vec<What> {
    let mut facts = Vec::new();
    // Where nothing ever ran nothing is missing.
    if layout.server_tls().exists() || layout.agent_tls().exists() {
        let alive = pid::running(layout).is_some();
        facts.push(What::Process { name: "evenkeel".to_owned(), alive, answers: None });
    }
    if let Some(process) = names::serving(layout) {
        facts.push(What::Process { name: "names".to_owned(), alive: process.is_some(), answers: None });
    }
    facts.extend(runtime(layout).await);
    facts
}

/// Our containerd: whether it is there, whether it answers, and what runs.
async fn runtime(layout: &Layout) -> Vec<What> {
    let config = containerd_config(layout);
    let record = config.folder.join("containerd.json");
    if !record.exists() {
        return Vec::new();
    }
    let alive = container::child::running(&record).is_some();
    let cri = container::Cri::connect(config.socket());
    let listed = tokio::time::timeout(ANSWER_TIMEOUT, cri.list_containers(None)).await;
    let listed = listed.ok().and_then(Result::ok);
    let process = What::Process { name: "containerd".to_owned(), alive, answers: Some(listed.is_some()) };
    let running = |one: &&Container| one.state == ContainerState::ContainerRunning as i32;
    let count = listed.map(|listed| listed.iter().filter(running).count());
    let count = count.map(|count| What::Containers { running: u32::try_from(count).unwrap_or(u32::MAX) });
    [process].into_iter().chain(count).collect()
}
