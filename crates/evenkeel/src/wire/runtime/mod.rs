//! The node's runtime port over the CRI client: a translation and nothing more.

mod inbound;
mod outbound;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use container::cri::Stdio;
use container::{Cri, CriError, v1};
use futures::StreamExt;
use futures::stream::BoxStream;
use node::runtime as port;
use node::runtime::{Runtime, RuntimeError};

/// `node::Runtime` on a CRI socket.
#[derive(Clone, Debug)]
pub struct CriRuntime {
    cri: Cri,
}

impl CriRuntime {
    pub fn new(cri: Cri) -> CriRuntime {
        CriRuntime { cri }
    }
}

#[async_trait]
impl Runtime for CriRuntime {
    async fn version(&self) -> Result<port::Version, RuntimeError> {
        let version = self.cri.version().await.map_err(refused)?;
        Ok(port::Version { name: version.runtime_name, version: version.runtime_version, api: version.runtime_api_version })
    }

    async fn status(&self) -> Result<port::RuntimeStatus, RuntimeError> {
        self.cri.status(false).await.map(inbound::status).map_err(refused)
    }

    async fn run_sandbox(&self, config: &port::SandboxConfig) -> Result<String, RuntimeError> {
        self.cri.run_sandbox(outbound::sandbox(config), &config.runtime_handler).await.map_err(refused)
    }

    async fn stop_sandbox(&self, sandbox: &str) -> Result<(), RuntimeError> {
        self.cri.stop_sandbox(sandbox).await.map_err(refused)
    }

    async fn remove_sandbox(&self, sandbox: &str) -> Result<(), RuntimeError> {
        self.cri.remove_sandbox(sandbox).await.map_err(refused)
    }

    async fn list_sandboxes(&self, labels: &BTreeMap<String, String>) -> Result<Vec<port::Sandbox>, RuntimeError> {
        let filter = v1::PodSandboxFilter { label_selector: outbound::map(labels), ..v1::PodSandboxFilter::default() };
        let found = self.cri.list_sandboxes(Some(filter)).await.map_err(refused)?;
        Ok(found.into_iter().map(inbound::sandbox).collect())
    }

    async fn sandbox_status(&self, sandbox: &str) -> Result<port::SandboxStatus, RuntimeError> {
        let reply = self.cri.sandbox_status(sandbox, false).await.map_err(refused)?;
        let status = reply.status.ok_or_else(|| RuntimeError::NotFound { what: format!("sandbox {sandbox}") })?;
        Ok(inbound::sandbox_status(status))
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: &port::ContainerConfig,
        sandbox_config: &port::SandboxConfig,
    ) -> Result<String, RuntimeError> {
        let (config, sandbox_config) = (outbound::container(config), outbound::sandbox(sandbox_config));
        self.cri.create_container(sandbox, config, sandbox_config).await.map_err(refused)
    }

    async fn start_container(&self, container: &str) -> Result<(), RuntimeError> {
        self.cri.start_container(container).await.map_err(refused)
    }

    async fn stop_container(&self, container: &str, grace: Duration) -> Result<(), RuntimeError> {
        self.cri.stop_container(container, grace).await.map_err(refused)
    }

    async fn remove_container(&self, container: &str) -> Result<(), RuntimeError> {
        self.cri.remove_container(container).await.map_err(refused)
    }

    async fn list_containers(&self, labels: &BTreeMap<String, String>) -> Result<Vec<port::Container>, RuntimeError> {
        let filter = v1::ContainerFilter { label_selector: outbound::map(labels), ..v1::ContainerFilter::default() };
        let found = self.cri.list_containers(Some(filter)).await.map_err(refused)?;
        Ok(found.into_iter().map(inbound::container).collect())
    }

    async fn container_status(&self, container: &str) -> Result<port::ContainerStatus, RuntimeError> {
        let (status, _) = self.cri.container_status(container, false).await.map_err(refused)?;
        Ok(inbound::container_status(status))
    }

