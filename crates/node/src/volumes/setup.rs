//! Makes all volumes of a pod and brings their files up to date.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::Clock;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use view::Client;

use super::claims::Claim;
use super::payload::{self, Inputs};
use super::tokens::Tokens;
use super::{VolumeError, VolumePath, atomic, host_path, mounts, ownership};
use crate::objects::Objects;
use crate::spec::env::{Facts, Sources};
use crate::spec::resources;

const EMPTY_DIR: &str = "kubernetes.io~empty-dir";

/// Everything volumes are made with; shared by all pods.
pub struct VolumesContext {
    pub client: Client,
    pub objects: Arc<Objects>,
    pub tokens: Tokens,
    pub clock: Arc<dyn Clock>,
    /// `DATA/kubelet/pods`.
    pub pods_root: PathBuf,
    /// Where `local-path` volumes lie; None where this node keeps none.
    pub local_path: Option<PathBuf>,
}

/// What stands.
#[derive(Clone, Debug, Default)]
pub struct Volumes {
    pub paths: BTreeMap<String, VolumePath>,
    /// When files must be written again at the latest (tokens).
    pub refresh_at: Option<Timestamp>,
}

impl VolumesContext {
    pub fn pod_root(&self, uid: &str) -> PathBuf {
        self.pods_root.join(uid)
    }

