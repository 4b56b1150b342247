//! Starting one container: image, configuration, create, start, postStart. Each failure names its reason as upstream.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;

use super::event::StartFailure;
use super::hooks::{self, HookOf};
use super::observe;
use super::order;
use super::resize::Resizing;
use super::slot::Run;
use crate::context::Context;
use crate::images::{PullNews, Wanted};
use crate::runtime::{ContainerState, Device, Image, Mount, Propagation, SandboxConfig};
use crate::spec::container::{Prepared, config, of_ephemeral};
use crate::spec::env::{self, Source, Sources};
use crate::spec::{SpecError, expand, hosts, pull_secrets, qos};
use crate::volumes::{Volumes, subpath};

/// Everything a start needs to know.
pub struct Start {
    pub context: Arc<Context>,
    pub pod: Arc<core::Pod>,
    pub name: String,
    pub attempt: u32,
    pub sandbox: String,
    pub sandbox_config: SandboxConfig,
    pub ips: Vec<String>,
    pub volumes: Volumes,
    /// Ids of the pod's running containers, for the target of an ephemeral one.
    pub running: BTreeMap<String, String>,
}

/// A failed start; `created` tells that the attempt number is used up.
pub struct Failed {
    pub created: bool,
    pub failure: StartFailure,
}

impl Failed {
    fn before(reason: &str, message: impl Into<String>) -> Failed {
        let failure = StartFailure { reason: reason.into(), message: message.into(), retry_at: None, exit: None };
        Failed { created: false, failure }
    }

    fn config(error: SpecError) -> Failed {
        Failed::before("CreateContainerConfigError", error.message)
    }
}

impl Start {
    pub async fn run(self, progress: impl Fn(&str, &str)) -> Result<Run, Failed> {
        let container =
            self.container().ok_or_else(|| Failed::before("CreateContainerConfigError", "no such container"))?;
        let image = self.image(&container, &progress).await?;
        progress("ContainerCreating", "");
        let prepared = self.prepare(&container, &image).await.map_err(|error| self.config_failed(error))?;
        let config = config(&self.pod, &container, prepared).map_err(|error| self.config_failed(error))?;
        let logs = self.sandbox_config.log_directory.join(&self.name);
        fs::create_dir_all(&logs).map_err(|error| Failed::before("CreateContainerError", error.to_string()))?;
        let runtime = &self.context.runtime;
        let created = runtime.create_container(&self.sandbox, &config, &self.sandbox_config).await;
        let id = created.map_err(|error| {
            self.event(true, "Failed", &format!("Error: {error}"));
            Failed { created: true, ..Failed::before("CreateContainerError", error.to_string()) }
        })?;
        self.event(false, "Created", &format!("Created container: {}", self.name));
        if let Err(error) = runtime.start_container(&id).await {
            self.event(true, "Failed", &format!("Error: {error}"));
            return Err(self.start_failed(&id, &error.to_string()).await);
        }
        self.event(false, "Started", &format!("Started container {}", self.name));
        let run = self.run_of(&id, &container, &image).await;
        let ip = self.ips.first().cloned().unwrap_or_default();
        let of = HookOf { pod: &self.pod, container: &container, id: &id, pod_ip: &ip };
        if let Err(message) = hooks::post_start(&self.context, &of).await {
            self.event(true, "FailedPostStartHook", &format!("PostStartHook failed: {message}"));
            return Err(self.hook_failed(&id, &message).await);
        }
        Ok(run)
    }

    fn container(&self) -> Option<core::Container> {
        order::container(&self.pod, &self.name).cloned().or_else(|| self.ephemeral().map(of_ephemeral))
    }

    fn ephemeral(&self) -> Option<&core::EphemeralContainer> {
        self.pod.spec.as_ref()?.ephemeral_containers.iter().flatten().find(|extra| extra.name == self.name)
    }

    fn event(&self, warning: bool, reason: &str, message: &str) {
        self.context.event(&self.pod, Some(&self.name), warning, reason, message);
    }

    fn config_failed(&self, error: SpecError) -> Failed {
        self.event(true, "Failed", &format!("Error: {}", error.message));
        Failed::config(error)
    }

