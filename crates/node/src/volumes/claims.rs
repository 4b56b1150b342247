//! From a claim to a folder or device of this machine: `local` and `hostPath` persistent volumes.

use std::path::PathBuf;

use api::{Gvr, Key};
use k8s_openapi::api::core::v1 as core;
use view::Client;

use super::{VolumeError, VolumePath, host_path};

pub async fn resolve(
    client: &Client,
    pod: &core::Pod,
    volume: &str,
    claim: &str,
    readonly: bool,
) -> Result<VolumePath, VolumeError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let fail = |message: String| VolumeError::set_up(volume, message);
    let claims = Gvr::new("", "v1", "persistentvolumeclaims");
    let tree = client.get(&claims, &Key::new(namespace, claim)).await.map_err(|error| fail(error.to_string()))?;
    let found: core::PersistentVolumeClaim = serde_json::from_value(tree).map_err(|error| fail(error.to_string()))?;
    let spec = found.spec.clone().unwrap_or_default();
    let bound = found.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let Some(name) = spec.volume_name.filter(|name| bound && !name.is_empty()) else {
        return Err(fail(format!("persistentvolumeclaim {claim:?} is not bound")));
    };
    let volumes = Gvr::new("", "v1", "persistentvolumes");
    let tree = client.get(&volumes, &Key::cluster(&name)).await.map_err(|error| fail(error.to_string()))?;
    let found_volume: core::PersistentVolume = serde_json::from_value(tree).map_err(|error| fail(error.to_string()))?;
    let volume_spec = found_volume.spec.clone().unwrap_or_default();
    let claimed_by = volume_spec.claim_ref.as_ref().and_then(|claim| claim.uid.clone());
    if claimed_by != found.metadata.uid {
        return Err(fail(format!("persistentvolume {name:?} is not bound to claim {claim:?}")));
    }
    let block = volume_spec.volume_mode.as_deref() == Some("Block");
    let only_read =
        volume_spec.access_modes.as_ref().is_some_and(|modes| modes.iter().all(|mode| mode == "ReadOnlyMany"));
    let path = if let Some(local) = &volume_spec.local {
        PathBuf::from(&local.path)
    } else if let Some(host) = &volume_spec.host_path {
        let path = PathBuf::from(&host.path);
        host_path::check(volume, &path, host.type_.as_deref().unwrap_or_default())?;
        path
    } else {
        return Err(fail(format!("no volume plugin matched persistentvolume {name:?}")));
    };
    if !path.exists() {
        return Err(fail(format!("path {:?} does not exist", path.display().to_string())));
    }
    Ok(VolumePath { path, readonly: readonly || only_read, block })
}
