//! The node's runtime port over CRI: each verb of the port is one of CRI's, translated.

mod from_cri;
mod to_cri;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::Chain;
use container::archive::Expected;
use container::{Cri, CriError, v1};
use futures::StreamExt;
use futures::stream::BoxStream;
use node::runtime::{
    Container, ContainerConfig, ContainerStats, ContainerStatus, ExecOutput, ExecRequest, FilesystemUse, Image,
    RegistryAuth, Resources, Runtime, RuntimeError, RuntimeEvent, RuntimeStatus, Sandbox, SandboxConfig, SandboxStatus,
    Version,
};

/// The adapter. Cheap to clone.
#[derive(Clone)]
pub struct CriRuntime {
    pub cri: Cri,
    /// Images that are being imported: who asks for one of them waits for it instead of pulling it.
    pub expected: Expected,
    /// What the runtime makes sandboxes of.
    pub sandbox_image: String,
    /// Images that tarballs on this machine brought: no registry may have them, so they are never collected.
    pub brought: Arc<BTreeSet<String>>,
}

impl CriRuntime {
    fn pinned(&self, image: Image) -> Image {
        let keep = image.tags.iter().any(|tag| *tag == self.sandbox_image || self.brought.contains(tag));
        Image { pinned: image.pinned || keep, ..image }
    }
}

fn failed(error: CriError) -> RuntimeError {
    match error {
        CriError::NotFound { message, .. } => RuntimeError::NotFound { what: message },
        CriError::Unsupported { verb, .. } => RuntimeError::Unsupported { what: verb },
        CriError::Unavailable { message, .. } => RuntimeError::Unavailable { message },
        CriError::Timeout { limit, .. } => RuntimeError::Timeout { after: limit },
        error @ (CriError::Failed { .. } | CriError::Exists { .. }) => {
            RuntimeError::Failed { message: error.message() }
        }
        error @ CriError::Incomplete { .. } => RuntimeError::Failed { message: error.to_string() },
    }
}

/// What is gone already counts as stopped and removed.
fn gone_is_done(outcome: Result<(), CriError>) -> Result<(), RuntimeError> {
    match outcome {
        Err(error) if error.is_not_found() => Ok(()),
        outcome => outcome.map_err(failed),
    }
}

fn stdio(request: &ExecRequest) -> container::cri::Stdio {
    container::cri::Stdio { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, tty: request.tty }
}

#[async_trait]
impl Runtime for CriRuntime {
    async fn version(&self) -> Result<Version, RuntimeError> {
        let version = self.cri.version().await.map_err(failed)?;
        let (name, number) = (version.runtime_name, version.runtime_version);
        Ok(Version { name, version: number.trim_start_matches('v').to_owned(), api: version.runtime_api_version })
    }