    async fn image(&self, container: &core::Container, progress: &impl Fn(&str, &str)) -> Result<Image, Failed> {
        let name = container.image.clone().unwrap_or_default();
        let wanted = Wanted {
            image: &name,
            policy: container.image_pull_policy.as_deref().unwrap_or_default(),
            pod_uid: self.pod.metadata.uid.as_deref().unwrap_or_default(),
            auths: pull_secrets::for_image(&name, &self.pull_secrets().await),
        };
        let news = |news: PullNews| match news {
            PullNews::Present => {
                self.event(false, "Pulled", &format!("Container image {name:?} already present on machine"));
            }
            PullNews::Pulling => {
                progress("ContainerCreating", "");
                self.event(false, "Pulling", &format!("Pulling image {name:?}"));
            }
            PullNews::Pulled { took, size_bytes } => {
                let took = format!("{:.3}s", took.as_secs_f64());
                let text = format!(
                    "Successfully pulled image {name:?} in {took} ({took} including waiting). Image size: {size_bytes} bytes."
                );
                self.event(false, "Pulled", &text);
            }
        };
        self.context.images.ensure(&wanted, news).await.map_err(|failure| {
            match failure.reason {
                "ImagePullBackOff" => self.event(false, "BackOff", &format!("Back-off pulling image {name:?}")),
                "ErrImagePull" => {
                    self.event(true, "Failed", &format!("Failed to pull image {name:?}: {}", failure.message));
                    self.event(true, "Failed", "Error: ErrImagePull");
                }
                reason => self.event(true, "Failed", &format!("Error: {reason}")),
            }
            let mut failed = Failed::before(failure.reason, failure.message);
            failed.failure.retry_at = failure.retry_at;
            failed
        })
    }

    /// Pull secrets that exist; a missing one is no error, as upstream.
    async fn pull_secrets(&self) -> Vec<BTreeMap<String, Vec<u8>>> {
        let names = self.pod.spec.as_ref().and_then(|spec| spec.image_pull_secrets.as_ref());
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut found = Vec::new();
        for reference in names.into_iter().flatten() {
            match self.context.objects.fetch(namespace, &Source::Secret(reference.name.clone())).await {
                Ok(Some(secret)) => found.push(secret),
                Ok(None) | Err(_) => {
                    let text = format!(
                        "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                        reference.name
                    );
                    self.event(true, "FailedToRetrieveImagePullSecret", &text);
                }
            }
        }
        found
    }