    /// Makes what is missing and updates what changed. Safe to repeat.
    pub async fn set_up(&self, pod: &core::Pod, facts: &Facts) -> Result<Volumes, VolumeError> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let root = self.pod_root(uid);
        for folder in ["volumes", "containers", "plugins"] {
            fs::create_dir_all(root.join(folder)).map_err(VolumeError::io("create folder", root.join(folder)))?;
        }
        let mut done = Volumes::default();
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
        for volume in volumes.into_iter().flatten() {
            let path = self.set_up_one(pod, volume, facts, &mut done).await?;
            done.paths.insert(volume.name.clone(), path);
        }
        Ok(done)
    }

    async fn set_up_one(
        &self,
        pod: &core::Pod,
        volume: &core::Volume,
        facts: &Facts,
        done: &mut Volumes,
    ) -> Result<VolumePath, VolumeError> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        if let Some(host) = &volume.host_path {
            let path = PathBuf::from(&host.path);
            host_path::check(&volume.name, &path, host.type_.as_deref().unwrap_or_default())?;
            return Ok(VolumePath { path, ..VolumePath::default() });
        }
        if let Some(claim) = &volume.persistent_volume_claim {
            let readonly = claim.read_only == Some(true);
            let claim = Claim { volume: &volume.name, namespace, name: &claim.claim_name, readonly };
            return self.owned(pod, &volume.name, self.claimed(&claim).await?).await;
        }
        if volume.ephemeral.is_some() {
            let name = format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name);
            let claim = Claim { volume: &volume.name, namespace, name: &name, readonly: false };
            return self.owned(pod, &volume.name, self.claimed(&claim).await?).await;
        }
        if let Some(empty) = &volume.empty_dir {
            return self.empty_dir(pod, volume, empty, facts);
        }
        self.files(pod, volume, facts, done).await
    }

    /// `fsGroup` of a volume that was not made by us: once for a pod, before its containers, which may then give their
    /// files other modes. Walking a large volume must not stall the worker's thread.
    async fn owned(&self, pod: &core::Pod, name: &str, volume: VolumePath) -> Result<VolumePath, VolumeError> {
        let Some(group) = fs_group(pod).filter(|_| volume.group_owned && !volume.block && !volume.readonly) else {
            return Ok(volume);
        };
        let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        let lazy = context.is_some_and(|c| c.fs_group_change_policy.as_deref() == Some("OnRootMismatch"));
        let path = volume.path.clone();
        let marks = self.pod_root(pod.metadata.uid.as_deref().unwrap_or_default()).join("plugins/fs-group");
        let mark = marks.join(name);
        let walk = move || {
            if mark.exists() || lazy && ownership::root_matches(&path, group, false) {
                return Ok(());
            }
            ownership::apply(&path, group, false).map_err(VolumeError::io("give to fsGroup", &path))?;
            fs::create_dir_all(&marks).map_err(VolumeError::io("create folder", &marks))?;
            fs::write(&mark, b"").map_err(VolumeError::io("write", &mark))
        };
        tokio::task::spawn_blocking(walk).await.expect("the walk does not panic")?;
        Ok(volume)
    }

    fn empty_dir(
        &self,
        pod: &core::Pod,
        volume: &core::Volume,
        empty: &core::EmptyDirVolumeSource,
        facts: &Facts,
    ) -> Result<VolumePath, VolumeError> {
        let path = self.place(pod, EMPTY_DIR, &volume.name)?;
        if empty.medium.as_deref().is_some_and(|medium| medium == "Memory") {
            let asked = empty.size_limit.as_ref().map(resources::quantity).filter(|size| *size != 0);
            let asked = asked.and_then(|size| i64::try_from(size / 1000).ok());
            // What is written counts as the pod's memory: more than that would only kill it.
            let own = pod.spec.as_ref().and_then(|spec| resources::of_pod(spec).2).filter(|limit| *limit != 0);
            let size = asked.into_iter().chain(own).chain([facts.allocatable_memory_bytes]).min();
            let size = size.and_then(|size| u64::try_from(size).ok());
            mounts::tmpfs(&path, size).map_err(VolumeError::io("mount tmpfs on", &path))?;
        }
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode));
        match fs_group(pod) {
            None => mode(0o777).map_err(VolumeError::io("set mode of", &path))?,
            Some(group) => {
                mode(0o2777).map_err(VolumeError::io("set mode of", &path))?;
                if !ownership::root_matches(&path, group, false) {
                    ownership::apply(&path, group, false).map_err(VolumeError::io("give to fsGroup", &path))?;
                }
            }
        }
        Ok(VolumePath { path, ..VolumePath::default() })
    }

    async fn files(
        &self,
        pod: &core::Pod,
        volume: &core::Volume,
        facts: &Facts,
        done: &mut Volumes,
    ) -> Result<VolumePath, VolumeError> {
        let kind = match volume {
            core::Volume { config_map: Some(_), .. } => "kubernetes.io~configmap",
            core::Volume { secret: Some(_), .. } => "kubernetes.io~secret",
            core::Volume { downward_api: Some(_), .. } => "kubernetes.io~downward-api",
            core::Volume { projected: Some(_), .. } => "kubernetes.io~projected",
            _ => return Err(VolumeError::set_up(&volume.name, "no volume plugin matched")),
        };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut sources = Sources::new();
        for source in payload::references(volume) {
            let data = self.objects.fetch(namespace, &source).await;
            let data = data.map_err(|error| VolumeError::set_up(&volume.name, error.to_string()))?;
            sources.insert(source, data);
        }
        let mut tokens = BTreeMap::new();
        for projection in payload::token_projections(volume) {
            let token = self.tokens.get(&self.client, pod, projection, self.clock.now()).await;
            let fail =
                |error: view::ClientError| VolumeError::set_up(&volume.name, format!("failed to fetch token: {error}"));
            let (token, renew_at) = token.map_err(fail)?;
            tokens.insert(projection.path.clone(), token);
            done.refresh_at = Some(done.refresh_at.map_or(renew_at, |at| at.min(renew_at)));
        }
        let inputs = Inputs { pod, sources: &sources, tokens: &tokens, facts };
        let files = payload::build(volume, &inputs)?.expect("the kinds above are made of files");
        let path = self.place(pod, kind, &volume.name)?;
        if kind != "kubernetes.io~configmap" {
            // Secrets never touch the disk. A machine that refuses the mount still runs the pod.
            if let Err(error) = mounts::tmpfs(&path, None) {
                tracing::warn!(path = %path.display(), %error, "secret volume is on disk: tmpfs was refused");
            }
        }
        let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o777));
        let group = fs_group(pod);
        let stamp = self.clock.now().strftime("%Y_%m_%d_%H_%M_%S.%f").to_string();
        let own = |folder: &Path| group.map_or(Ok(()), |group| ownership::apply(folder, group, true));
        atomic::write(&path, &files, &stamp, own).map_err(VolumeError::io("write files of", &path))?;
        Ok(VolumePath { path, ..VolumePath::default() })
    }

    /// Where an `emptyDir` lies.
    pub fn empty_dir_path(&self, uid: &str, name: &str) -> PathBuf {
        self.pod_root(uid).join("volumes").join(EMPTY_DIR).join(name)
    }

    fn place(&self, pod: &core::Pod, kind: &str, name: &str) -> Result<PathBuf, VolumeError> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let path = self.pod_root(uid).join("volumes").join(kind).join(name);
        fs::create_dir_all(&path).map_err(VolumeError::io("create folder", &path))?;
        Ok(path)
    }

    /// Unmounts and deletes the pod's folder. Blocking work goes off the worker's thread.
    pub async fn tear_down(&self, uid: &str) -> Result<(), VolumeError> {
        let root = self.pod_root(uid);
        self.tokens.forget(uid);
        let work = move || {
            if !root.exists() {
                return Ok(());
            }
            mounts::unmount_below(&root).map_err(VolumeError::io("unmount below", &root))?;
            fs::remove_dir_all(&root).map_err(VolumeError::io("remove", &root))
        };
        tokio::task::spawn_blocking(work).await.expect("tear-down does not panic")
    }
}

pub fn fs_group(pod: &core::Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}
