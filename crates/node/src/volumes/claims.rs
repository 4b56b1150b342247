//! From a claim to a folder or device of this machine: `local`, `hostPath` and `local-path` persistent volumes.

use std::path::PathBuf;

use api::local_path::{PROVISIONED_BY, PROVISIONER};
use api::{Gvr, Key};
use k8s_openapi::api::core::v1 as core;

use super::{VolumeError, VolumePath, VolumesContext, host_path, local_path};

/// Which claim a pod's volume names.
pub struct Claim<'a> {
    pub volume: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub readonly: bool,
}

impl Claim<'_> {
    fn fail(&self, message: impl Into<String>) -> VolumeError {
        VolumeError::set_up(self.volume, message)
    }
}

impl VolumesContext {
    /// The volume that a claim is bound to, on this machine.
    pub(super) async fn claimed(&self, claim: &Claim<'_>) -> Result<VolumePath, VolumeError> {
        let found = self.bound(claim).await?;
        let spec = found.spec.clone().unwrap_or_default();
        let only_read = spec.access_modes.as_ref().is_some_and(|modes| modes.iter().all(|mode| mode == "ReadOnlyMany"));
        let (path, group_owned) = self.place_of(claim, &found)?;
        if !path.exists() {
            return Err(claim.fail(format!("path {:?} does not exist", path.display().to_string())));
        }
        let block = spec.volume_mode.as_deref() == Some("Block");
        Ok(VolumePath { path, readonly: claim.readonly || only_read, block, group_owned })
    }

    async fn bound(&self, claim: &Claim<'_>) -> Result<core::PersistentVolume, VolumeError> {
        let fail = |message: String| claim.fail(message);
        let claims = Gvr::new("", "v1", "persistentvolumeclaims");
        let tree = self.client.get(&claims, &Key::new(claim.namespace, claim.name)).await;
        let tree = tree.map_err(|error| fail(error.to_string()))?;
        let found: core::PersistentVolumeClaim =
            serde_json::from_value(tree).map_err(|error| fail(error.to_string()))?;
        let bound = found.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        let name = found.spec.and_then(|spec| spec.volume_name).filter(|name| bound && !name.is_empty());
        let name = name.ok_or_else(|| fail(format!("persistentvolumeclaim {:?} is not bound", claim.name)))?;
        let volumes = Gvr::new("", "v1", "persistentvolumes");
        let tree = self.client.get(&volumes, &Key::cluster(&name)).await.map_err(|error| fail(error.to_string()))?;
        let volume: core::PersistentVolume = serde_json::from_value(tree).map_err(|error| fail(error.to_string()))?;
        let claimed_by = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()?.uid.clone());
        if claimed_by != found.metadata.uid {
            return Err(fail(format!("persistentvolume {name:?} is not bound to claim {:?}", claim.name)));
        }
        Ok(volume)
    }

    /// Where it lies, and whether a pod's group may own it.
    fn place_of(&self, claim: &Claim<'_>, volume: &core::PersistentVolume) -> Result<(PathBuf, bool), VolumeError> {
        let spec = volume.spec.as_ref();
        if let Some(local) = spec.and_then(|spec| spec.local.as_ref()) {
            return Ok((PathBuf::from(&local.path), true));
        }
        let Some(host) = spec.and_then(|spec| spec.host_path.as_ref()) else {
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            return Err(claim.fail(format!("no volume plugin matched persistentvolume {name:?}")));
        };
        let path = PathBuf::from(&host.path);
        let annotations = volume.metadata.annotations.as_ref();
        if annotations.and_then(|all| all.get(PROVISIONED_BY)).is_some_and(|maker| maker == PROVISIONER) {
            let made = local_path::make(self.local_path.as_deref(), &path);
            return made.map(|()| (path, true)).map_err(|error| claim.fail(error.to_string()));
        }
        host_path::check(claim.volume, &path, host.type_.as_deref().unwrap_or_default())?;
        Ok((path, false))
    }
}
