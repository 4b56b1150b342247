//! Sandbox, container, exec, stats and event verbs.

use std::time::Duration;

use super::{Cri, CriError, QUERY_TIMEOUT, REPORT_TIMEOUT, REQUEST_TIMEOUT, call, v1};

/// What a command run inside a container printed, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: i32,
}

/// How a command or an attachment is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stdio {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

// === The runtime itself ===

impl Cri {
    pub async fn version(&self) -> Result<v1::VersionResponse, CriError> {
        let request = v1::VersionRequest { version: "v1".into() };
        call("version", QUERY_TIMEOUT, self.runtime.clone().version(request)).await
    }

    /// Conditions (`RuntimeReady`, `NetworkReady`), runtime handlers; with `verbose` the runtime's own configuration.
    pub async fn status(&self, verbose: bool) -> Result<v1::StatusResponse, CriError> {
        call("status", QUERY_TIMEOUT, self.runtime.clone().status(v1::StatusRequest { verbose })).await
    }

    /// The cgroup driver the runtime uses, where it tells.
    pub async fn runtime_config(&self) -> Result<v1::RuntimeConfigResponse, CriError> {
        let request = v1::RuntimeConfigRequest {};
        call("runtime config", QUERY_TIMEOUT, self.runtime.clone().runtime_config(request)).await
    }

    /// Tells the runtime the node's pod range, for runtimes that template their own network configuration.
    pub async fn update_runtime_config(&self, pod_cidr: &str) -> Result<(), CriError> {
        let network_config = Some(v1::NetworkConfig { pod_cidr: pod_cidr.to_owned() });
        let request = v1::UpdateRuntimeConfigRequest { runtime_config: Some(v1::RuntimeConfig { network_config }) };
        let mut client = self.runtime.clone();
        call("update runtime config", REQUEST_TIMEOUT, client.update_runtime_config(request)).await.map(drop)
    }
}

// === Sandboxes ===

impl Cri {
    /// Makes and starts a sandbox; its id. The empty handler is the default runtime.
    pub async fn run_sandbox(&self, config: v1::PodSandboxConfig, runtime_handler: &str) -> Result<String, CriError> {
        let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: runtime_handler.to_owned() };
        let reply = call("run sandbox", 2 * REQUEST_TIMEOUT, self.runtime.clone().run_pod_sandbox(request)).await?;
        Ok(reply.pod_sandbox_id)
    }

    /// Stops a sandbox and everything in it, and gives its address back. Repeating it is harmless.
    pub async fn stop_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        absent_is_done(call("stop sandbox", REQUEST_TIMEOUT, self.runtime.clone().stop_pod_sandbox(request)).await)
    }

    pub async fn remove_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        let reply = call("remove sandbox", REQUEST_TIMEOUT, self.runtime.clone().remove_pod_sandbox(request)).await;
        absent_is_done(reply)
    }

    /// State, addresses and, with `verbose`, the runtime's details (`info`: pid and configuration as JSON).
    pub async fn sandbox_status(&self, id: &str, verbose: bool) -> Result<v1::PodSandboxStatusResponse, CriError> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose };
        call("sandbox status", QUERY_TIMEOUT, self.runtime.clone().pod_sandbox_status(request)).await
    }

    pub async fn list_sandboxes(&self, filter: Option<v1::PodSandboxFilter>) -> Result<Vec<v1::PodSandbox>, CriError> {
        let request = v1::ListPodSandboxRequest { filter };
        Ok(call("list sandboxes", QUERY_TIMEOUT, self.runtime.clone().list_pod_sandbox(request)).await?.items)
    }
}

// === Containers ===

impl Cri {
    /// Makes a container in a sandbox; its id.
    pub async fn create_container(
        &self,
        sandbox: &str,
        config: v1::ContainerConfig,
        sandbox_config: v1::PodSandboxConfig,
    ) -> Result<String, CriError> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let reply = call("create container", REQUEST_TIMEOUT, self.runtime.clone().create_container(request)).await?;
        Ok(reply.container_id)
    }

    pub async fn start_container(&self, id: &str) -> Result<(), CriError> {
        let request = v1::StartContainerRequest { container_id: id.to_owned() };
        call("start container", REQUEST_TIMEOUT, self.runtime.clone().start_container(request)).await.map(drop)
    }

    /// Sends the stop signal, waits `grace`, kills. Returns when the container is gone.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), CriError> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let request = v1::StopContainerRequest { container_id: id.to_owned(), timeout };
        let limit = grace.saturating_add(REQUEST_TIMEOUT);
        absent_is_done(call("stop container", limit, self.runtime.clone().stop_container(request)).await)
    }

    pub async fn remove_container(&self, id: &str) -> Result<(), CriError> {
        let request = v1::RemoveContainerRequest { container_id: id.to_owned() };
        absent_is_done(call("remove container", REQUEST_TIMEOUT, self.runtime.clone().remove_container(request)).await)
    }

    pub async fn list_containers(&self, filter: Option<v1::ContainerFilter>) -> Result<Vec<v1::Container>, CriError> {
        let request = v1::ListContainersRequest { filter };
        Ok(call("list containers", QUERY_TIMEOUT, self.runtime.clone().list_containers(request)).await?.containers)
    }

    pub async fn container_status(
        &self,
        id: &str,
        verbose: bool,
    ) -> Result<(v1::ContainerStatus, std::collections::HashMap<String, String>), CriError> {
        let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose };
        let reply = call("container status", QUERY_TIMEOUT, self.runtime.clone().container_status(request)).await?;
        let status = reply.status.ok_or(CriError::Incomplete { verb: "container status", field: "status" })?;
        Ok((status, reply.info))
    }

    pub async fn update_container(&self, id: &str, linux: v1::LinuxContainerResources) -> Result<(), CriError> {
        let request = v1::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(linux),
            ..v1::UpdateContainerResourcesRequest::default()
        };
        let mut client = self.runtime.clone();
        call("update container", REQUEST_TIMEOUT, client.update_container_resources(request)).await.map(drop)
    }

    /// Makes the runtime open the log file anew, after a rotation moved it.
    pub async fn reopen_log(&self, id: &str) -> Result<(), CriError> {
        let request = v1::ReopenContainerLogRequest { container_id: id.to_owned() };
        call("reopen log", QUERY_TIMEOUT, self.runtime.clone().reopen_container_log(request)).await.map(drop)
    }
}