    async fn prepare<'a>(&self, container: &core::Container, image: &'a Image) -> Result<Prepared<'a>, SpecError> {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut sources = Sources::new();
        for source in env::references(container) {
            let data = self.context.objects.fetch(namespace, &source).await;
            sources.insert(source, data.map_err(|error| SpecError::new(error.to_string()))?);
        }
        let services = self.context.service_variables(&self.pod).await;
        let facts = self.context.facts(&self.context.pod_ips(&self.pod, &self.ips));
        let env = env::build(&self.pod, container, &services, &sources, &facts)?;
        let (mounts, termination_file) = self.mounts(container, &env)?;
        let target = self.ephemeral().and_then(|extra| extra.target_container_name.as_ref());
        Ok(Prepared {
            attempt: self.attempt,
            image,
            env,
            mounts,
            devices: self.devices(container)?,
            qos: qos::class(&self.pod),
            machine_memory: self.context.machine.memory_bytes,
            seccomp_root: self.context.config.seccomp_dir.clone(),
            volume_groups: Vec::new(),
            termination_file,
            target: target.and_then(|target| self.running.get(target).cloned()),
        })
    }

    fn devices(&self, container: &core::Container) -> Result<Vec<Device>, SpecError> {
        let device = |wanted: &core::VolumeDevice| {
            let volume = self.volumes.paths.get(&wanted.name).filter(|volume| volume.block);
            let volume = volume.ok_or_else(|| {
                SpecError::new(format!("cannot find volume {:?} to pass into container", wanted.name))
            })?;
            let permissions = if volume.readonly { "r" } else { "rwm" };
            Ok(Device {
                container_path: wanted.device_path.clone(),
                host_path: volume.path.clone(),
                permissions: permissions.into(),
            })
        };
        container.volume_devices.iter().flatten().map(device).collect()
    }

    fn mounts(
        &self,
        container: &core::Container,
        env: &[(String, String)],
    ) -> Result<(Vec<Mount>, PathBuf), SpecError> {
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        let root = self.context.volumes.pod_root(uid);
        let mut mounts = Vec::new();
        let vars: BTreeMap<String, String> = env.iter().cloned().collect();
        for (index, wanted) in container.volume_mounts.iter().flatten().enumerate() {
            let place = root.join("volume-subpaths").join(&wanted.name).join(&container.name).join(index.to_string());
            mounts.push(self.volume_mount(wanted, &vars, &place)?);
        }
        if !mounts.iter().any(|mount| mount.container_path == "/etc/hosts") {
            let file = root.join("etc-hosts");
            self.write_hosts(&file).map_err(|error| SpecError::new(format!("write {}: {error}", file.display())))?;
            mounts.push(Mount { container_path: "/etc/hosts".into(), host_path: file, ..Mount::default() });
        }
        let file = self.termination_file(&root).map_err(|error| SpecError::new(format!("termination log: {error}")))?;
        let path = container.termination_message_path.as_deref().filter(|path| !path.is_empty());
        let path = path.unwrap_or("/dev/termination-log").to_owned();
        mounts.push(Mount { container_path: path, host_path: file.clone(), ..Mount::default() });
        Ok((mounts, file))
    }

    fn write_hosts(&self, file: &Path) -> std::io::Result<()> {
        let ips = self.context.pod_ips(&self.pod, &self.ips);
        let host = fs::read_to_string("/etc/hosts").unwrap_or_default();
        let text = hosts::file(&self.pod, &ips, &self.context.config.cluster_domain, &host);
        // Containers that run have it mounted: what they may have added stays unless it must change.
        if fs::read_to_string(file).is_ok_and(|have| have == text) || (file.exists() && !self.running.is_empty()) {
            return Ok(());
        }
        fs::write(file, text)?;
        fs::set_permissions(file, fs::Permissions::from_mode(0o644))
    }

    fn termination_file(&self, root: &Path) -> std::io::Result<PathBuf> {
        let folder = root.join("containers").join(&self.name);
        fs::create_dir_all(&folder)?;
        let file = folder.join(format!("{}-{:08x}", self.attempt, self.context.ports.rng.next_u64() as u32));
        fs::write(&file, b"")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666))?;
        Ok(file)
    }

    fn volume_mount(
        &self,
        wanted: &core::VolumeMount,
        vars: &BTreeMap<String, String>,
        place: &Path,
    ) -> Result<Mount, SpecError> {
        let missing =
            || SpecError::new(format!("cannot find volume {:?} to mount into container {:?}", wanted.name, self.name));
        let volume = self.volumes.paths.get(&wanted.name).ok_or_else(missing)?;
        let readonly = wanted.read_only == Some(true) || volume.readonly;
        let sub = match (&wanted.sub_path, &wanted.sub_path_expr) {
            (_, Some(expression)) if !expression.is_empty() => expand::expand_strict(expression, vars)
                .map_err(|names| SpecError::new(format!("missing value for {}", names.join(", "))))?,
            (Some(sub), _) => sub.clone(),
            _ => String::new(),
        };
        let host_path = if sub.is_empty() {
            volume.path.clone()
        } else {
            subpath::bind(&volume.path, Path::new(&sub), place, !volume.readonly).map_err(|error| {
                SpecError::new(format!(
                    "failed to prepare subPath for volumeMount {:?} of container {:?}: {error}",
                    wanted.name, self.name
                ))
            })?;
            place.to_path_buf()
        };
        Ok(Mount {
            container_path: wanted.mount_path.clone(),
            host_path,
            readonly,
            recursive_readonly: readonly && self.recursive(wanted)?,
            propagation: match wanted.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::Private,
            },
            selinux_relabel: false,
        })
    }

    /// A mount that must be read-only all through is not made less than that.
    fn recursive(&self, wanted: &core::VolumeMount) -> Result<bool, SpecError> {
        let able = self.context.recursive_read_only(&self.sandbox_config.runtime_handler);
        match wanted.recursive_read_only.as_deref() {
            Some("Enabled") if !able => Err(SpecError::new(format!(
                "volume {:?} requested recursive read-only mode, but it is not supported by the runtime",
                wanted.name
            ))),
            Some("Enabled" | "IfPossible") => Ok(able),
            _ => Ok(false),
        }
    }

    async fn run_of(&self, id: &str, container: &core::Container, image: &Image) -> Run {
        let status = self.context.runtime.container_status(id).await.ok();
        let image_ref = status.as_ref().map(|status| status.image_ref.clone()).filter(|text| !text.is_empty());
        Run {
            id: id.to_owned(),
            image: container.image.clone().unwrap_or_default(),
            image_ref: image_ref.unwrap_or_else(|| image.id.clone()),
            since: status
                .as_ref()
                .and_then(|status| observe::time(status.started_at))
                .or(Some(self.context.ports.clock.now())),
            started: container.startup_probe.is_none(),
            ready: container.readiness_probe.is_none(),
            user: status.and_then(|status| status.user),
            applied: container.resources.clone(),
            resizing: Resizing::Idle,
        }
    }

    async fn start_failed(&self, id: &str, message: &str) -> Failed {
        let mut failed = Failed { created: true, ..Failed::before("RunContainerError", message) };
        if let Ok(status) = self.context.runtime.container_status(id).await
            && status.state == ContainerState::Exited
        {
            let mut exit = observe::exit(&status);
            if exit.message.is_empty() {
                exit.message = message.to_owned();
            }
            failed.failure.exit = Some(exit);
        }
        failed
    }

    async fn hook_failed(&self, id: &str, message: &str) -> Failed {
        let mut failed = Failed { created: true, ..Failed::before("PostStartHookError", message) };
        let grace = order::grace(&self.pod);
        let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        let _ = self.context.runtime.stop_container(id, grace).await;
        if let Ok(status) = self.context.runtime.container_status(id).await {
            failed.failure.exit = Some(observe::exit(&status));
        }
        failed
    }
}