    async fn update_resources(&self, container: &str, resources: &port::Resources) -> Result<(), RuntimeError> {
        self.cri.update_container(container, outbound::resources(resources)).await.map_err(refused)
    }

    async fn reopen_log(&self, container: &str) -> Result<(), RuntimeError> {
        self.cri.reopen_log(container).await.map_err(refused)
    }

    async fn exec_sync(
        &self,
        container: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<port::ExecOutput, RuntimeError> {
        let output = self.cri.exec_sync(container, command, timeout).await.map_err(refused)?;
        Ok(port::ExecOutput { exit_code: output.exit_code, stdout: output.stdout, stderr: output.stderr })
    }

    async fn exec(&self, container: &str, request: &port::ExecRequest) -> Result<String, RuntimeError> {
        self.cri.exec(container, &request.command, stdio(request)).await.map_err(refused)
    }

    async fn attach(&self, container: &str, request: &port::ExecRequest) -> Result<String, RuntimeError> {
        self.cri.attach(container, stdio(request)).await.map_err(refused)
    }

    async fn port_forward(&self, sandbox: &str) -> Result<String, RuntimeError> {
        self.cri.port_forward(sandbox, &[]).await.map_err(refused)
    }

    async fn container_stats(
        &self,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<port::ContainerStats>, RuntimeError> {
        let found = self.cri.list_container_stats().await.map_err(refused)?;
        let found = found.into_iter().filter_map(inbound::container_stats);
        Ok(found.filter(|stats| labels.iter().all(|(key, value)| stats.labels.get(key) == Some(value))).collect())
    }

    async fn pull_image(&self, image: &str, auth: Option<&port::RegistryAuth>) -> Result<String, RuntimeError> {
        self.cri.pull_image(image, "", auth.map(outbound::auth), None).await.map_err(refused)
    }

    async fn image_status(&self, image: &str) -> Result<Option<port::Image>, RuntimeError> {
        Ok(self.cri.image_status(image).await.map_err(refused)?.map(inbound::image))
    }

    async fn list_images(&self) -> Result<Vec<port::Image>, RuntimeError> {
        Ok(self.cri.list_images().await.map_err(refused)?.into_iter().map(inbound::image).collect())
    }

    async fn remove_image(&self, image: &str) -> Result<(), RuntimeError> {
        self.cri.remove_image(image).await.map_err(refused)
    }

    async fn image_filesystem(&self) -> Result<port::FilesystemUse, RuntimeError> {
        self.cri.image_fs().await.map(inbound::image_filesystem).map_err(refused)
    }

    async fn events(&self) -> Result<BoxStream<'static, port::RuntimeEvent>, RuntimeError> {
        let events = self.cri.events().await.map_err(refused)?;
        // A broken stream ends: the node asks for a new one and looks at everything.
        let good = events.take_while(|event| futures::future::ready(event.is_ok()));
        Ok(good.filter_map(|event| futures::future::ready(event.ok().map(inbound::event))).boxed())
    }
}

fn stdio(request: &port::ExecRequest) -> Stdio {
    Stdio { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, tty: request.tty }
}

/// What the node does about each refusal of the runtime.
fn refused(error: CriError) -> RuntimeError {
    let message = error.message();
    match error {
        CriError::NotFound { .. } => RuntimeError::NotFound { what: message },
        CriError::Unsupported { verb, .. } => RuntimeError::Unsupported { what: verb },
        CriError::Unavailable { .. } => RuntimeError::Unavailable { message },
        CriError::Timeout { limit, .. } => RuntimeError::Timeout { after: limit },
        CriError::Failed { code, .. } if code == tonic::Code::InvalidArgument => RuntimeError::InvalidArgument { message },
        CriError::Failed { code, .. } if code == tonic::Code::DeadlineExceeded => {
            RuntimeError::Timeout { after: Duration::ZERO }
        }
        CriError::Exists { .. } | CriError::Failed { .. } | CriError::Incomplete { .. } => {
            RuntimeError::Failed { message }
        }
    }
}