    async fn status(&self) -> Result<RuntimeStatus, RuntimeError> {
        Ok(from_cri::status(self.cri.status(false).await.map_err(failed)?))
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<String, RuntimeError> {
        self.expected.settled(&self.sandbox_image).await;
        self.cri.run_sandbox(to_cri::sandbox(config), &config.runtime_handler).await.map_err(failed)
    }

    async fn stop_sandbox(&self, sandbox: &str) -> Result<(), RuntimeError> {
        gone_is_done(self.cri.stop_sandbox(sandbox).await)
    }

    async fn remove_sandbox(&self, sandbox: &str) -> Result<(), RuntimeError> {
        gone_is_done(self.cri.remove_sandbox(sandbox).await)
    }

    async fn list_sandboxes(&self, labels: &BTreeMap<String, String>) -> Result<Vec<Sandbox>, RuntimeError> {
        let label_selector = labels.clone().into_iter().collect();
        let filter = v1::PodSandboxFilter { label_selector, ..v1::PodSandboxFilter::default() };
        let found = self.cri.list_sandboxes(Some(filter)).await.map_err(failed)?;
        Ok(found.into_iter().map(from_cri::sandbox).collect())
    }

    async fn sandbox_status(&self, sandbox: &str) -> Result<SandboxStatus, RuntimeError> {
        let answer = self.cri.sandbox_status(sandbox, false).await.map_err(failed)?;
        let status = answer.status.ok_or_else(|| RuntimeError::NotFound { what: format!("sandbox {sandbox}") })?;
        Ok(from_cri::sandbox_status(status))
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: &ContainerConfig,
        sandbox_config: &SandboxConfig,
    ) -> Result<String, RuntimeError> {
        let (config, sandbox_config) = (to_cri::container(config), to_cri::sandbox(sandbox_config));
        self.cri.create_container(sandbox, config, sandbox_config).await.map_err(failed)
    }

    async fn start_container(&self, container: &str) -> Result<(), RuntimeError> {
        self.cri.start_container(container).await.map_err(failed)
    }

    async fn stop_container(&self, container: &str, grace: Duration) -> Result<(), RuntimeError> {
        gone_is_done(self.cri.stop_container(container, grace).await)
    }

    async fn remove_container(&self, container: &str) -> Result<(), RuntimeError> {
        gone_is_done(self.cri.remove_container(container).await)
    }

    async fn list_containers(&self, labels: &BTreeMap<String, String>) -> Result<Vec<Container>, RuntimeError> {
        let label_selector = labels.clone().into_iter().collect();
        let filter = v1::ContainerFilter { label_selector, ..v1::ContainerFilter::default() };
        let found = self.cri.list_containers(Some(filter)).await.map_err(failed)?;
        Ok(found.into_iter().map(from_cri::container).collect())
    }

    async fn container_status(&self, container: &str) -> Result<ContainerStatus, RuntimeError> {
        let (status, _) = self.cri.container_status(container, false).await.map_err(failed)?;
        Ok(from_cri::container_status(status))
    }

    async fn update_resources(&self, container: &str, resources: &Resources) -> Result<(), RuntimeError> {
        self.cri.update_container(container, to_cri::resources(resources)).await.map_err(failed)
    }

    async fn reopen_log(&self, container: &str) -> Result<(), RuntimeError> {
        self.cri.reopen_log(container).await.map_err(failed)
    }

    async fn exec_sync(
        &self,
        container: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        let output = self.cri.exec_sync(container, command, timeout).await.map_err(|error| match error {
            // The runtime's own notion of the deadline arrives as a status.
            CriError::Failed { code, .. }
                if code.description() == "Deadline expired before operation could complete" =>
            {
                RuntimeError::Timeout { after: timeout }
            }
            error => failed(error),
        })?;
        Ok(ExecOutput { exit_code: output.exit_code, stdout: output.stdout, stderr: output.stderr })
    }

    async fn exec(&self, container: &str, request: &ExecRequest) -> Result<String, RuntimeError> {
        self.cri.exec(container, &request.command, stdio(request)).await.map_err(failed)
    }

    async fn attach(&self, container: &str, request: &ExecRequest) -> Result<String, RuntimeError> {
        self.cri.attach(container, stdio(request)).await.map_err(failed)
    }

    async fn port_forward(&self, sandbox: &str) -> Result<String, RuntimeError> {
        self.cri.port_forward(sandbox, &[]).await.map_err(failed)
    }

    async fn container_stats(&self, labels: &BTreeMap<String, String>) -> Result<Vec<ContainerStats>, RuntimeError> {
        let all = self.cri.list_container_stats().await.map_err(failed)?;
        let stats = all.into_iter().map(from_cri::stats);
        let fits = |one: &ContainerStats| labels.iter().all(|(name, value)| one.labels.get(name) == Some(value));
        Ok(stats.filter(fits).collect())
    }

    async fn pull_image(&self, image: &str, auth: Option<&RegistryAuth>) -> Result<String, RuntimeError> {
        self.cri.pull_image(image, "", auth.map(to_cri::auth), None).await.map_err(failed)
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>, RuntimeError> {
        let found = self.cri.image_status(image).await.map_err(failed)?;
        if found.is_some() || !self.expected.has(image) {
            return Ok(found.map(from_cri::image));
        }
        self.expected.settled(image).await;
        Ok(self.cri.image_status(image).await.map_err(failed)?.map(from_cri::image))
    }

    async fn list_images(&self) -> Result<Vec<Image>, RuntimeError> {
        let found = self.cri.list_images().await.map_err(failed)?;
        Ok(found.into_iter().map(|image| self.pinned(from_cri::image(image))).collect())
    }

    async fn remove_image(&self, image: &str) -> Result<(), RuntimeError> {
        gone_is_done(self.cri.remove_image(image).await)
    }

    async fn image_filesystem(&self) -> Result<FilesystemUse, RuntimeError> {
        Ok(from_cri::filesystem(self.cri.image_fs().await.map_err(failed)?))
    }

    async fn events(&self) -> Result<BoxStream<'static, RuntimeEvent>, RuntimeError> {
        let events = self.cri.events().await.map_err(failed)?;
        let events = events.take_while(|event| {
            if let Err(error) = event {
                tracing::debug!(error = %Chain(error), "container events ended");
            }
            std::future::ready(event.is_ok())
        });
        Ok(events.filter_map(|event| std::future::ready(event.ok().map(from_cri::event))).boxed())
    }
}

/// The sandboxes that exist, for the network's bookkeeping.
#[async_trait]
impl net::LiveSandboxes for CriRuntime {
    async fn ids(&self) -> Result<BTreeSet<String>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.cri.list_sandboxes(None).await?.into_iter().map(|sandbox| sandbox.id).collect())
    }
}