// === Commands and streams ===

impl Cri {
    /// Runs a command to its end. A zero `timeout` means none on the runtime's side; ours is the request limit then.
    pub async fn exec_sync(&self, id: &str, command: &[String], timeout: Duration) -> Result<Output, CriError> {
        let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
        let request = v1::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.to_vec(),
            timeout: i64::try_from(seconds).unwrap_or(i64::MAX),
        };
        let own = if timeout.is_zero() { REQUEST_TIMEOUT } else { timeout };
        let limit = own.saturating_add(REPORT_TIMEOUT);
        let reply = call("exec", limit, self.runtime.clone().exec_sync(request)).await?;
        Ok(Output { stdout: reply.stdout, stderr: reply.stderr, exit_code: reply.exit_code })
    }

    /// The URL on the runtime's streaming server where this command runs once a client upgrades.
    pub async fn exec(&self, id: &str, command: &[String], stdio: Stdio) -> Result<String, CriError> {
        let request = v1::ExecRequest {
            container_id: id.to_owned(),
            cmd: command.to_vec(),
            tty: stdio.tty,
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
        };
        Ok(call("exec stream", REQUEST_TIMEOUT, self.runtime.clone().exec(request)).await?.url)
    }

    pub async fn attach(&self, id: &str, stdio: Stdio) -> Result<String, CriError> {
        let request = v1::AttachRequest {
            container_id: id.to_owned(),
            stdin: stdio.stdin,
            tty: stdio.tty,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
        };
        Ok(call("attach stream", REQUEST_TIMEOUT, self.runtime.clone().attach(request)).await?.url)
    }

    pub async fn port_forward(&self, sandbox: &str, ports: &[u16]) -> Result<String, CriError> {
        let request = v1::PortForwardRequest {
            pod_sandbox_id: sandbox.to_owned(),
            port: ports.iter().map(|port| i32::from(*port)).collect(),
        };
        Ok(call("port-forward stream", REQUEST_TIMEOUT, self.runtime.clone().port_forward(request)).await?.url)
    }
}

// === Statistics ===

impl Cri {
    pub async fn container_stats(&self, id: &str) -> Result<v1::ContainerStats, CriError> {
        let request = v1::ContainerStatsRequest { container_id: id.to_owned() };
        let reply = call("container stats", QUERY_TIMEOUT, self.runtime.clone().container_stats(request)).await?;
        reply.stats.ok_or(CriError::Incomplete { verb: "container stats", field: "stats" })
    }

    pub async fn list_container_stats(&self) -> Result<Vec<v1::ContainerStats>, CriError> {
        let request = v1::ListContainerStatsRequest { filter: None };
        Ok(call("list stats", QUERY_TIMEOUT, self.runtime.clone().list_container_stats(request)).await?.stats)
    }

    pub async fn sandbox_stats(&self, id: &str) -> Result<v1::PodSandboxStats, CriError> {
        let request = v1::PodSandboxStatsRequest { pod_sandbox_id: id.to_owned() };
        let reply = call("sandbox stats", QUERY_TIMEOUT, self.runtime.clone().pod_sandbox_stats(request)).await?;
        reply.stats.ok_or(CriError::Incomplete { verb: "sandbox stats", field: "stats" })
    }

    pub async fn list_sandbox_stats(&self) -> Result<Vec<v1::PodSandboxStats>, CriError> {
        let request = v1::ListPodSandboxStatsRequest { filter: None };
        let mut client = self.runtime.clone();
        Ok(call("list sandbox stats", QUERY_TIMEOUT, client.list_pod_sandbox_stats(request)).await?.stats)
    }
}

/// Stopping or removing what is gone has already happened.
fn absent_is_done<T>(reply: Result<T, CriError>) -> Result<(), CriError> {
    match reply {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}
